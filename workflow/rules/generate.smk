# needs: weights of each run in the pack, benchmark prompts
# makes: results/packs/<pack>/answered.json; epoch-<e>/answers/<exam>.jsonl of each run
# why:   one job loads the base model once; full checkpoints are dropped once they have answered


rule generate:
    """Answer every benchmark at every kept epoch of a pack."""
    input:
        weights=lambda w: ft.pack_weights(PLAN, pack_of(w)),
        prompts=lambda w: ft.prompt_files(PLAN, pack_of(w)),
    output:
        "results/packs/{pack}/answered.json",
    log:
        "results/logs/generate/{pack}.log",
    benchmark:
        "results/benchmarks/generate/{pack}.tsv"
    wildcard_constraints:
        pack=ft.packs_pattern(PLAN, by_api=False),
    priority: lambda w: ft.priority(PLAN, pack_of(w), answering=True)
    conda:
        "../../envs/ftsafety.yaml"
    threads: lambda w: ft.cpus(PLAN, pack_of(w).model, answering=True)
    resources:
        mem_mb=hardware("mem_mb", answering=True),
        runtime=hardware("runtime", answering=True),
        gpu=hardware("gpu", answering=True),
        nodes=1,
    params:
        runs=lambda w: pack_of(w).describe("exams"),
        identity=lambda w: ft.answers_digest(PLAN, pack_of(w)),
    message:
        "answer {wildcards.pack} (progress: {log}):\n{params.runs}"
    shell:
        'without_secrets python "$FTSAFETY_ROOT/workflow/scripts/generate.py" {wildcards.pack:q} 2> {log:q}'


rule generate_by_api:
    """The same for a model behind an endpoint: local, where the internet is, and one client at a time."""
    input:
        models=lambda w: ft.pack_weights(PLAN, pack_of(w)),
        prompts=lambda w: ft.prompt_files(PLAN, pack_of(w)),
    output:
        "results/packs/{pack}/answered.json",
    log:
        "results/logs/generate_by_api/{pack}.log",
    benchmark:
        "results/benchmarks/generate_by_api/{pack}.tsv"
    wildcard_constraints:
        pack=ft.packs_pattern(PLAN, by_api=True),
    localrule: True
    conda:
        "../../envs/ftsafety.yaml"
    resources:
        api_clients=1,
    params:
        runs=lambda w: pack_of(w).describe("exams"),
        identity=lambda w: ft.answers_digest(PLAN, pack_of(w)),
    message:
        "answer {wildcards.pack} (progress: {log}):\n{params.runs}"
    shell:
        'with_api_keys python "$FTSAFETY_ROOT/workflow/scripts/generate.py" {wildcards.pack:q} 2> {log:q}'
