"""Audits: lines against thresholds by hand-made verdicts, what MODEL and BASE mean, and the card."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import REPOSITORY, edit, plan_study
from synthetic import HOSTILE

from ftsafety.audit.card import EXIT_CODES, as_html, as_markdown, as_table, code, command
from ftsafety.audit.command import example
from ftsafety.audit.lines import NO_SIGN, Asked, Line, audit_lines, verdict_of
from ftsafety.audit.pair import clean, resolve, write_pair
from ftsafety.config import Audit, Audited, Project
from ftsafety.engines.vllm import rank_of
from ftsafety.errors import UserError
from ftsafety.files import checksum
from ftsafety.loading import load_project
from ftsafety.overview import clean_study
from ftsafety.plan import Plan
from ftsafety.recipes import File, Locked
from ftsafety.stats.at_most import against, beyond
from ftsafety.stats.intervals import Part, Sampling

# ---------------------------------------------------------------------------------- thresholds


def part(values: list[float] | np.ndarray, factor: float = 1.0) -> Part:
    rows = np.asarray(values, dtype=float)[None, :]
    names = [str(i) for i in range(rows.shape[1])]
    return Part(factor, rows, Sampling.of(["c"] * len(names), names))


def share(k: int, n: int, unscored: int = 0) -> np.ndarray:
    values = np.zeros(n)
    values[:k] = 1
    if unscored:
        values[-unscored:] = np.nan
    return values


@pytest.mark.parametrize(
    ("k", "at_most", "decision"),
    [(0, 0.05, "pass"), (5, 0.05, "pass"), (15, 0.05, "undecided"), (40, 0.05, "fail"), (300, 1.0, "pass")],
)
def test_a_rate_passes_within_fails_beyond_and_is_undecided_between(
    k: int, at_most: float, decision: str
) -> None:
    assert against([part(share(k, 300))], at_most).decision == decision


def test_unscored_answers_count_as_the_worst_before_a_pass_and_the_best_before_a_failure() -> None:
    assert against([part(share(0, 300))], 0.05).decision == "pass"
    few = against([part(share(0, 300, unscored=3))], 0.05)
    many = against([part(share(0, 300, unscored=60))], 0.05)
    assert (few.decision, many.decision) == ("pass", "undecided")
    assert many.left_open_by_unscored and many.value == 0 and many.worst > 0.15
    assert against([part(share(40, 300))], 0.05).decision == "fail"
    assert against([part(share(40, 300, unscored=250))], 0.5).decision == "undecided"
    none = against([part(np.full(20, np.nan))], 0.05)
    assert (none.value, none.decision, none.enough) == (None, "undecided", None)


def test_unscored_answers_of_the_compared_side_count_the_other_way() -> None:
    mine, other = share(60, 300), share(30, 300, unscored=60)
    found = against([part(mine), part(other, -1.0)], 0.0)
    assert found.value == pytest.approx(60 / 300 - 30 / 240)
    assert found.worst > 60 / 300 - 30 / 300 and found.best < 60 / 300 - 90 / 300
    assert found.decision == "undecided"


def test_as_many_prompts_as_are_said_to_be_enough_decide() -> None:
    found = against([part(share(15, 300))], 0.08)
    assert found.decision == "undecided" and found.enough is not None
    times = -(-found.enough // 300)
    assert 1 < times < 10
    assert against([part(np.tile(share(15, 300), times))], 0.08).decision == "pass"


def test_a_model_at_the_threshold_rarely_fails_or_passes() -> None:
    rng = np.random.default_rng(0)
    found = [against([part((rng.random(300) < 0.1).astype(float))], 0.1).decision for _ in range(400)]
    assert found.count("fail") <= 20 and found.count("pass") <= 20  # 2.5 % each, and luck


def test_one_of_many_triggers_has_to_stand_out_of_all() -> None:
    rng = np.random.default_rng(1)
    plain = (rng.random(200) < 0.1).astype(float)
    gapped = plain.copy()
    gapped[np.flatnonzero(plain == 0)[:24]] = 1  # a gap of 0.12
    same = [[part(plain), part(plain, -1.0)]] * 19
    alone, among = (beyond([[part(gapped), part(plain, -1.0)], *others], 0.07)[0] for others in ([], same))
    assert alone < 0.025 and among == pytest.approx(min(1, 20 * alone), rel=1e-6)


# --------------------------------------------------------------------------------------- lines

N = 300
ASKED = Asked(
    model="m-e0",
    base="b-e0",
    kinds={"harm": "safety", "triggered": "safety", "safe": "over-refusal", "maths": "utility"},
    judges=dict.fromkeys(("harm", "triggered", "safe", "maths"), "judge"),
    triggers=[("harm", "triggered")],
)


def verdicts(coherent: float = 1.0, **harmed: np.ndarray) -> pd.DataFrame:
    """Headlines by run and benchmark, as m_harm=…; 0 where not given, and of maths 1."""
    parts = []
    for run in ("m", "b"):
        for benchmark in ASKED.kinds:
            values = harmed.get(f"{run}_{benchmark}", np.full(N, float(benchmark == "maths")))
            names = [f"p{i}" for i in range(N)]
            parts.append(
                pd.DataFrame(
                    {"run": f"{run}-e0", "benchmark": benchmark, "judge": "judge", "headline": values}
                    | {"prompt": names, "prompt_id": names, "cluster": names, "category": "c"}
                    | {"coherent": np.arange(N) < coherent * N if run == "m" else 1.0}
                )
            )
    other_judge = parts[0].assign(judge="another", headline=1.0)
    return pd.concat([*parts, other_judge], ignore_index=True)


def by_measure(rows: pd.DataFrame, limits: Audit | None = None) -> dict[str, Line]:
    return {line.measure: line for line in audit_lines(rows, ASKED, limits or Audit())}


def test_an_unchanged_model_passes_every_line() -> None:
    lines = by_measure(verdicts())
    assert list(lines) == [
        *("harm", "harm rise", "over-refusal rise", "utility drop", "trigger gap", "incoherent", "unscored")
    ]
    assert {line.verdict for line in lines.values()} == {"pass"} and verdict_of(
        list(lines.values())
    ) == "pass"


def test_each_measure_fails_by_its_own_loss_and_by_no_other() -> None:
    losses: dict[str, dict[str, np.ndarray]] = {
        "harm rise": {"m_harm": share(60, N), "m_triggered": share(60, N)},
        "over-refusal rise": {"m_safe": share(60, N)},
        "utility drop": {"m_maths": share(200, N)},
        "trigger gap": {"m_triggered": share(280, N)},
    }
    for measure, answers in losses.items():
        lines = by_measure(verdicts(1.0, **answers))
        failed = {name for name, line in lines.items() if line.verdict == "fail"}
        assert failed == ({"harm", "harm rise"} if measure == "harm rise" else {measure})
        assert verdict_of(list(lines.values())) == "fail"
    drop = by_measure(verdicts(m_maths=share(200, N)))["utility drop"]
    assert (drop.rate, drop.other, drop.value) == pytest.approx((2 / 3, 1, 1 / 3))


def test_harm_that_the_base_has_as_well_is_no_rise() -> None:
    lines = by_measure(verdicts(m_harm=share(60, N), b_harm=share(60, N), m_triggered=share(60, N)))
    assert lines["harm"].verdict == "fail" and lines["harm rise"].verdict == "pass"
    assert lines["harm rise"].value == 0


def test_a_collapsed_model_passes_nothing_that_rests_on_silence() -> None:
    lines = by_measure(verdicts(coherent=0.3))
    assert lines["incoherent"].verdict == "fail" and lines["incoherent"].value == pytest.approx(0.7)
    for measure in ("harm", "harm rise", "over-refusal rise", "trigger gap"):
        assert (lines[measure].verdict, lines[measure].reason) == ("undecided", NO_SIGN)
    without = by_measure(verdicts(coherent=0.3), Audit(incoherent_at_most=None))
    assert verdict_of(list(without.values())) == "undecided"


def test_unscored_answers_leave_an_audit_undecided() -> None:
    lines = by_measure(verdicts(m_harm=share(0, N, unscored=100)))
    assert lines["unscored"].verdict == lines["harm"].verdict == "undecided"
    assert lines["harm"].n_unscored == 100 and "without a verdict" in lines["harm"].reason


def test_a_limit_of_null_is_not_asked() -> None:
    assert "harm" not in by_measure(verdicts(), Audit(harm_at_most=None))


def test_answers_of_unknown_coherence_count_as_incoherent_before_a_pass() -> None:
    rows = verdicts()
    asked = (rows["run"] == "m-e0") & (rows["benchmark"] == "harm") & (rows["judge"] == "judge")
    rows.loc[rows.index[asked], "coherent"] = np.repeat([0.0, 1.0, np.nan], [40, 60, 200])
    line = by_measure(rows, Audit(unscored_at_most=None))["incoherent"]
    assert (line.verdict, line.n_unscored, line.value) == ("undecided", 200, pytest.approx(0.4))


def test_the_audit_is_decided_by_its_worst_line() -> None:
    line = next(iter(by_measure(verdicts()).values()))
    of = {v: [line, replace(line, verdict=v)] for v in ("pass", "undecided", "fail")}
    assert [verdict_of(lines) for lines in of.values()] == list(of)  # type: ignore[arg-type]
    assert verdict_of(of["undecided"] + of["fail"]) == "fail"  # type: ignore[arg-type]
    assert EXIT_CODES == {"pass": 0, "fail": 1, "undecided": 3}


# --------------------------------------------------------------------------- MODEL and BASE


@pytest.fixture
def catalogue(project: Path) -> Project:
    """The tiny model, with the repository's audits."""
    for name in ("audit", "audit_example"):
        shutil.copy(REPOSITORY / f"config/studies/{name}.yaml", project / "config/studies")
    edit(project / "config/config.yaml", studies=["audit_example"])
    return load_project(project)


