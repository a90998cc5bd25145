"""How far each run of a study is."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ftsafety.answers import answered
from ftsafety.judging.pack import judged
from ftsafety.plan import Exam, Pack, Plan, StudyPlan
from ftsafety.records import LOST, lost, trained, weights_dir
from ftsafety.runs import Run


@dataclass(frozen=True)
class RunState:
    run: Run
    state: str  # judged, answered, trained, dropped, to train, or one of `records.LOST`
    lacks_answers: tuple[Exam, ...]
    lacks_verdicts: tuple[tuple[Exam, str], ...]  # (exam, judge)


def run_states(plan: Plan, study: StudyPlan) -> Iterator[RunState]:
    for run in study.runs.values():
        if how := lost(run):
            yield RunState(run, how, (), ())
            continue
        exams = study.exams_of[run.id]
        lacks_answers = tuple(exam for exam in exams if not answered(plan, run, exam))
        lacks_verdicts = tuple(  # verdicts on answers that are made again are made again too
            (exam, judge)
            for exam in exams
            for judge in plan.judges_of(study.name, exam.benchmark, run)
            if exam in lacks_answers or not judged(plan, run, exam, judge)
        )
        if not lacks_verdicts:
            state = "judged"
        elif not lacks_answers:
            state = "answered"
        elif run.trajectory.is_initial or weights_dir(run).exists() or _is_at_endpoint(run):
            state = "trained"
        elif trained(run) and run.trajectory.replaces_base:
            state = "dropped"
        else:
            state = "to train"
        yield RunState(run, state, lacks_answers, lacks_verdicts)


def open_packs(plan: Plan, study: StudyPlan, states: Iterable[RunState]) -> list[Pack]:
    """Packs of the study with a run that still lacks something."""
    unfinished = {state.run.folder for state in states if state.state not in ("judged", *LOST)}
    return [p for p in plan.study_packs(study.name) if any(run.folder in unfinished for run in p.runs)]


def _is_at_endpoint(run: Run) -> bool:
    return run.trajectory.by_api and trained(run) is not None
