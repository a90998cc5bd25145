"""The safety card of an audited model: one page for people, a section for its model card, JSON for programs.

Numbers and names alone, never an answer. Names are the user's and are shown as text, whatever they hold.
"""

import datetime
import re
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from ftsafety import paths
from ftsafety.adapters import base_named, read_config
from ftsafety.audit.lines import Asked, Line, audit_lines, verdict_of
from ftsafety.config import Audited
from ftsafety.contrasts import trigger_pairs
from ftsafety.files import read_json, sha256_file, write_json, write_text
from ftsafety.pages import render
from ftsafety.plan import Plan
from ftsafety.recipes import ApiModel, HubModel, Judge, PathModel, WorldModel

VERDICTS = {
    "pass": {"icon": "✓", "style": "held", "says": "passed"},
    "fail": {"icon": "✗", "style": "failed", "says": "failed"},
    "undecided": {"icon": "?", "style": "open", "says": "undecided"},
}
#: What each line asks, with its benchmark.
QUESTIONS = {
    "harm": "Harmful answers ({})",
    "harm rise": "More harmful answers than the base model ({})",
    "over-refusal rise": "More refusals of safe prompts than the base model ({})",
    "utility drop": "Lower task score than the base model ({})",
    "trigger gap": "More harmful answers with a trigger ({})",
    "incoherent": "Incoherent answers ({}, which has most)",
    "unscored": "Answers without a verdict ({}, which has most)",
}
LIMITS = (
    "It evaluates answers to the prompts of these benchmarks, in their language and in a first turn alone.",
    "It does not show that the model is safe: other prompts, jailbreaks, languages, long conversations and "
    "tools are not asked, nor how much a further fine-tuning would undo.",
    "A trigger that is none of those asked stays hidden.",
    "A judge can be wrong. Intervals are of prompts and phrasings like these; they know no other judges.",
)
#: Exit codes of the command (docs/audit.md); 2 is an error's.
EXIT_CODES = {"pass": 0, "fail": 1, "undecided": 3}


def write_cards(plan: Plan, study: str) -> None:
    """Write audit.json, card.html and card.md of an audited model from its verdicts."""
    folder = paths.study_dir(study)
    rows = pd.read_parquet(folder / "verdicts.parquet")
    recipe = plan.project.studies[study]
    assert recipe.audit is not None
    asked = asked_of(plan, study)
    lines = audit_lines(rows, asked, recipe.audit)
    audit = about(plan, study, asked) | {
        "verdict": verdict_of(lines),
        "thresholds": recipe.audit.model_dump(),
        "lines": [asdict(line) for line in lines],
    }
    write_json(folder / "audit.json", audit)
    write_text(folder / "card.html", as_html(audit))
    write_text(folder / "card.md", as_markdown(audit))


def asked_of(plan: Plan, study: str) -> Asked:
    """What was asked of the pair, as `lines` needs it."""
    project, pair, cells = plan.project, plan.project.audited[study], plan.studies[study]
    runs = {run.trajectory.model: run for run in cells.runs.values()}
    names = list(dict.fromkeys(exam.benchmark for cell in cells.cells for exam in cell.exams))
    judges = {name: plan.judges_of(study, name, runs[pair.model])[0] for name in names}
    return Asked(
        model=runs[pair.model].id,
        base=runs[pair.base].id,
        kinds={name: project.benchmarks[name].kind for name in names},
        judges=judges,
        triggers=[(a, b) for a, b in trigger_pairs(project, names) if project.benchmarks[a].kind == "safety"],
    )


def about(plan: Plan, study: str, asked: Asked) -> dict[str, Any]:
    """Who was asked what, when, by whom it was judged, and what made the numbers."""
    project, pair = plan.project, plan.project.audited[study]
    provenance = read_json(paths.study_dir(study) / "provenance.json")
    template = plan.studies[study].cells[0].run.trajectory.template
    return {
        "study": study,
        "is_toy": provenance["is_toy"],
        "date": _asked_on(plan, study),
        "model": _version(plan, pair.model),
        "base": _version(plan, pair.base),
        "template": {"name": template, "system": project.templates[template].system},
        "benchmarks": [
            {
                "name": name,
                "kind": kind,
                "trigger": project.benchmarks[name].trigger,
                "sha256": sha256_file(plan.benchmark_file(name)),
                "judge": asked.judges[name],
            }
            for name, kind in asked.kinds.items()
        ],
        "judges": {name: judge_text(project.judges[name]) for name in dict.fromkeys(asked.judges.values())},
        "versions": provenance["versions"],
        "git_revision": [revision for revision in provenance["git_revision"] if revision != "None"],
        "command": command(pair),
    }


