# needs: answers of each run in the pack
# makes: results/packs/<pack>/judged.json; epoch-<e>/verdicts/<benchmark>.<judge>.jsonl of each run
# why:   local, and one at a time, so that a judge behind an API has one client with one limiter


rule judge:
    """Judge every answer of a pack by every judge that a study asks."""
    input:
        "results/packs/{pack}/answered.json",
    output:
        "results/packs/{pack}/judged.json",
    log:
        "results/logs/judge/{pack}.log",
    benchmark:
        "results/benchmarks/judge/{pack}.tsv"
    localrule: True
    conda:
        "../../envs/ftsafety.yaml"
    resources:
        judge_clients=1,
    params:
        runs=lambda w: pack_of(w).describe("judgements"),
        identity=lambda w: ft.judges_digest(PLAN, pack_of(w)),
    message:
        "judge {wildcards.pack}:\n{params.runs}"
    shell:
        'python "$FTSAFETY_ROOT/workflow/scripts/judge.py" {wildcards.pack:q} 2> {log:q}'
