"""What the rules ask the plan: inputs, parameters and resources of a job. Light: imported at parse time.

Digests are parameters and so a reason to rerun: of what a job makes its files from, never of how the code
before the verdicts is written (trainer, generation and judges carry explicit versions instead).
"""

import io
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr, suppress
from pathlib import Path
from typing import Any, NoReturn

from ftsafety import paths
from ftsafety.answers import answers_identity
from ftsafety.checks import RULES
from ftsafety.config import Project
from ftsafety.errors import UserError
from ftsafety.files import digest, read_json_if_whole, write_json
from ftsafety.inputs import check_inputs
from ftsafety.judging.pack import judge_identity, judges_by_rule, manifest, way
from ftsafety.loading import load_project
from ftsafety.plan import Pack, Plan, Work, load_plan
from ftsafety.ready import check_pins, check_ready
from ftsafety.recipes import Hardware, LocalModel
from ftsafety.training.pack import missing_runs

__all__ = ["judges_by_rule", "load_plan"]

#: Priorities of what others wait for, and of answering and judging; those of trainings are lower.
FIRST, ANSWERS = 10**18, 10**15
#: What programs call the variables of their keys.
SECRET = re.compile(r"[A-Za-z_]\w*_(API_KEY|ACCESS_KEY|ADMIN_KEY|TOKEN|SECRET|PASSWORD)", re.ASCII)
#: Modules that statistics and analyses are made by.
STATISTICS, ANALYSES = (
    tuple(f"{package}/{file.name}" for file in sorted((Path(__file__).parent / package).glob("*.py")))
    for package in ("stats", "analysis")
)


def model_files(plan: Plan, model: str) -> list[str]:
    """The files that say a model is here; nothing for one from a path or behind an endpoint of others."""
    model = plan.project.built_from(model)
    recipe = plan.project.models[model]
    base = plan.project.base_of(recipe)
    files = model_files(plan, base) if base else []
    if recipe.source == "hub":
        return [*files, str(plan.fetched_file("models", model))]
    return [*files, str(paths.model_dir(model) / "gates.json")] if recipe.source == "world" else files


def training_models(plan: Plan, pack: Pack) -> list[str]:
    """The files that say that the model is here, and the vision towers of visual methods."""
    towers = {work.trajectory.vision_tower for work in pack.work} - {None}
    return [file for name in (pack.model, *sorted(map(str, towers))) for file in model_files(plan, name)]


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
    """A regular expression of the packs of models that do not run here (they are few), or of all others."""
    models = plan.project.models
    names = [pack.id for pack in plan.packs.values() if not isinstance(models[pack.model], LocalModel)]
    pattern = "|".join(map(re.escape, names)) or "(?!)"
    return pattern if by_api else rf"(?!(?:{pattern})/)[^/]+"


def judges_pattern(plan: Plan, kind: str) -> str:
    """A regular expression of the judges that work by an endpoint ("api") or as models here ("local")."""
    names = [judge for judge in plan.project.judges if way(plan, judge) == kind]
    return "|".join(map(re.escape, names)) or "(?!)"


def guard_secrets(plan: Plan) -> None:
    """Tell shells the names of the variables that hold secrets, and put our sbatch before Slurm's.

    A variable that is both, as HF_TOKEN where it is the key of an endpoint, is among the secrets alone; those
    of other programs, by what they are called, reach no rule.
    """
    keys = {endpoint.api_key_env for endpoint in plan.project.endpoints.values() if endpoint.api_key_env}
    tokens = {"GITHUB_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"}
    others = {name for name in os.environ if SECRET.fullmatch(name)} - keys - tokens
    names = {
        "SECRETS": keys | tokens | others,
        "API_KEYS": (keys - tokens) | others,
        "TOKENS": (tokens - keys) | others,
    }
    os.environ.update({f"FTSAFETY_{name}": " ".join(sorted(variables)) for name, variables in names.items()})
    os.environ["PATH"] = f"{_sbatch(plan).parent}:{os.environ['PATH']}"


def _sbatch(plan: Plan) -> Path:
    return plan.project.root.absolute() / "profiles/slurm/bin/sbatch"