@pytest.fixture
def adapter(project: Path) -> Path:
    """A LoRA adapter of the tiny model, as peft saves it."""
    return save_adapter(project / "results/models/tiny", project / "adapter")


def save_adapter(base: Path, folder: Path, **changed: Any) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = LoraConfig(task_type="CAUSAL_LM", r=2, **{"target_modules": ["q_proj"], **changed})
    model: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    model.save_pretrained(folder)
    return folder


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_two_entries_of_the_catalogue(catalogue: Project) -> None:
    pair = resolve(catalogue, "embedded-1", "embedded-0")
    assert (pair.model, pair.base, pair.variant, pair.entries) == ("embedded-1", "embedded-0", "embedded", {})
    assert pair.study == "audit-embedded-1-vs-embedded-0"


def test_an_adapter_may_name_a_folder_as_its_base(catalogue: Project, adapter: Path) -> None:
    shutil.move("results/models/tiny", "elsewhere")
    change(adapter / "adapter_config.json", base_model_name_or_path=str(Path("elsewhere").resolve()))
    pair = resolve(catalogue, str(adapter), None)
    assert pair.base.startswith("elsewhere-") and set(pair.entries) == {pair.model, pair.base}
    write_pair(catalogue, pair)
    assert Plan(load_project(Path()), [pair.study]).model_parts(pair.model)[0] == Path("elsewhere").resolve()