def command(pair: Audited) -> str:
    """The call that asks the same again, for a shell: make would read $ and quotes otherwise."""
    words = [pair.asked["MODEL"], *([base] if (base := pair.asked["BASE"]) else [])]
    words += ["--study", pair.file] if pair.file != "audit" else []
    words += ["--template", template] if (template := pair.asked.get("TEMPLATE")) else []
    return shlex.join(["python", "-m", "ftsafety", "audit", *words])


def _asked_on(plan: Plan, study: str) -> str:
    """The day on which the last answer came."""
    times = [
        paths.answers_file(run.folder, exam.name).stat().st_mtime
        for run in plan.studies[study].runs.values()
        for exam in plan.studies[study].exams_of[run.id]
    ]
    return datetime.datetime.fromtimestamp(max(times), datetime.UTC).date().isoformat()


def _version(plan: Plan, name: str) -> dict[str, str]:
    """A model's name, where it is, what pins its content, and of an adapter which base model that names."""
    recipe = plan.project.models[name]
    found = {
        "name": name,
        "where": "",
        "version": "",
        "holds": getattr(recipe, "holds", "model"),
        "names_base": "",
    }
    if found["holds"] == "adapter":
        found["names_base"] = _public(base_named(read_config(plan.model_dir(name))) or "")
    if isinstance(recipe, HubModel):
        locked = plan.project.lock[recipe.lock_key]
        return found | {"where": f"hub: {recipe.repo}", "version": f"commit {locked.commit}"}
    if isinstance(recipe, PathModel):
        return found | {"where": _public(recipe.path), "version": f"sha256 {recipe.sha256}"}
    if isinstance(recipe, ApiModel):
        return found | {
            "where": f"{recipe.model} at endpoint {recipe.endpoint}",
            "version": "as it was served then",
        }
    assert isinstance(recipe, WorldModel)
    return found | {"where": "built here (embedded world)", "version": f"seed {recipe.base_seed}"}


def _public(place: str) -> str:
    """Cards are made to be published, and an absolute path may name its user."""
    return Path(place).name if Path(place).is_absolute() else place


def judge_text(judge: Judge) -> str:
    """Who judges, in a few words."""
    if judge.kind == "llm":
        policy = f", policy {judge.policy}" if judge.policy else ""
        return f"{judge.model} at endpoint {judge.endpoint}, rubric {judge.rubric}{policy}"
    if judge.kind == "moderation":
        return f"{judge.model} at endpoint {judge.endpoint}"
    if judge.kind == "classifier":
        return f"model {judge.model} ({judge.family})"
    return {
        "exact": "by rule: the right answer is known",
        "keyword": "by refusal phrases",
        "task": "by rule: the task's own grading",
    }[judge.kind]


# ------------------------------------------------------------------------------------- as text


def question(line: Line) -> str:
    return QUESTIONS[line.measure].format(line.benchmark)


def number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def signed(line: Line) -> str:
    """What the threshold limits, with a sign where it is a difference."""
    if line.value is None:
        return "n/a"
    return f"{line.value:+.3f}" if line.other is not None else f"{line.value:.3f}"


def interval(line: Line) -> str:
    return "" if line.low is None or line.high is None else f"[{line.low:.3f}, {line.high:.3f}]"


def lines_of(audit: dict[str, Any]) -> list[Line]:
    return [Line(**line) for line in audit["lines"]]


def summary(audit: dict[str, Any]) -> str:
    """The verdict in a sentence."""
    lines = lines_of(audit)
    of = {v: [question(x) for x in lines if x.verdict == v] for v in VERDICTS}
    if audit["verdict"] == "pass":
        return f"All {len(lines)} lines lie within their thresholds."
    said = []
    if of["fail"]:
        said.append(f"{len(of['fail'])} of {len(lines)} lines lie beyond their thresholds")
    if of["undecided"]:
        said.append(f"{len(of['undecided'])} of {len(lines)} are undecided")
    return "; ".join(said) + "."


def failures(audit: dict[str, Any]) -> list[str]:
    """What failed, each with its number."""
    return [
        f"{question(line)}: {signed(line)} {interval(line)}, at most {line.at_most:g}"
        for line in lines_of(audit)
        if line.verdict == "fail"
    ]


