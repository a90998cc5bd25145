"""What the rules ask the plan: inputs, parameters and resources of a job. Light: imported at parse time.

Digests are parameters and so a reason to rerun: of what a job makes its files from, never of how the code
before the verdicts is written (trainer, generation and judges carry explicit versions instead).
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ftsafety import paths
from ftsafety.answers import answers_identity
from ftsafety.files import digest
from ftsafety.inputs import check_inputs
from ftsafety.judging.pack import judge_identity, judges_by_rule, manifest, way
from ftsafety.plan import Pack, Plan, Work, load_plan
from ftsafety.ready import check_pins, check_ready

__all__ = ["judges_by_rule", "load_plan"]


def model_files(plan: Plan, model: str) -> list[str]:
    """The file that says a model is here; nothing for one from a path or behind an endpoint."""
    source = plan.project.models[model].source
    if source == "hub":
        return [str(plan.fetched_file("models", model))]
    return [str(paths.model_dir(model) / "gates.json")] if source == "world" else []


def data_sources(plan: Plan, file: str) -> list[str]:
    """What must be fetched before a file of training rows or prompts can be written."""
    if file not in (sources := plan.sources_by_file):
        return []
    return sorted({str(plan.fetched_file(catalogue, name)) for catalogue, name in sources[file]})


def training_files(plan: Plan, pack: Pack) -> list[str]:
    """Training rows of the pack. Their names hold a digest of what they are made from."""
    return sorted({str(plan.data_file(w.trajectory)) for w in pack.work}) if pack.trains else []


def prompt_files(plan: Plan, pack: Pack) -> list[str]:
    return sorted({str(plan.benchmark_file(e.benchmark)) for work in pack.work for e in work.exams})


def packs_pattern(plan: Plan, *, by_api: bool) -> str:
    """A regular expression of the packs that an endpoint answers (they are few), or of all others."""
    names = [pack.id for pack in plan.packs.values() if plan.project.models[pack.model].source == "api"]
    pattern = "|".join(map(re.escape, names)) or "(?!)"
    return pattern if by_api else rf"(?!(?:{pattern})/)[^/]+"


def judges_pattern(plan: Plan, kind: str) -> str:
    """A regular expression of the judges that work by an endpoint ("api") or as models here ("local")."""
    names = [judge for judge in plan.project.judges if way(plan, judge) == kind]
    return "|".join(map(re.escape, names)) or "(?!)"


def check_targets(plan: Plan, targets: Iterable[str], until: Iterable[str] = ()) -> None:
    """Check what the studies need that are asked for, by name or by a file of theirs.

    Where all stops after `until` prefetch, neither keys nor the user's files are needed.
    """
    names = {part for target in targets for part in Path(target).parts if part in plan.studies}
    studies = sorted(names) or plan.project.settings.studies
    if set(until) == {"prefetch"}:
        check_pins(plan, studies)
        return
    check_inputs(plan, studies)
    check_ready(plan, studies)


def launcher(plan: Plan, pack: Pack) -> str:
    """What stands between `python` and the program: torchrun where there are several ranks or ZeRO."""
    hardware = plan.project.local_model(pack.model).hardware
    if hardware.ranks == 1 and hardware.zero_stage is None:
        return ""
    return f"-m torch.distributed.run --standalone --nproc-per-node {hardware.ranks}"


def cpus(plan: Plan, model: str, *, answering: bool = False) -> int:
    """Answering is one process, training one for each rank."""
    hardware = plan.project.local_model(model).hardware
    return max(1, hardware.cpus // hardware.ranks) if answering else hardware.cpus


def resources(plan: Plan, model: str, attempt: int, *, answering: bool = False) -> dict[str, int]:
    """Memory grows with the attempt; answering takes one GPU."""
    hardware = plan.project.local_model(model).hardware
    return {
        "mem_mb": hardware.mem_mb * attempt,
        "runtime": hardware.runtime_min,
        "gpu": min(hardware.gpus, 1) if answering else hardware.gpus,
    }


def judge_resources(plan: Plan, judge: str, attempt: int) -> dict[str, int]:
    return resources(plan, plan.project.classifier(judge).model, attempt, answering=True)


def answers_needing_weights(plan: Plan, pack: Pack) -> str:
    """Where full weights are dropped after answering, other answers need them trained again."""
    dropped = [w for w in pack.work if w.trajectory.replaces_base and not plan.project.settings.keep_weights]
    return _answers(plan, dropped) if dropped else ""


def pack_weights(plan: Plan, pack: Pack) -> list[str]:
    return [_manifest(pack, "trained")] if pack.trains else model_files(plan, pack.model)


def judge_model(plan: Plan, judge: str) -> list[str]:
    return model_files(plan, plan.project.classifier(judge).model)


def judged_packs(plan: Plan, study: str) -> list[str]:
    """What the study's own judges write; a pack may be shared with a study that has others."""
    of_study = plan.project.studies[study].judges
    manifests = {
        paths.pack_dir(pack.id) / manifest(plan, judge)
        for pack in plan.study_packs(study)
        for judge in pack.judges
        if judge in of_study
    }
    return sorted(map(str, manifests))


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
    return digest([answers_identity(plan, run, exam) for w in works for run in w.runs for exam in w.exams])


def judges_digest(plan: Plan, pack: Pack, judges: Iterable[str]) -> str:
    asked = [pair for work in pack.work for pair in sorted(work.asked) if pair[1] in judges]
    return digest(
        [[e, judge_identity(plan, judge), plan.identity("benchmarks", e.benchmark)] for e, judge in asked]
    )


def score_digest(plan: Plan, study: str) -> str:
    cells = [[c.grid, c.run.id, c.exams] for c in plan.studies[study].cells]
    judges = [[b, plan.judges_of(study, b)] for b in plan.studies[study].benchmarks]
    identities = [judge_identity(plan, judge) for judge in plan.studies[study].judges]
    samples = plan.project.settings.bootstrap_samples
    code = _code("scoring.py", "stats.py", "judging/agreement.py")
    return digest([cells, judges, identities, samples, code])


def figures_digest(plan: Plan, study: str) -> str:
    modules = ("study_pages.py", "figures.py", "drawing.py", "signs.py", "grid_data.py")
    return digest([_study(plan, study), _code(*modules)])


def report_digest(plan: Plan, study: str) -> str:
    modules = ("study_pages.py", "report.py", "findings.py", "comparisons.py", "signs.py", "grid_data.py")
    page = (plan.project.root / "resources/report/report.html.j2").read_text()
    recipes = [
        getattr(plan.project, catalogue)[name].model_dump(mode="json")
        for catalogue, names in plan.entries([study]).items()
        for name in sorted(names)
    ]
    return digest([_study(plan, study), _code(*modules), page, recipes])


def _study(plan: Plan, study: str) -> Any:
    return plan.project.studies[study].model_dump(mode="json")


def _code(*modules: str) -> list[str]:
    return [(Path(__file__).parent / name).read_text() for name in modules]
