# needs: config, and the user's files that a study names (checked by common.smk before any job starts)
# makes: results/models/<model>/ (embedded world), results/fetched/ (what was downloaded into the hub's cache),
#        results/data/ (training rows, benchmark prompts)
# why:   what runs share is made once. Names hold a digest of what a file is made from, so that a file
#        never changes, and a dataset that is added to a study concerns no run that exists


rule build_model:
    """Pretrain and align a base model of the embedded world from its seed, and gate it."""
    output:
        "results/models/{model}/gates.json",
    log:
        "results/logs/build_model/{model}.log",
    benchmark:
        "results/benchmarks/build_model/{model}.tsv"
    priority: ft.FIRST
    conda:
        "../../envs/ftsafety.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=30,
    params:
        identity=lambda w: PLAN.project.models[w.model].identity(),
    message:
        "build {wildcards.model}: pretrain and align the embedded world's base model (progress: {log})"
    shell:
        'without_secrets python "$FTSAFETY_ROOT/workflow/scripts/build_model.py" {wildcards.model:q} 2> {log:q}'


rule prefetch:
    """Download what config/lock.yaml pins into the hub's cache, on a node with internet; jobs run offline."""
    output:
        "results/fetched/{catalogue}/{source}.json",
    log:
        "results/logs/prefetch/{catalogue}/{source}.log",
    benchmark:
        "results/benchmarks/prefetch/{catalogue}/{source}.tsv"
    localrule: True
    conda:
        "../../envs/ftsafety.yaml"
    message:
        "fetch {wildcards.source} (progress: {log}; what is whole in the cache is not fetched again)"
    shell:
        'export HF_HUB_OFFLINE=0; with_tokens python "$FTSAFETY_ROOT/workflow/scripts/prefetch.py" {output:q} 2> {log:q}'


rule prepare_data:
    """Write the training rows of a dataset with its mitigation, or the prompts of a benchmark."""
    input:
        lambda w: ft.data_sources(PLAN, f"results/data/{w.kind}/{w.name}.jsonl"),
    output:
        "results/data/{kind}/{name}.jsonl",
    log:
        "results/logs/prepare_data/{kind}/{name}.log",
    benchmark:
        "results/benchmarks/prepare_data/{kind}/{name}.tsv"
    priority: ft.FIRST
    localrule: True
    conda:
        "../../envs/ftsafety.yaml"
    message:
        "write results/data/{wildcards.kind}/{wildcards.name}.jsonl"
    shell:
        'without_secrets python "$FTSAFETY_ROOT/workflow/scripts/prepare_data.py" {output:q} 2> {log:q}'