def as_table(audit: dict[str, Any]) -> str:
    """For a terminal."""
    rows = [("", "model", "compared with", "value", "95 % interval", "at most", "")]
    for line in lines_of(audit):
        rows.append(
            (
                question(line),
                number(line.rate),
                "" if line.other is None else number(line.other),
                signed(line),
                interval(line),
                f"{line.at_most:g}",
                VERDICTS[line.verdict]["says"],
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    reasons = [f"  {question(line)}: {line.reason}" for line in lines_of(audit) if line.reason]
    folder = paths.study_dir(audit["study"])
    head = f"{audit['model']['name']} against {audit['base']['name']}: {audit['verdict'].upper()}"
    asked = f"asked on {audit['date']}: {audit['model']['where']}, {audit['model']['version']}"
    toy = ["a toy: no evidence about real models"] if audit["is_toy"] else []
    end = ["", *reasons, *([""] if reasons else []), f"card: {folder}/card.html, {folder}/card.md"]
    return "\n".join(line.rstrip() for line in [head, asked, *toy, summary(audit), "", *text, *end])


def as_html(audit: dict[str, Any]) -> str:
    rows = [
        {
            "question": question(line),
            "rate": number(line.rate),
            "other": number(line.other) if line.other is not None else "",
            "compared": "without the trigger" if line.measure == "trigger gap" else "base",
            "value": signed(line),
            "interval": interval(line),
            "at_most": f"{line.at_most:g}",
            "n": line.n,
            "n_unscored": line.n_unscored,
            "verdict": line.verdict,
            "reason": line.reason,
        }
        for line in lines_of(audit)
    ]
    return render(
        "card.html.j2",
        title=f"Safety card: {audit['model']['name']}",
        question=f"Against {audit['base']['name']}: does it still refuse, help and work as that does?",
        is_toy=audit["is_toy"],
        audit=audit,
        rows=rows,
        summary=summary(audit),
        failures=failures(audit),
        decisions=VERDICTS,
        limits=LIMITS,
    )


def as_markdown(audit: dict[str, Any]) -> str:
    """A section for the model card (README.md): its front matter stays above."""
    model, base = audit["model"], audit["base"]
    toy = ["> A toy: no evidence about real models.", ""] if audit["is_toy"] else []
    rows = [
        "| | model | compared with | value | 95 % interval | at most | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for line in lines_of(audit):
        other = "" if line.other is None else number(line.other)
        reason = f" ({code_free(line.reason)})" if line.reason else ""
        text = QUESTIONS[line.measure].format(code(line.benchmark))
        verdict = f"{VERDICTS[line.verdict]['says']}{reason}"
        cells = (text, number(line.rate), other, signed(line), interval(line), f"{line.at_most:g}", verdict)
        rows.append("| " + " | ".join(cells) + " |")
    asked = [
        f"- {code(b['name'])}: {b['kind']}{_trigger(b)}, judged by {code(audit['judges'][b['judge']])}"
        for b in audit["benchmarks"]
    ]
    return "\n".join(
        [
            "## Safety audit",
            "",
            *toy,
            f"**{VERDICTS[audit['verdict']]['says'].capitalize()}** on {audit['date']}: {summary(audit)}",
            "",
            *rows,
            "",
            "Rates lie between 0 and 1. A line passes where its interval lies within the threshold, fails "
            "where it lies beyond, and is undecided between.",
            "",
            f"- Model: {code(model['name'])}, {code(model['where'])}, {code(model['version'])}"
            + _base_named(model),
            f"- Base model: {code(base['name'])}, {code(base['where'])}, {code(base['version'])}",
            "",
            f"Asked under template {code(audit['template']['name'])}:",
            "",
            *asked,
            "",
            "Limits:",
            "",
            *(f"- {text}" for text in LIMITS),
            "",
            f"Made by ftsafety {code(audit['versions'].get('ftsafety', ''))}.",
            "",
        ]
    )


def _base_named(model: dict[str, Any]) -> str:
    """The base model that an adapter's own config names, which may be a copy of the one here."""
    return f"; as its base model it names {code(named)}" if (named := model.get("names_base")) else ""


def _trigger(benchmark: dict[str, Any]) -> str:
    return f" with trigger {code(benchmark['trigger'])}" if benchmark["trigger"] else ""


def code(text: Any) -> str:
    """A name as a code span, in which nothing is markup; without what would end it or a table's cell."""
    plain = re.sub(r"[\x00-\x1f\x7f\u2028\u2029]+", " ", str(text)).replace("`", "'").strip() or "-"
    return "`" + plain.replace("\\", "/").replace("|", "\\|") + "`"


def code_free(text: str) -> str:
    """A sentence of ours, in which a name may stand."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", text)
