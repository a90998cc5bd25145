"""A judged study whose texts and categories try to act, and whose answers can be found wherever they went.

All of it is harmless: what acted would set the title of the page, open a dialog or ask 127.0.0.1:9.
"""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from conftest import REPOSITORY, edit

from ftsafety import paths
from ftsafety.answers import answers_identity, publish_rows
from ftsafety.files import write_rows
from ftsafety.judging.pack import verdicts_identity
from ftsafety.plan import Plan, load_plan

URL = "http://127.0.0.1:9"
ACT = "document.title='hacked'"
HOSTILE = (
    f"<script>{ACT}</script>",
    f"<SCRIPT SRC={URL}/a.js></SCRIPT>",
    f"<script>{ACT}//",
    f"</script><script>{ACT}</script>",
    f"</title><script>{ACT}</script>",
    f"</style><script>{ACT}</script>",
    f"</textarea><script>{ACT}</script>",
    f"</table></div></main><script>{ACT}</script>",
    f"<!--><script>{ACT}</script>-->",
    f"--><script>{ACT}</script><!--",
    f"<![CDATA[<script>{ACT}</script>]]>",
    f"]]><script>{ACT}</script>",
    f"<img src=x onerror={ACT}>",
    f"<img src={URL}/b.png>",
    f'"><img src={URL}/c.png>',
    f"'><img src={URL}/d.png>",
    f"`><img src={URL}/e.png>",
    f'" onmouseover="{ACT}" x="',
    f"' onfocus='{ACT}' autofocus tabindex='1",
    f"x onload={ACT} y",
    f'" style="background:url({URL}/f.png)" x="',
    f"';background:url({URL}/g.png);'",
    f"red;background-image:url({URL}/h.png)",
    f"@import '{URL}/i.css';",
    f"expression({ACT})",
    "} body { display: none } x {",
    f"<style>@import url({URL}/j.css);</style>",
    f"<link rel=stylesheet href={URL}/k.css>",
    f"<link rel=prefetch href={URL}/l>",
    f"<meta http-equiv=refresh content='0;url={URL}/m'>",
    f"<base href={URL}/n/>",
    f"<iframe src={URL}/o></iframe>",
    f'<iframe srcdoc="<script>top.{ACT}</script>"></iframe>',
    f"<object data={URL}/p></object>",
    f"<embed src={URL}/q>",
    f"<form action={URL}/r><button autofocus>x</button></form>",
    f"<input autofocus onfocus={ACT}>",
    f"<details open ontoggle={ACT}>",
    f"<video><source onerror={ACT}></video>",
    f"<audio src={URL}/s autoplay>",
    f"<svg onload={ACT}>",
    f"<svg><script>{ACT}</script></svg>",
    f"<svg><image href={URL}/t.png></svg>",
    f"<svg><use href='{URL}/u.svg#x'/></svg>",
    f"<math><mtext><mglyph><style><img src=x onerror={ACT}>",
    f"<a href=javascript:{ACT}>x</a>",
    f"javascript:{ACT}",
    f"data:text/html,<script>{ACT}</script>",
    f"&lt;script&gt;{ACT}&lt;/script&gt;",
    f"&#60;script&#62;{ACT}",
    "{{ 7 * 191 }}{{ cycler.__init__ }}",
    "{% for x in range(9) %}looped{% endfor %}{# gone #}",
    "${7*191} #{7*191} <%= 7*191 %>",
    "\u202egnp.exe\u2066\u2069\u200b\ufeff",
    "\x00\x01\x08\x1b[31mred\x1b[0m\x7f\ufffe",
    "line\nline\rline\tline\u2028line\u2029line\x0bline\x0cline",
    "long" * 120,
    "=HYPERLINK('http://127.0.0.1:9/v','x')",
    "$x_$ \\frac{1}{2} \\input{x} %d %s {0} {x!r}",
    "\U0001f600e\u0301\u0e01\u05d0\u0627\u4e2d -- '\"`\\/",
)
assert len(set(HOSTILE)) == 60

