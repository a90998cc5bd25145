"""Before a sweep: how many seeds and prompts make intervals as narrow as wanted, from a finished pilot."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np

from ftsafety import paths
from ftsafety.analysis.components import Measured, between_bases, measured, paired
from ftsafety.costs import gpu_hours, n_prompts
from ftsafety.errors import UserError
from ftsafety.plan import Plan
from ftsafety.recipes import LocalModel
from ftsafety.stats.precision import Design, half_width
from ftsafety.stats.variance import Components, Term, alike, pooled
from ftsafety.study_tables import VERDICTS, read_tables

SEEDS = (1, 2, 3, 5, 8, 10, 15, 20)
PROMPTS = (50, 100, 200, 330, 500, 1000, 2000)
SAMPLES = (1, 2, 5, 10)
#: Without a pilot: a rate of 0.5, where intervals are widest; seeds move it by 5 points, and 40 % of what
#: single answers vary by is the prompt's.
ASSUMED = {Term("run", ""): 0.05**2, Term("", "prompt"): 0.1, Term("run", "prompt"): 0.15}


@dataclass(frozen=True)
class Pilot:
    """What is known of a study's rates and of differences between its settings: None where no two compare."""

    source: str
    rate: float
    rates: Components
    differences: Components | None
    between_bases: float | None = None


@dataclass(frozen=True)
class Sweep:
    """What a study asks for: `trainings` and `runs` of one seed, and its own numbers."""

    trainings: int
    runs: int
    hours: float  # GPU-hours of a training, at most
    design: Design


def precision_table(plan: Plan, study: str, pilot: Plan | None, points: float) -> str:
    """Half widths of 95 % intervals by seeds × prompts, and the cheapest that are at most `points`.

    `pilot` is a plan of one finished study; None: the study itself where it is finished, else assumptions.
    Raises UserError where the pilot is not finished, or says nothing of training seeds.
    """
    if not 0 < points < 100:
        raise UserError(
            f"{points:g} is no half width of a share", field="POINTS", mend="give hundredths, as in POINTS=5"
        )
    benchmark = _benchmark(plan, study)
    sweep = _sweep(plan, study, benchmark)
    known = _pilot(plan, study, pilot, benchmark)
    lines = [
        f"study {study}: half a 95 % interval of a rate on {benchmark}, in points (hundredths)",
        "",
        f"  from            {known.source}",
        f"  deviations      {_spread(known.rates)} points",
        "",
        "  a setting's rate",
        *_table(known.rates, known.rate, sweep.design),
    ]
    if known.differences is not None:
        lines += [
            "",
            "  a difference of two settings, same prompts and seeds",
            *_table(known.differences, None, sweep.design),
        ]
    lines += ["", *_advice(known, sweep, points / 100), *_samples(known, sweep), *_bases(known)]
    return "\n".join(lines)


# ------------------------------------------------------------------------------------ what is known


def _benchmark(plan: Plan, study: str) -> str:
    """The first of safety."""
    kinds = {name: plan.project.benchmarks[name].kind for name in plan.project.studies[study].benchmarks}
    return next((name for name, kind in kinds.items() if kind == "safety"), next(iter(kinds)))


def _sweep(plan: Plan, study: str, benchmark: str) -> Sweep:
    cells = [cell for cell in plan.studies[study].cells if cell.run.epochs > 0]
    if not cells:
        raise UserError(
            "trains nothing: there are no seeds to choose",
            file=plan.project.place(study),
            mend="name a study with epochs above 0",
        )
    seeds = {cell.run.trajectory.seed for cell in cells}
    settings = {(cell.run.trajectory.model_dump_json(exclude={"seed"}), cell.run.epochs) for cell in cells}
    recipe = plan.project.benchmarks[benchmark]
    models = {cell.run.trajectory.model for cell in cells}
    packs = {m: r.pack_size for m in models if isinstance(r := plan.project.models[m], LocalModel)}
    hours = max((gpu_hours(plan, model) / size for model, size in packs.items()), default=0.0)
    asked = n_prompts(plan, benchmark) // recipe.samples
    trainings = {trajectory for trajectory, _ in settings}
    return Sweep(len(trainings), len(settings), hours, Design(len(seeds), asked, recipe.samples))


def _pilot(plan: Plan, study: str, pilot: Plan | None, benchmark: str) -> Pilot:
    if pilot is not None:
        (name,) = pilot.studies
        if not (paths.study_dir(name) / "verdicts.parquet").exists():
            raise UserError(
                "is not there: the pilot is not finished",
                file=paths.study_dir(name) / "verdicts.parquet",
                mend=f"make run STUDY={name}, or leave PILOT out",
            )
        found = _read(pilot, name, benchmark)
        if found is None:
            raise UserError(
                "says nothing of training seeds: no setting of it has two that differ",
                file=paths.study_dir(name) / "verdicts.parquet",
                mend="name a pilot with several seeds, or leave PILOT out",
            )
        return found
    if (paths.study_dir(study) / "verdicts.parquet").exists():
        found = _read(plan, study, benchmark)
        if found is not None:
            return found
    return _assumed()