def check_sbatch(plan: Plan) -> None:
    """Raises UserError where Slurm's own is called, which hands all of Snakemake's environment on to jobs."""
    if shutil.which("sbatch") != str(_sbatch(plan)):
        raise UserError(
            "is not what submits, so jobs would inherit your keys",
            file="profiles/slurm/bin/sbatch",
            mend="restore it from git, executable, in a folder without ':' in its path",
        )


def audits_pattern(plan: Plan) -> str:
    """A regular expression of the studies that audit a model."""
    return "|".join(map(re.escape, plan.project.audited)) or "(?!)"


def plan_call(root: Path, settings: dict[str, Any], arguments: Sequence[str]) -> Plan:
    """The plan of the studies that a command line asks for, by name or by a file of theirs.

    None named: those of config.yaml; but the file of a pack asks for the first study that has this pack.
    Jobs that Snakemake starts elsewhere are told by FTSAFETY_STUDIES, since their command lines name files.
    Raises UserError for a name that is none.
    """
    project = load_project(root, settings)
    if told := os.environ.get("FTSAFETY_STUDIES"):
        return Plan(project, told.split())
    _check_names(project, arguments)
    parts = [Path(argument).parts for argument in arguments]
    if audits := {path[0] for path in parts if len(path) == 1} & project.audits.keys():
        refuse_unasked(min(audits))
    named = {path[0] for path in parts if len(path) == 1} & project.studies.keys()
    of_files = {part for path in parts if len(path) > 1 for part in path} & project.studies.keys()
    if names := {*map(project.asked, named), *of_files}:  # a file is the study's that it says
        return Plan(project, sorted(names))
    packs = {path[path.index("packs") + 1] for path in parts if "packs" in path[:-1]}
    solo = (Plan(project, [name]) for name in project.studies) if packs else ()
    of_packs = next((plan for plan in solo if packs <= plan.packs.keys()), None)
    return of_packs or Plan(project, map(project.asked, project.settings.studies))


def _check_names(project: Project, arguments: Sequence[str]) -> None:
    """Each target has to be a file or the name of a study or rule: Snakemake's own error names none."""
    known = {*project.studies, *project.audits, *RULES}
    unknown = {word for word in arguments if word not in known and not re.match("-|.*[/=]", word)}
    if not unknown:
        return
    from snakemake.cli import get_argument_parser

    with suppress(SystemExit), redirect_stderr(io.StringIO()):  # the call of another program
        unknown &= set(get_argument_parser().parse_args(arguments).targets)
        if unknown:
            raise project.no_study(min(unknown))


def write_call(plan: Plan) -> None:
    """Say which studies are planned together: packs depend on it, and `make status` looks for their jobs."""
    write_json(paths.CALL, {"studies": list(plan.studies)})


def plan_of_call(project: Project, study: str) -> Plan:
    """The study with those that the last call of Snakemake planned beside it."""
    called = (read_json_if_whole(paths.CALL) or {}).get("studies", [])
    return Plan(project, called if study in called and project.studies.keys() >= {*called} else [study])


def refuse_unasked(audit: str) -> NoReturn:
    """A study that audits is asked of a model. Raises UserError."""
    raise UserError(
        f"{audit!r} is asked of a model that the call names",
        mend="make audit MODEL=… BASE=… (docs/audit.md); an audit that was called is a study of its own: "
        "results/audits/ has their names",
    )


def check_targets(plan: Plan, until: Iterable[str], executor: str) -> None:
    """Check what the studies of a plan need.

    Where all stops after `until` prefetch, neither keys nor the user's files are needed.
    """
    studies = list(plan.studies)
    if set(until) == {"prefetch"}:
        check_pins(plan, studies)
        return
    check_inputs(plan, studies)
    check_ready(plan, studies)
    if executor != "slurm":
        _check_one_node(plan, studies)


def _check_one_node(plan: Plan, studies: list[str]) -> None:
    """Raises UserError where something is left to train that takes several nodes."""
    for pack in {pack.id: pack for study in studies for pack in plan.study_packs(study)}.values():
        model = plan.project.models[pack.model]
        if not pack.trains or not isinstance(model, LocalModel) or model.hardware.nodes == 1:
            continue
        if any(missing_runs(plan, work) for work in pack.work):
            raise UserError(
                f"a training takes {model.hardware.nodes} nodes, which Slurm alone gives",
                file="config/models.yaml",
                field=f"{pack.model}.hardware.nodes",
                mend="run it by --profile profiles/slurm (docs/cluster.md), or let nodes be 1",
            )