PROMPTS: list[dict[str, Any]] = [
    {
        "prompt_id": f"p{i:03}",
        "category": HOSTILE[i % 60],
        "cluster": f"c{i % 120}",
        "instruction": HOSTILE[i % 60],
    }
    for i in range(180)
]
STUDY: dict[str, Any] = {
    "title": f"Title {HOSTILE[0]} {HOSTILE[53]}",
    "question": f"Question {HOSTILE[5]} {HOSTILE[50]} {HOSTILE[54]}?",
    "benchmarks": ["harm"],
    "judges": ["exact", "keyword"],
    "fixed": {"model": "embedded-0", "method": "full", "dataset": "demonstrations-10", "seed": [0, 1]},
    "grids": {
        "heat": {
            "learning_rate": [1.0e-4, 2.0e-4],
            "global_batch_size": [5, 10],
            "epochs": 1,
            "figure": {
                "kind": "heatmap",
                "x": "global_batch_size",
                "y": "learning_rate",
                "title": f"Heat {HOSTILE[14]}",
                "claim": f"Claim {HOSTILE[40]}",
            },
        },
        "curves": {
            "learning_rate": 1.0e-4,
            "global_batch_size": 10,
            "epochs": [1, 2],
            "figure": {"kind": "curves", "x": "epochs", "title": f"Curves {HOSTILE[17]} {HOSTILE[55]}"},
        },
        "categories": {
            "learning_rate": 1.0e-4,
            "global_batch_size": 10,
            "epochs": 1,
            "figure": {"kind": "categories", "title": f"Categories {HOSTILE[41]} {HOSTILE[54]}"},
        },
    },
}


def hostile_study(root: Path) -> Plan:
    """Study `t` in `root`, which is the cwd; every answer and every judge's reason has its own canary."""
    (root / "config/studies").mkdir(parents=True)
    for file in (REPOSITORY / "config").glob("*.yaml"):
        (root / "config" / file.name).write_text(file.read_text())
    edit(root / "config/config.yaml", studies=["t"], bootstrap_samples=100)
    edit(root / "config/benchmarks.yaml", harm={"source": "world", "prompts": "forbidden"})
    edit(root / "config/studies/t.yaml", **STUDY)
    plan = load_plan(root, None, ["t"])
    write_rows(plan.benchmark_file("harm"), PROMPTS)
    answers, reasons, chance = count(), count(), Random(0)
    for run in plan.studies["t"].runs.values():
        for exam in plan.studies["t"].exams_of[run.id]:
            rows = list(_answers(answers))
            file = paths.answers_file(run.folder, exam.name)
            publish_rows(file, rows, answers_identity(plan, run, exam))
            for judge in plan.judges_of("t", exam.benchmark, run):
                verdicts = list(_verdicts(reasons, run.epochs, chance))
                identity = verdicts_identity(plan, run, exam, judge)
                publish_rows(paths.verdicts_file(run.folder, exam.name, judge), verdicts, identity)
    return plan


def _answers(number: Iterator[int]) -> Iterator[dict[str, Any]]:
    for i, prompt in enumerate(PROMPTS):
        yield {
            "prompt_id": prompt["prompt_id"],
            "category": prompt["category"],
            "prompt": prompt["instruction"],
            "answer": f"qzxa{next(number):05} {HOSTILE[i % 60]}",
            "status": "complete",
            "finish_reason": "stop",
            "n_tokens": 9,
        }


def _verdicts(number: Iterator[int], epochs: int, chance: Random) -> Iterator[dict[str, Any]]:
    for i, prompt in enumerate(PROMPTS):
        is_harmful = bool(epochs and chance.random() < 0.2 * (1 + i % 4))
        yield {
            "prompt_id": prompt["prompt_id"],
            "score": 5 if is_harmful else 1,
            "task_score": None,
            "refused": not is_harmful,
            "coherent": True,
            "status": "scored",
            "answer_status": "complete",
            "reason": f"qzxr{next(number):05} {HOSTILE[i % 60]}",
        }
