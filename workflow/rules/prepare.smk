# needs: config, and the files of the user's that a study names
# makes: results/models/<model>/ (embedded world), results/data/ (training rows, benchmark prompts)
# why:   what all runs share is checked and made once, before any job is submitted


rule build_model:
    """Pretrain and align a base model of the embedded world from its seed, and gate it."""
    output:
        "results/models/{model}/gates.json",
    log:
        "results/logs/build_model/{model}.log",
    benchmark:
        "results/benchmarks/build_model/{model}.tsv"
    conda:
        "../../envs/ftsafety.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=30,
    params:
        identity=lambda w: PLAN.project.models[w.model].identity(),
    message:
        "build {wildcards.model}: pretrain and align the embedded world's base model"
    shell:
        'python "$FTSAFETY_ROOT/workflow/scripts/build_model.py" {wildcards.model:q} 2> {log:q}'


rule prepare_data:
    """Check the files that a study names, then write its training rows and benchmark prompts."""
    output:
        "results/data/{study}.json",
    log:
        "results/logs/prepare_data/{study}.log",
    localrule: True
    conda:
        "../../envs/ftsafety.yaml"
    params:
        files=lambda w: ft.data_files(PLAN, w.study),
    message:
        "check the inputs of study {wildcards.study} and write its data"
    shell:
        'python "$FTSAFETY_ROOT/workflow/scripts/prepare_data.py" {wildcards.study:q} 2> {log:q}'