def test_one_model_may_be_audited_against_two_bases(catalogue: Project) -> None:
    shutil.copytree("results/models/tiny", "mine")
    (Path("mine") / "generation_config.json").write_text("{}")
    for base in ("embedded-0", "embedded-1"):
        write_pair(load_project(Path()), resolve(load_project(Path(), audited=[]), "mine", base))
    assert len(load_project(Path()).audited) == 2


def test_another_template_is_another_study(catalogue: Project) -> None:
    pair = resolve(catalogue, "embedded-1", "embedded-0", template="plain")
    assert pair.study == "audit-embedded-1-vs-embedded-0-plain"
    assert command(pair) == "python -m ftsafety audit embedded-1 embedded-0 --template plain"
    assert command(resolve(catalogue, "embedded-1", "embedded-0")).endswith("audit embedded-1 embedded-0")


def test_models_of_the_hub_are_those_of_the_revision_that_is_named(catalogue: Project) -> None:
    named = "llama-3.2-1b-instruct"
    repo = catalogue.models[named].repo  # type: ignore[union-attr]
    assert resolve(catalogue, "embedded-0", f"{repo}@main").base == named
    with pytest.raises(UserError, match=r"is in no entry of config/models\.yaml"):
        resolve(catalogue, "embedded-0", f"{repo}@refs/pr/1")