def launch(plan: Plan, pack: Pack) -> str:
    """The shell's command that trains a pack."""
    script = '"$FTSAFETY_ROOT/workflow/scripts/finetune.py"'
    return " ".join(launch_command(plan.project.local_model(pack.model).hardware, script, pack.id))


#: Seconds that torchrun gives its ranks after SIGTERM for their step and a checkpoint.
SAVING_S = 120


def launch_command(hardware: Hardware, script: str, pack: str) -> list[str]:
    """Words for the shell: python, by torchrun for several ranks or ZeRO, by srun for several nodes.

    Slurm starts a job's shell on the first of its nodes, so all meet there; its name and a port are left
    to that shell. Where a rank dies, torchrun ends the others of its node and srun those of all nodes.
    """
    program = ["python", script, pack]
    if hardware.world_size == 1 and hardware.zero_stage is None:
        return program
    torchrun = ["python", "-m", "torch.distributed.run", "--nproc-per-node", str(hardware.ranks)]
    torchrun += ["--shutdown-timeout", str(SAVING_S)]
    if hardware.nodes == 1:
        return [*torchrun, "--standalone", *program[1:]]
    nodes, gpus = str(hardware.nodes), [f"--gpus-per-node={hardware.gpus}"] if hardware.gpus else []
    return [
        *("srun", "--nodes", nodes, "--ntasks", nodes, "--ntasks-per-node", "1"),
        *("--cpus-per-task", str(hardware.cpus), *gpus, "--kill-on-bad-exit=1"),
        *(*torchrun, "--nnodes", nodes, "--rdzv-backend", "c10d", "--rdzv-id", '"$SLURM_JOB_ID"'),
        *("--rdzv-endpoint", '"$(hostname):$((20000 + SLURM_JOB_ID % 10000))"'),
        *program[1:],
    ]