def _read(plan: Plan, study: str, benchmark: str) -> Pilot | None:
    tables = read_tables(plan, study)
    if not set(VERDICTS.names) <= set(tables.verdicts):
        raise UserError(
            "was written by an earlier version",
            file=paths.study_dir(study) / "verdicts.parquet",
            mend=f"make run STUDY={study}: what is trained, answered and judged stays",
        )
    found = measured(tables, n_draws=0)
    safety = [one for one in found if one.kind == plan.project.benchmarks[benchmark].kind]
    mine = [one for one in safety if one.benchmark == benchmark]
    mine = mine or [one for one in safety if one.benchmark == safety[0].benchmark]
    known = [one for one in mine if one.found is not None]
    told = alike([one.found for one in known if one.found is not None])
    if not told or Term("run", "") not in told[0].terms:
        return None
    pairs = alike(paired(tables, mine))
    bases = [c for name, c in between_bases(tables, found, 0) if name == mine[0].benchmark]
    return Pilot(
        f"{study}: {len(told)} settings on {mine[0].benchmark}, by {mine[0].judge}",
        _typical_rate(known),
        pooled(told, 0),
        pooled(pairs, 0) if pairs and Term("run", "") in pairs[0].terms else None,
        _between(bases),
    )


def _typical_rate(found: Sequence[Measured]) -> float:
    """At which answers vary as much as they do on average."""
    variance = np.mean([one.rate * (1 - one.rate) for one in found])
    return 0.5 - sqrt(max(0.0, 0.25 - float(variance)))


def _between(bases: Sequence[Components]) -> float | None:
    """Standard deviation between base models' rates."""
    values = [float(one.values[one.of("base seed")].sum()) for one in bases if one.of("base seed").any()]
    return sqrt(max(0.0, float(np.mean(values)))) if values else None


def _assumed() -> Pilot:
    terms, values = tuple(ASSUMED), np.array(list(ASSUMED.values()))
    sizes = np.array([3.0, 330.0, 990.0])  # of what is assumed nothing depends on them
    rates = Components(terms, values, sizes, sizes, 1 / sizes, np.empty((0, len(terms))), 990)
    twice = replace(rates, values=values * np.array([2.0, 0.0, 2.0]))
    return Pilot(
        "assumptions, which a finished pilot would replace: PILOT=name",
        0.5,
        rates,
        twice,
    )


# --------------------------------------------------------------------------------------- what is said


def _spread(found: Components) -> str:
    sources = dict.fromkeys(term.source for term in found.terms if term.source != "category")
    sds = {source: np.sqrt(max(0.0, found.values[found.of(source)].sum())) for source in sources}
    return ", ".join(f"{source} {100 * sd:.1f}" for source, sd in sds.items())


def _table(found: Components, rate: float | None, own: Design) -> list[str]:
    seeds, prompts = sorted({*SEEDS, own.seeds}), sorted({*PROMPTS, own.prompts})
    lines = ["    prompts " + "".join(f"{n:>7}" for n in seeds) + "  seeds"]
    for n in prompts:
        widths = [100 * half_width(found, Design(s, n, own.samples), rate) for s in seeds]
        mark = "   (this study's)" if n == own.prompts else ""
        lines.append(f"    {n:7} " + "".join(f"{width:7.1f}" for width in widths) + mark)
    return [*lines, "    one seed: of that seed's model alone"]


def _advice(known: Pilot, sweep: Sweep, half: float) -> list[str]:
    """This study's width, and the cheapest numbers that reach the wanted one."""
    lines = [f"  ±{100 * half:g} points takes"]
    for what, found, rate in (("rate", known.rates, known.rate), ("difference", known.differences, None)):
        if found is not None:
            enough = _cheapest(found, rate, sweep.design, half)
            lines += [f"    {what:12}{_numbers(design)}: {_cost(design, sweep)}" for design in enough]
            if not enough:
                lines.append(f"    {what:12}more than {max(SEEDS)} seeds × {max(PROMPTS)} prompts")
    lines.append(f"  this study has  {_numbers(sweep.design)}: {_cost(sweep.design, sweep)}")
    return lines


def _cheapest(found: Components, rate: float | None, own: Design, half: float) -> list[Design]:
    """The fewest seeds with the study's prompts, and with any number of prompts: trainings cost most."""
    reach = [
        Design(seeds, prompts, own.samples)
        for seeds in range(2, max(SEEDS) + 1)
        for prompts in sorted({*PROMPTS, own.prompts})
        if half_width(found, Design(seeds, prompts, own.samples), rate) <= half
    ]
    of_study = [design for design in reach if design.prompts == own.prompts]
    return list(dict.fromkeys([*of_study[:1], *reach[:1]]))


def _numbers(design: Design) -> str:
    samples = f" × {design.samples} answers" if design.samples > 1 else ""
    return f"{design.seeds} seed{'s' * (design.seeds > 1)} × {design.prompts} prompts{samples}"


def _cost(design: Design, sweep: Sweep) -> str:
    trainings = design.seeds * sweep.trainings
    answers = design.seeds * sweep.runs * design.prompts * design.samples
    hours = f" (at most {trainings * sweep.hours:,.0f} GPU-hours)" if sweep.hours else ""
    return f"{trainings} trainings{hours}, {answers:,} answers"


def _samples(known: Pilot, sweep: Sweep) -> list[str]:
    if not known.rates.of("decoding sample").any():
        return []
    designs = {n: replace(sweep.design, samples=n) for n in SAMPLES}
    widths = [f"{n}: ±{100 * half_width(known.rates, d, known.rate):.1f}" for n, d in designs.items()]
    return [f"  answers each    {', '.join(widths)} (a rate, {_numbers(replace(sweep.design, samples=1))})"]


def _bases(known: Pilot) -> list[str]:
    if known.between_bases is None:
        return []
    return [
        f"  base models     another seed of the base model moves a rate by {100 * known.between_bases:.1f} "
        "points (standard deviation);",
        "                  no interval holds that: each is about its own base model",
    ]