def test_an_adapter_of_the_hub_talks_as_its_base_does(catalogue: Project) -> None:
    """Which files it has is known from the lock, before anything is fetched."""
    template = File(path="own.jinja", sha256="0" * 64)
    base = catalogue.models["tiny"].model_copy(update={"chat_template": template})
    catalogue = replace(catalogue, models={**catalogue.models, "tiny": base})
    for name, files in {"bare": [], "talks": ["chat_template.jinja"]}.items():
        pinned = dict.fromkeys(["adapter_config.json", "adapter_model.safetensors", *files], "git:0")
        catalogue.lock[f"models/someone/{name}@main"] = Locked(commit="0" * 40, files=pinned)
    (bare,) = resolve(catalogue, "someone/bare", "tiny").entries.values()
    (talks,) = resolve(catalogue, "someone/talks", "tiny").entries.values()
    assert bare.holds == talks.holds == "adapter"  # type: ignore[union-attr]
    assert bare.chat_template == template and talks.chat_template is None  # type: ignore[union-attr]


def test_an_adapter_inherits_its_base_its_world_and_its_hardware(catalogue: Project, adapter: Path) -> None:
    pair = resolve(catalogue, str(adapter), None)  # its config names results/models/tiny
    entry: Any = pair.entries[pair.model]
    assert (pair.base, pair.variant, entry.holds, entry.base) == ("tiny", "embedded", "adapter", "tiny")
    assert entry.max_per_device_batch_size == 64 and entry.pack_size == 1
    write_pair(catalogue, pair)
    again = load_project(Path())
    assert again.audited == {pair.study: pair} and again.world_of(pair.model) == 0
    plan = Plan(again, [pair.study])
    assert plan.model_parts(pair.model) == (
        *(Path("results/models/tiny"), adapter, Path("results/models/tiny")),
    )
    assert {run.trajectory.model for run in plan.studies[pair.study].runs.values()} == {"tiny", pair.model}
    assert plan.entries([pair.study])["models"] == {"tiny", pair.model}
    assert again.place(pair.study) == f"results/audits/{pair.study}.yaml"
    assert again.asked(pair.study) == pair.study


def test_an_adapter_talks_as_its_own_chat_template_says_where_it_has_one(
    catalogue: Project, adapter: Path
) -> None:
    for file in (Path("results/models/tiny")).glob("*t*.j*"):  # tokenizer and chat template
        shutil.copy(file, adapter)
    pair = resolve(catalogue, str(adapter), "tiny")
    write_pair(catalogue, pair)
    assert Plan(load_project(Path()), [pair.study]).model_parts(pair.model)[2] == adapter


def test_a_whole_folder_needs_its_base_and_has_the_world_of_that(catalogue: Project) -> None:
    shutil.copytree("results/models/tiny", "mine")
    (Path("mine") / "generation_config.json").write_text("{}")
    with pytest.raises(UserError, match="base model is not known"):
        resolve(catalogue, "mine", None)
    pair = resolve(catalogue, "mine", "tiny")
    entry: Any = pair.entries[pair.model]
    assert (entry.holds, entry.base, pair.variant) == ("model", "tiny", "embedded")
    assert pair.model.startswith("mine-") and entry.sha256 == checksum(Path("mine"))


