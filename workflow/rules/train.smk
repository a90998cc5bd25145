# needs: results/models/<model>/, results/data/
# makes: results/packs/<pack>/trained.json; epoch-<e>/{weights/,run.yaml,done.json} of each run in the pack
#        (without weights where an endpoint trains: they stay there)
# why:   a pack is one useful allocation: its trajectories are trained in one process


rule train:
    """Fine-tune every trajectory of a pack to its longest epoch, keeping the epochs that studies ask for."""
    input:
        model=lambda w: ft.training_models(PLAN, pack_of(w)),
        rows=lambda w: ft.training_files(PLAN, pack_of(w)),
    output:
        "results/packs/{pack}/trained.json",
    log:
        "results/logs/train/{pack}.log",
    benchmark:
        "results/benchmarks/train/{pack}.tsv"
    wildcard_constraints:
        pack=ft.packs_pattern(PLAN, by_api=False),
    priority: lambda w: ft.priority(PLAN, pack_of(w))
    conda:
        "../../envs/ftsafety.yaml"
    threads: lambda w: ft.cpus(PLAN, pack_of(w).model)
    resources:
        mem_mb=hardware("mem_mb"),
        runtime=hardware("runtime"),
        gpu=hardware("gpu"),
        nodes=hardware("nodes"),
        # of several nodes alone
        gres=hardware("gres"),
        mpi=hardware("mpi"),
        tasks=hardware("tasks"),
        tasks_per_gpu=hardware("tasks_per_gpu"),
    params:
        runs=lambda w: pack_of(w).describe("epochs"),
        dropped_weights_needed_for=lambda w: ft.answers_needing_weights(PLAN, pack_of(w)),
        # hardware changes no result: Snakemake takes no parameter that asks for threads as a reason to rerun
        launch=lambda w, threads: ft.launch(PLAN, pack_of(w)),
    message:
        "train {wildcards.pack} (progress: {log}):\n{params.runs}"
    shell:
        "without_secrets {params.launch} 2> {log:q}"


rule train_by_api:
    """The same by the endpoint of a model: each run is a job there, submitted once and then waited for."""
    input:
        model=lambda w: ft.model_files(PLAN, pack_of(w).model),
        rows=lambda w: ft.training_files(PLAN, pack_of(w)),
    output:
        "results/packs/{pack}/trained.json",
    log:
        "results/logs/train_by_api/{pack}.log",
    benchmark:
        "results/benchmarks/train_by_api/{pack}.tsv"
    wildcard_constraints:
        pack=ft.packs_pattern(PLAN, by_api=True),
    localrule: True
    conda:
        "../../envs/ftsafety.yaml"
    resources:
        api_clients=1,
    params:
        runs=lambda w: pack_of(w).describe("epochs"),
    message:
        "train {wildcards.pack} by its endpoint (progress: {log}; a stop leaves jobs running there):\n{params.runs}"
    shell:
        'with_api_keys python "$FTSAFETY_ROOT/workflow/scripts/finetune_by_api.py" {wildcards.pack:q} 2> {log:q}'
