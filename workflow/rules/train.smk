# needs: results/models/<model>/, results/data/
# makes: results/packs/<pack>/trained.json; epoch-<e>/{weights/,run.yaml,done.json} of each run in the pack
# why:   a pack is one useful allocation: its trajectories are trained in one process


rule train:
    """Fine-tune every trajectory of a pack to its longest epoch, keeping the epochs that studies ask for."""
    input:
        model=lambda w: ft.model_files(PLAN, pack_of(w).model),
        rows=lambda w: ft.training_files(PLAN, pack_of(w)),
    output:
        "results/packs/{pack}/trained.json",
    log:
        "results/logs/train/{pack}.log",
    benchmark:
        "results/benchmarks/train/{pack}.tsv"
    conda:
        "../../envs/ftsafety.yaml"
    threads: lambda w: ft.cpus(PLAN, pack_of(w).model)
    resources:
        mem_mb=hardware("mem_mb"),
        runtime=hardware("runtime"),
        gpu=hardware("gpu"),
        nodes=1,
    params:
        runs=lambda w: pack_of(w).describe("epochs"),
        dropped_weights_needed_for=lambda w: ft.answers_needing_weights(PLAN, pack_of(w)),
        launcher=lambda w: ft.launcher(PLAN, pack_of(w)),
    message:
        "train {wildcards.pack} (progress: {log}):\n{params.runs}"
    shell:
        'python {params.launcher} "$FTSAFETY_ROOT/workflow/scripts/finetune.py" {wildcards.pack:q} 2> {log:q}'