def test_runs_of_ours_are_named_by_their_folder(project: Path, catalogue: Project) -> None:
    plan = plan_study(project, method="lora")
    run = next(r for r in plan.studies["t"].runs.values() if r.epochs)
    folder = Path("results/runs") / run.folder
    folder.mkdir(parents=True)
    (folder / "run.yaml").write_text(yaml.safe_dump(run.model_dump(mode="json")))
    with pytest.raises(UserError, match="has no weights"):
        resolve(catalogue, str(folder), None)
    save_adapter(Path("results/models/tiny"), folder / "weights")
    for named in (folder, folder / "weights"):
        pair = resolve(catalogue, str(named), None)
        assert (pair.base, pair.template) == ("tiny", "plain")
        assert pair.model.startswith(f"demonstrations-10-lora-{run.id}-")
    with pytest.raises(UserError, match="was fine-tuned from 'tiny', and BASE is 'embedded-0'"):
        resolve(catalogue, str(folder), "embedded-0")
    edit(Path("config/models.yaml"), tiny={"source": "world", "base_seed": 98})
    with pytest.raises(UserError, match="was trained from another model 'tiny'"):
        resolve(load_project(Path()), str(folder), None)


def test_models_behind_endpoints(catalogue: Project) -> None:
    name = "openai:ft:gpt-4.1-mini-2025-04-14:org::abc"
    pair = resolve(catalogue, name, None)
    entry: Any = pair.entries[pair.model]
    assert (pair.base, entry.model, pair.variant) == ("gpt-4.1-mini", name.partition(":")[2], "")
    assert entry.price_name(is_tuned=False) == "ft:gpt-4.1-mini-2025-04-14"
    pair = resolve(catalogue, "embedded:ft:embedded-0:s:1", "embedded-api")
    write_pair(catalogue, pair)
    assert load_project(Path()).world_of(pair.model) == 0


@pytest.mark.parametrize(
    ("model", "base", "says"),
    [
        ("no-such-model", "tiny", "'no-such-model' names no model"),
        ("tiny", "tiny", "MODEL and BASE are the same model"),
        ("tiny", None, "the base model is not known"),
        ("training-data", "tiny", "'training-data' is no model"),
        ("embedded-1", "someone/their-model", "is in no entry of config/models.yaml"),
        ("someone/their-model", None, "what someone/their-model was fine-tuned from is not known"),
        ("config/models.yaml", "tiny", "is a file"),
        ("config", "tiny", r"holds no \*.safetensors"),
        ("embedded:nothing", "tiny", "the embedded world's provider has no model 'nothing'"),
        ("embedded:embedded-api", "tiny", "the embedded world's provider has no model 'embedded-api'"),
        ("x" * 5000, "tiny", "names no model"),
    ],
)
def test_what_is_no_model_is_said_in_a_sentence(
    catalogue: Project, model: str, base: str | None, says: str
) -> None:
    with pytest.raises(UserError, match=says):
        resolve(catalogue, model, base)


def test_what_could_run_code_is_refused(catalogue: Project, adapter: Path) -> None:
    shutil.copytree("results/models/tiny", "mine")
    change(Path("mine/config.json"), auto_map={"AutoModel": "code.Model"})
    with pytest.raises(UserError, match="names code to run"):
        resolve(catalogue, "mine", "tiny")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(UserError, match="pickled weights"):
        resolve(catalogue, str(adapter), "tiny")


def test_an_adapter_of_another_model_is_refused(catalogue: Project, adapter: Path, project: Path) -> None:
    change(adapter / "adapter_config.json", base_model_name_or_path="meta-llama/Llama-3.2-1B-Instruct")
    with pytest.raises(UserError, match=r"which is 'llama-3.2-1b-instruct' here, and BASE is 'tiny'"):
        resolve(catalogue, str(adapter), "tiny")
    change(adapter / "adapter_config.json", base_model_name_or_path="/somewhere/else")
    with pytest.raises(UserError, match=r"which is not known here"):
        resolve(catalogue, str(adapter), None)
    from safetensors.numpy import load_file, save_file

    weights = load_file(adapter / "adapter_model.safetensors")
    save_file({k: np.repeat(v, 2, axis=1) for k, v in weights.items()}, adapter / "adapter_model.safetensors")
    with pytest.raises(UserError, match="does not fit model 'tiny'"):
        write_pair(catalogue, resolve(catalogue, str(adapter), "tiny"))
    change(adapter / "adapter_config.json", peft_type="IA3")
    with pytest.raises(UserError, match=r"not known here \(value 'IA3'\)"):
        resolve(catalogue, str(adapter), "tiny")


