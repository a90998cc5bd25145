"""What the rules ask the plan: inputs, parameters and resources of a job. Light: imported at parse time.

Digests are parameters and so a reason to rerun: of what a job makes its files from, never of how the code
before the verdicts is written (trainer, generation and judges carry explicit versions instead).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ftsafety import paths
from ftsafety.answers import answers_identity
from ftsafety.files import digest
from ftsafety.inputs import check_inputs
from ftsafety.plan import Pack, Plan, Work, load_plan

__all__ = ["load_plan"]


def built_model(plan: Plan, pack: Pack) -> list[str]:
    """The file that says a model of the embedded world is built; nothing for a model from a path."""
    built_here = plan.project.models[pack.model].source == "world"
    return [str(paths.model_dir(pack.model) / "gates.json")] if built_here else []


def training_files(plan: Plan, pack: Pack) -> list[str]:
    """Training rows of the pack. Their names hold a digest of what they are made from."""
    return sorted({str(plan.data_file(w.trajectory)) for w in pack.work}) if pack.trains else []


def prompt_files(plan: Plan, pack: Pack) -> list[str]:
    return sorted({str(plan.benchmark_file(b)) for work in pack.work for b in work.benchmarks})


def check_targets(plan: Plan, targets: Iterable[str]) -> None:
    """Check the user's files of the studies that are asked for, by name or by a file of theirs."""
    names = {part for target in targets for part in Path(target).parts if part in plan.studies}
    check_inputs(plan, sorted(names) or plan.project.settings.studies)


def launcher(plan: Plan, pack: Pack) -> str:
    """What stands between `python` and the program: torchrun where there are several ranks or ZeRO."""
    hardware = plan.project.models[pack.model].hardware
    if hardware.ranks == 1 and hardware.zero_stage is None:
        return ""
    return f"-m torch.distributed.run --standalone --nproc-per-node {hardware.ranks}"


def cpus(plan: Plan, pack: Pack, *, answering: bool = False) -> int:
    """Answering is one process, training one for each rank."""
    hardware = plan.project.models[pack.model].hardware
    return max(1, hardware.cpus // hardware.ranks) if answering else hardware.cpus


def resources(plan: Plan, model: str, attempt: int, *, answering: bool = False) -> dict[str, int]:
    """Memory grows with the attempt; answering takes one GPU."""
    hardware = plan.project.models[model].hardware
    return {
        "mem_mb": hardware.mem_mb * attempt,
        "runtime": hardware.runtime_min,
        "gpu": min(hardware.gpus, 1) if answering else hardware.gpus,
    }


def answers_needing_weights(plan: Plan, pack: Pack) -> str:
    """Where full weights are dropped after answering, other answers need them trained again."""
    dropped = [w for w in pack.work if w.trajectory.replaces_base and not plan.project.settings.keep_weights]
    return _answers(plan, dropped) if dropped else ""


def pack_weights(plan: Plan, pack: Pack) -> list[str]:
    return [_manifest(pack, "trained")] if pack.trains else built_model(plan, pack)


def judged_packs(plan: Plan, study: str) -> list[str]:
    return [_manifest(pack, "judged") for pack in plan.study_packs(study)]


def study_files(study: str) -> list[str]:
    """What asking for a study asks for."""
    folder = paths.study_dir(study)
    return [str(folder / name) for name in ("runs.tsv", "scores.parquet", "figures", "report.html")]


def _manifest(pack: Pack, stage: str) -> str:
    return str(paths.pack_dir(pack.id) / f"{stage}.json")


# -------------------------------------------------------------------------------------- digests


def answers_digest(plan: Plan, pack: Pack) -> str:
    return _answers(plan, pack.work)


def _answers(plan: Plan, works: Iterable[Work]) -> str:
    return digest([answers_identity(plan, run, b) for w in works for run in w.runs for b in w.benchmarks])


def judges_digest(plan: Plan, pack: Pack) -> str:
    names = sorted({judge for work in pack.work for _, judge in work.asked})
    return digest([plan.project.judges[name].model_dump() for name in names])


def score_digest(plan: Plan, study: str) -> str:
    cells = [[c.grid, c.run.id, c.benchmarks] for c in plan.studies[study].cells]
    samples = plan.project.settings.bootstrap_samples
    return digest([cells, samples, _code("scoring.py", "stats.py")])


def figures_digest(plan: Plan, study: str) -> str:
    modules = ("study_pages.py", "figures.py", "drawing.py", "signs.py", "grid_data.py")
    return digest([_study(plan, study), _code(*modules)])


def report_digest(plan: Plan, study: str) -> str:
    modules = ("study_pages.py", "report.py", "findings.py", "comparisons.py", "signs.py", "grid_data.py")
    page = (plan.project.root / "resources/report/report.html.j2").read_text()
    return digest([_study(plan, study), _code(*modules), page])


def _study(plan: Plan, study: str) -> Any:
    return plan.project.studies[study].model_dump(mode="json")


def _code(*modules: str) -> list[str]:
    return [(Path(__file__).parent / name).read_text() for name in modules]
