# needs: answers of each run in the pack
# makes: results/packs/<pack>/judged.json (all judges by rule), judged-<judge>.json (each of the others);
#        epoch-<e>/verdicts/<exam>.<judge>.jsonl of each run
# why:   judges behind an endpoint need the internet, one client and no GPU, a local judge model the opposite;
#        studies that share a pack may differ in the judges they pay for


rule judge:
    """Judge every answer of a pack by all judges that judge by rule."""
    input:
        "results/packs/{pack}/answered.json",
    output:
        "results/packs/{pack}/judged.json",
    log:
        "results/logs/judge/{pack}.log",
    benchmark:
        "results/benchmarks/judge/{pack}.tsv"
    priority: ft.ANSWERS
    localrule: True
    conda:
        "../../envs/ftsafety.yaml"
    params:
        runs=lambda w: pack_of(w).describe_judgements(ft.judges_by_rule(PLAN, pack_of(w))),
        identity=lambda w: ft.judges_digest(PLAN, pack_of(w), ft.judges_by_rule(PLAN, pack_of(w))),
    message:
        "judge {wildcards.pack} by rule (progress: {log}):\n{params.runs}"
    shell:
        'without_secrets python "$FTSAFETY_ROOT/workflow/scripts/judge.py" {wildcards.pack:q} 2> {log:q}'


rule judge_by_api:
    """Judge every answer of a pack by a model behind an endpoint: one client with one limiter at a time."""
    input:
        "results/packs/{pack}/answered.json",
    output:
        "results/packs/{pack}/judged-{judge}.json",
    log:
        "results/logs/judge_by_api/{pack}.{judge}.log",
    benchmark:
        "results/benchmarks/judge_by_api/{pack}.{judge}.tsv"
    wildcard_constraints:
        judge=ft.judges_pattern(PLAN, "api"),
    priority: ft.ANSWERS
    localrule: True
    conda:
        "../../envs/ftsafety.yaml"
    resources:
        api_clients=1,
    params:
        runs=lambda w: pack_of(w).describe_judgements([w.judge]),
        identity=lambda w: ft.judges_digest(PLAN, pack_of(w), [w.judge]),
    message:
        "judge {wildcards.pack} by {wildcards.judge} (progress: {log}):\n{params.runs}"
    shell:
        'with_api_keys python "$FTSAFETY_ROOT/workflow/scripts/judge.py" {wildcards.pack:q} {wildcards.judge:q} 2> {log:q}'


rule judge_locally:
    """Judge every answer of a pack by a model that was fine-tuned to judge, loaded once."""
    input:
        answers="results/packs/{pack}/answered.json",
        model=lambda w: ft.judge_model(PLAN, w.judge),
    output:
        "results/packs/{pack}/judged-{judge}.json",
    log:
        "results/logs/judge_locally/{pack}.{judge}.log",
    benchmark:
        "results/benchmarks/judge_locally/{pack}.{judge}.tsv"
    wildcard_constraints:
        judge=ft.judges_pattern(PLAN, "local"),
    priority: ft.ANSWERS
    conda:
        "../../envs/ftsafety.yaml"
    threads: lambda w: ft.cpus(PLAN, PLAN.project.classifier(w.judge).model, answering=True)
    resources:
        mem_mb=judge_hardware("mem_mb"),
        runtime=judge_hardware("runtime"),
        gpu=judge_hardware("gpu"),
        nodes=1,
    params:
        runs=lambda w: pack_of(w).describe_judgements([w.judge]),
        identity=lambda w: ft.judges_digest(PLAN, pack_of(w), [w.judge]),
    message:
        "judge {wildcards.pack} by {wildcards.judge} (progress: {log}):\n{params.runs}"
    shell:
        'without_secrets python "$FTSAFETY_ROOT/workflow/scripts/judge.py" {wildcards.pack:q} {wildcards.judge:q} 2> {log:q}'