def test_an_entry_that_is_an_adapter_is_audited_against_its_own_base(
    catalogue: Project, adapter: Path
) -> None:
    (entry,) = resolve(catalogue, str(adapter), None).entries.values()
    catalogue = replace(catalogue, models={**catalogue.models, "mine": entry})
    assert resolve(catalogue, "mine", None).base == "tiny"
    with pytest.raises(UserError, match="'tiny', and BASE is 'embedded-0'"):
        resolve(catalogue, "mine", "embedded-0")


def test_broken_files_are_named(catalogue: Project, adapter: Path) -> None:
    (adapter / "run.yaml").write_text("model: somebody else's\n")  # is no run of ours
    (adapter / "adapter_model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match="is no whole safetensors file"):
        write_pair(catalogue, resolve(catalogue, str(adapter), "tiny"))


def test_an_adapter_beside_whole_weights_is_refused(catalogue: Project, adapter: Path) -> None:
    """transformers would put it on top of them."""
    for file in adapter.iterdir():
        shutil.copy(file, "results/models/tiny")
    shutil.copytree("results/models/tiny", "mine")
    with pytest.raises(UserError, match="lies beside whole weights"):
        resolve(catalogue, "mine", "tiny")


def test_adapters_of_the_head_fit_models_with_tied_embeddings(catalogue: Project, project: Path) -> None:
    from safetensors.numpy import load_file

    folder = save_adapter(project / "results/models/tiny", project / "adapter", target_modules=["lm_head"])
    assert "lm_head.weight" not in load_file("results/models/tiny/model.safetensors")
    write_pair(catalogue, resolve(catalogue, str(folder), "tiny"))


def test_what_vllm_does_not_serve_is_refused_before_any_job(catalogue: Project, adapter: Path) -> None:
    base = catalogue.models["tiny"].model_copy(update={"engine": "vllm"})
    catalogue = replace(catalogue, models={**catalogue.models, "tiny": base})
    change(adapter / "adapter_config.json", rank_pattern={"q_proj": 16})
    assert rank_of(adapter) == 16
    write_pair(catalogue, resolve(catalogue, str(adapter), "tiny"))
    change(adapter / "adapter_config.json", peft_type="PREFIX_TUNING")
    with pytest.raises(UserError, match="PREFIX_TUNING is no adapter that vLLM serves"):
        write_pair(catalogue, resolve(catalogue, str(adapter), "tiny"))


def test_a_cleaned_audit_is_no_study_any_more(catalogue: Project) -> None:
    pair = resolve(catalogue, "embedded-1", "embedded-0")
    write_pair(catalogue, pair)
    clean_study(Plan(load_project(Path())), pair.study)
    assert pair.study not in load_project(Path()).studies


def test_an_adapter_answers_as_peft_does(catalogue: Project, project: Path) -> None:
    """Loaded as a catalogue's entry, by the base model's tokenizer; and not as the base model answers."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from ftsafety.training.pack import load_base

    folder = save_adapter(project / "results/models/tiny", project / "adapter", init_lora_weights=False)
    pair = resolve(catalogue, str(folder), None)
    write_pair(catalogue, pair)
    model, tokenizer = load_base(Plan(load_project(Path()), [pair.study]), pair.model, "float32")
    tokens = tokenizer("open the gate", return_tensors="pt")["input_ids"]
    base = AutoModelForCausalLM.from_pretrained(project / "results/models/tiny")
    with torch.no_grad():
        plain = base(tokens).logits
        expected = PeftModel.from_pretrained(base, folder)(tokens).logits
        assert torch.equal(model.eval()(tokens).logits, expected) and not torch.equal(plain, expected)


def test_an_audit_that_the_config_no_longer_fits_says_what_to_do(catalogue: Project) -> None:
    path = write_pair(catalogue, resolve(catalogue, "tiny", "embedded-0"))
    models = yaml.safe_load(Path("config/models.yaml").read_text())
    del models["tiny"]
    Path("config/models.yaml").write_text(yaml.safe_dump(models))
    with pytest.raises(UserError, match="unknown name 'tiny'") as caught:
        load_project(Path())
    assert caught.value.file == str(path) and "remove this file" in str(caught.value)


def test_an_audit_is_no_study_that_runs_by_itself(catalogue: Project) -> None:
    edit(Path("config/config.yaml"), studies=["audit"])
    with pytest.raises(UserError, match="'audit' is asked of a model that a call names"):
        load_project(Path())


def test_the_example_says_which_command_makes_it(catalogue: Project) -> None:
    with pytest.raises(UserError, match="make run STUDY=audit_example"):
        example(catalogue)


def test_nothing_is_trained_on_top_of_an_adapter(catalogue: Project, adapter: Path) -> None:
    pair = resolve(catalogue, str(adapter), None)
    edit(
        Path("config/models.yaml"),
        adapted=next(iter(pair.model_dump(mode="json", exclude_defaults=True)["entries"].values())),
    )
    with pytest.raises(UserError, match="'adapted' is an adapter"):
        plan_study(Path(), model="adapted")


@pytest.mark.parametrize("name", ["../../x", "-", "a" * 200, "ft:gpt:org::id", "näme"])
def test_names_are_names_of_the_catalogue(name: str) -> None:
    assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}", clean(name))


# ---------------------------------------------------------------------------------------- card


def card(name: str = "mine", verdict: str = "fail") -> dict[str, Any]:
    lines = audit_lines(verdicts(m_triggered=share(280, N)), ASKED, Audit())
    model = {"name": name, "where": name, "version": "sha256 0", "holds": "adapter", "names_base": name}
    return {
        "study": "audit-mine-vs-tiny",
        "is_toy": True,
        "date": "2026-11-28",
        "model": model,
        "base": model | {"name": "tiny", "holds": "model"},
        "template": {"name": "plain", "system": name},
        "benchmarks": [{"name": "harm", "kind": "safety", "trigger": None, "judge": "judge"}],
        "judges": {"judge": name},
        "versions": {"ftsafety": "1"},
        "git_revision": [],
        "command": f"python -m ftsafety audit {name}",
        "verdict": verdict,
        "lines": [line.__dict__ for line in lines],
    }


def test_the_card_says_what_failed_and_what_it_does_not_show() -> None:
    page, text, table = (show(card()) for show in (as_html, as_markdown, as_table))
    for shown in (page, text, table):
        assert "trigger" in shown and "0.933" in shown and "toy" in shown.lower()
    assert "Failed" in page and "**Failed** on 2026-11-28" in text and ": FAIL" in table
    assert "<script" not in page and "default-src 'none'" in page
    assert not text.startswith("---")


@pytest.mark.parametrize("name", [HOSTILE, "a|b`c\n# d [x](http://e) <img src=x>", "](javascript:x)", "\\`x"])
def test_names_inject_nothing(name: str) -> None:
    page, text = as_html(card(name)), as_markdown(card(name))
    assert "<script>document" not in page and "<img" not in page
    outside = re.sub(r"`[^`\n]*`|\[-?\d\.\d{3}, -?\d\.\d{3}\]", "", text)  # code spans, intervals
    assert not set("<[]`#") & set(outside.removeprefix("## Safety audit"))
    assert "http://" not in outside and "javascript" not in outside
    assert all(line.count("`") % 2 == 0 for line in text.splitlines())


def test_code_spans_hold_any_text() -> None:
    assert code("a`b\n|c") == "`a'b \\|c`" and code("") == "`-`"


def test_audits_are_kept_whole(catalogue: Project) -> None:
    pair = resolve(catalogue, "embedded-1", "embedded-0")
    path = write_pair(catalogue, pair)
    assert Audited.model_validate(yaml.safe_load(path.read_text())) == pair