def cpus(plan: Plan, model: str, *, answering: bool = False) -> int:
    """Answering is one process, training one for each rank."""
    hardware = plan.project.local_model(model).hardware
    return max(1, hardware.cpus // hardware.ranks) if answering else hardware.cpus


def resources(
    plan: Plan, model: str, attempt: int, *, answering: bool = False
) -> dict[str, int | str | None]:
    """Memory grows with the attempt; answering takes one GPU. None: not asked for.

    By `mpi` the Slurm plugin starts the job's shell on the first of several nodes and leaves `srun` to it.
    Its `gpu` counts those of all nodes, however Slurm spreads them, and its `tasks` would be for each GPU.
    """
    hardware = plan.project.local_model(model).hardware
    asked = {"mem_mb": hardware.mem_mb * attempt, "runtime": hardware.runtime_min, "nodes": 1}
    if answering or hardware.nodes == 1:
        one_node = dict.fromkeys(("gres", "mpi", "tasks", "tasks_per_gpu"))
        return {**asked, **one_node, "gpu": min(hardware.gpus, 1) if answering else hardware.gpus}
    gres = f"gpu:{hardware.gpus}" if hardware.gpus else None
    nodes = hardware.nodes
    return {
        **asked,
        "nodes": nodes,
        "gres": gres,
        "gpu": None,
        "mpi": "srun",
        "tasks": nodes,
        "tasks_per_gpu": 0,
    }


def priority(plan: Plan, pack: Pack, *, answering: bool = False) -> int:
    """What takes longest starts first, so that no long job is left for the end (Graham, 1969).

    Answers come before trainings: judges get work while others train, and full checkpoints go.
    """
    minutes = plan.project.local_model(pack.model).hardware.runtime_min
    if answering:
        return ANSWERS + minutes * sum(len(work.runs) * len(work.exams) for work in pack.work)
    return minutes * sum(plan.examples_seen(work) for work in pack.work)


def judge_resources(plan: Plan, judge: str, attempt: int) -> dict[str, int | str | None]:
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
    of_study = plan.studies[study].judges
    manifests = {
        paths.pack_dir(pack.id) / manifest(plan, judge)
        for pack in plan.study_packs(study)
        for judge in pack.judges
        if judge in of_study
    }
    return sorted(map(str, manifests))


def people_files(plan: Plan, study: str) -> list[str]:
    """What people and repeated checks of judges said, as far as there is any: analyses read it too."""
    folder = paths.annotation_dir(study)
    checks = [paths.judge_dir(judge) / "checks.csv" for judge in plan.studies[study].judges]
    return [str(file) for file in (folder / "labels.csv", folder / "key.csv", *checks) if file.exists()]


def study_files(plan: Plan, study: str) -> list[str]:
    """What asking for a study asks for: the variant of it that the settings name."""
    asked = plan.project.asked(study)
    names = ["runs.tsv", "scores.parquet", "figures", "report.html"]
    if asked in plan.project.audited:
        names += ["audit.json", "card.html", "card.md"]
    return [str(paths.study_dir(asked) / name) for name in names]


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
    judges = plan.studies[study].grid_judges
    identities = [judge_identity(plan, judge) for judge in plan.studies[study].judges]
    samples = plan.project.settings.bootstrap_samples
    modules = ("scoring.py", "parity.py", "contrasts.py", "provenance.py")
    code = _code(*modules, *STATISTICS)
    triggers = {name: trigger.model_dump() for name, trigger in plan.project.triggers.items()}
    vulnerable = {name: grid.figure.vulnerable for name, grid in plan.project.studies[study].grids.items()}
    return digest([cells, judges, identities, samples, code, triggers, vulnerable, _paper(plan, study)])


def _paper(plan: Plan, study: str) -> list[Any]:
    """The paper's numbers, and the study of the file, by whose settings a variant is compared with them."""
    file = plan.project.files[study]
    numbers = plan.project.root / f"resources/paper/{file}.csv"
    words: Any = {"title": True, "question": True, "grids": {"__all__": {"figure"}}}
    if not numbers.exists():
        return []
    return [numbers.read_text(), plan.project.studies[file].model_dump(mode="json", exclude=words)]


def analysis_digest(plan: Plan, study: str) -> str:
    samples = plan.project.settings.bootstrap_samples
    modules = ("study_tables.py", "judging/agreement.py", "judging/checks.py", *ANALYSES, *STATISTICS)
    return digest([_study(plan, study), samples, _code(*modules)])


def figures_digest(plan: Plan, study: str) -> str:
    modules = (*ANALYSES, "study_pages.py", "figures.py", "visible.py", "panels.py", "drawing.py", "signs.py",
               "grid_data.py", "parity_figure.py", "parity_table.py")  # fmt: skip
    return digest([_study(plan, study), _code(*modules)])


def report_digest(plan: Plan, study: str) -> str:
    modules = (*ANALYSES, "sections.py", "study_pages.py", "report.py", "pages.py", "visible.py",
               "findings.py", "comparisons.py", "report_figures.py", "panels.py", "heat_table.py",
               "limits.py", "grid_data.py", "parity_table.py")  # fmt: skip
    pages = [file.read_text() for file in sorted((plan.project.root / "resources/report").glob("*"))]
    recipes = [
        getattr(plan.project, catalogue)[name].model_dump(mode="json")
        for catalogue, names in plan.entries([study]).items()
        for name in sorted(names)
    ]
    return digest([_study(plan, study), _code(*modules), pages, recipes])


def card_digest(plan: Plan, study: str) -> str:
    files = ("base.html.j2", "card.html.j2", "style.css")
    page = [(plan.project.root / "resources/report" / name).read_text() for name in files]
    pair = plan.project.audited[study].model_dump(mode="json")
    modules = ("audit/lines.py", "audit/card.py", "pages.py", "visible.py", *STATISTICS)
    return digest([_study(plan, study), pair, page, _code(*modules)])


def _study(plan: Plan, study: str) -> Any:
    return plan.project.studies[study].model_dump(mode="json")


def _code(*modules: str) -> list[str]:
    return [(Path(__file__).parent / name).read_text() for name in modules]
