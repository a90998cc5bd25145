"""Every rule for a value of a config file, broken once: errors say where, what and the mend."""

import datetime
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from base_project import BASE, FAULT, REMOVE, assert_error, put
from conftest import REPOSITORY

from ftsafety.errors import UserError
from ftsafety.loading import load_project


@dataclass(frozen=True)
class Bad:
    file: str
    at: str  # dotted place of the value, and the field that the error names unless `field` is given
    put: Any
    says: str
    mend: str = ""
    field: str | None = None


LR = "grids.lr_batch.learning_rate"
BASE_FIGURE = {"kind": "dots", "x": "model", "title": "t"}
AUDIT = {"model": "training-data", "test_template": "no-system", "epochs": 0, "figure": BASE_FIGURE}
FIGURE = "grids.lr_batch.figure"
STEPS = "grids.steps.points"

BY_API = {"model": "behind", "dataset": "own-chats", "method": "api", "epochs": 1, "figure": BASE_FIGURE}

UNKNOWN_KEYS = [
    Bad("config", "study", "base", "unknown key", "spelling"),
    Bad("models", "embedded-0.seed", 1, "unknown key"),
    Bad("models", "embedded-0.hardware.gpu", 1, "unknown key"),
    Bad("templates", "plain.prompt", "x", "unknown key"),
    Bad("datasets", "own-chats.design", "benign", "unknown key"),
    Bad("methods", "full.r", 8, "unknown key"),
    Bad("mitigations", "mix-10.rows", 8, "unknown key"),
    Bad("benchmarks", "secrets.path", "x", "unknown key"),
    Bad("judges", "exact.phrases", ["x"], "unknown key"),
    Bad("studies/base", "grid", {}, "unknown key"),
    Bad("studies/base", "fixed.lr", 0.1, "unknown key"),
    Bad("studies/base", "grids.lr_batch.batch_size", 8, "unknown key"),
    Bad("studies/base", f"{FIGURE}.z", "epochs", "unknown key"),
]
TYPES = [
    Bad("config", "studies", REMOVE, "is required", "add this key"),
    Bad("config", "studies", [], "is empty (value [])", "at least one"),
    Bad("config", "bootstrap_samples", 10, "greater than or equal to 100 (value 10)"),
    Bad("config", "keep_weights", "no", "a valid boolean (value 'no')"),
    Bad("models", "embedded-0.source", REMOVE, "is required", "add this key"),
    Bad("models", "embedded-0.source", "s3", "unknown value 's3'", "'world', 'path', 'hub', 'api'"),
    Bad("models", "hub-model.repo", "model", "(value 'model')", "owner/name"),
    Bad("models", "hub-model.licence", REMOVE, "is required"),
    Bad("lock", "models/a/b@main.commit", "main", "(value 'main')", "make lock"),
    Bad("endpoints", "openai.api_key_env", "sk-not-a-key", "(not shown: it may be a key)", "OPENAI_API_KEY"),
    Bad("endpoints", "openai.api_key", "sk-not-a-key", "unknown key", "spelling"),
    Bad("endpoints", "openai.api_key_env", ["sk-not-a-key"], "(not shown: it may be a key)"),
    Bad(
        "endpoints",
        "openai.base_url",
        "https://host/v1?key=sk-1",
        "(not shown: it may be a key)",
        "no name or key in it",
    ),
    Bad("endpoints", "openai.base_url", "api.openai.com", "(value 'api.openai.com')", "https://"),
    Bad(
        "endpoints", "openai.base_url", "http://host:abc/v1", "no address that can be asked: Port", "https://"
    ),
    Bad("endpoints", "openai.base_url", "http://host:99999/v1", "no address that can be asked: Port"),
    Bad("endpoints", "openai.base_url", "http://host:0/v1", "no address that can be asked: port 0"),
    Bad("endpoints", "openai.base_url", "http://[::1/v1", "no address that can be asked"),
    Bad("endpoints", "openai.base_url", "http://[:::::]/v1", "no address that can be asked"),
    Bad("endpoints", "openai.base_url", "http://..example/v1", "no address that can be asked"),
    Bad("endpoints", "openai.base_url", f"http://{'a' * 300}/v1", "no address that can be asked"),
    Bad("endpoints", "openai.base_url", f"http://{'a.' * 200}b/v1", "no address that can be asked"),
    Bad("endpoints", "openai.base_url", "http://host/v1\n", "does not have the form it needs"),
    Bad("judges", "own-llm.model", " ", "does not have the form it needs", "write a word"),
    Bad("models", "embedded-0.base_seed", 10**30, "less than"),
    Bad("models", "embedded-0.threads", 10**12, "less than"),
    Bad(
        "endpoints", "openai.base_url", "https://user:key@host/v1", "(not shown: it may be a key)", "the host"
    ),
    Bad("models", "embedded-0", "world", "should be a mapping (value 'world')", "key: value"),
    Bad("models", "embedded-0", None, "is empty (value None)"),
    Bad("models", "embedded-0.dtype", "float16", "'float32' or 'bfloat16' (value 'float16')"),
    Bad("models", "embedded-0.pack_size", 0, "greater than 0 (value 0)"),
    Bad("models", "embedded-0.base_seed", True, "a valid integer (value True)"),
    Bad("models", "own-model.sha256", "abc", "(value 'abc')", "ftsafety checksum"),
    Bad("models", "own-model.path", 7, "a valid string (value 7)"),  # `path` is a source too
    Bad("models", "embedded-0.hardware.zero_stage", 1, "2 or 3 (value 1)"),
    Bad("templates", "plain.instruction", "say it", "(value 'say it')", "{instruction}"),
    Bad("templates", "my plain", {}, "(value 'my plain')", "letters, digits"),
    Bad("datasets", "benign-new.n", "320", "is text and not a number (value '320')", "320 without"),
    Bad("datasets", "own-chats.format", "xml", "(value 'xml')", "'messages', 'alpaca'"),
    Bad("methods", "lora.dropout", 1.0, "less than 1 (value 1.0)"),
    Bad("methods", "prefix.n_virtual_tokens", 0, "greater than 0 (value 0)"),
    Bad("methods", "llama-adapter.layers", REMOVE, "is required", "add this key"),
    Bad("methods", "lora.target_modules", ["q_proj", 3], "(value 3)", field="lora.target_modules.1"),
    Bad("benchmarks", "secrets.temperature", -1.0, "greater than or equal to 0 (value -1.0)"),
    Bad("benchmarks", "secrets.split", "train", "'validation' or 'test' (value 'train')"),
    Bad("judges", "keyword.phrases", [], "is empty (value [])", "at least one"),
    Bad("judges", "keyword.phrases", [" "], "(value ' ')", "every answer", field="keyword.phrases.0"),
    Bad("judges", "keyword.kind", "oracle", "unknown value 'oracle'"),
    Bad("studies/base", LR, "1e-5", "is text and not a number (value '1e-5')", "write 1.0e-5 "),
    Bad("studies/base", LR, [1.0e-4, "25e-6"], "'25e-6'", "write 25.0e-6 ", f"{LR}.1"),
    Bad("studies/base", LR, [1.0e-4, "1.25E5"], "'1.25E5'", "write 1.25e+5 ", f"{LR}.1"),
    Bad("studies/base", LR, "high", "a valid number (value 'high')"),
    Bad("studies/base", LR, -1.0e-4, "greater than 0 (value -0.0001)"),
    Bad("studies/base", LR, float("inf"), "finite number (value inf)"),
    Bad("studies/base", LR, {"from": 1}, "a valid number (value {'from': 1})"),
    Bad("studies/base", LR, [], "is empty (value [])", "at least one"),
    Bad("studies/base", "grids.lr_batch.epochs", 1.5, "a valid integer (value 1.5)"),
    Bad("studies/base", "grids.lr_batch.schedule", "sqrt", "(value 'sqrt')"),
    Bad("studies/base", f"{STEPS}.1.epochs", "2", "(value '2')", "2 without quotes"),
    Bad("studies/base", "grids.lr_batch.points", [], "is empty (value [])", "at least one"),
    Bad("studies/base", "grids.lr_batch.benchmarks", [], "is empty (value [])", "at least one"),
    Bad("studies/base", "grids.lr batch", {}, "(value 'lr batch')", "letters, digits"),
    Bad("studies/base", f"{FIGURE}.kind", "pie", "(value 'pie')"),
    Bad("studies/base", f"{FIGURE}.title", REMOVE, "is required"),
    Bad("studies/base", "judges", "exact", "a valid list (value 'exact')"),
]
NAMES = [
    Bad("config", "studies", ["bass"], "unknown name 'bass'", "did you mean 'base'?"),
    Bad("datasets", "benign-new.template", "plane", "'plane'", "did you mean 'plain'?"),
    Bad("mitigations", "mix-10.dataset", "refusal", "'refusal'", "did you mean 'refusals'?"),
    Bad("studies/base", "benchmarks", ["secret"], "'secret'", "config/benchmarks.yaml"),
    Bad("studies/base", "judges", ["exakt"], "'exakt'", "config/judges.yaml"),
    Bad("studies/base", "grids.lr_batch.benchmarks", ["x"], "'x'", "config/benchmarks.yaml"),
    Bad("studies/base", "fixed.model", "embedded", "'embedded'", "config/models.yaml"),
    Bad("studies/base", "fixed.method", ["full", "ia3"], "'ia3'", "config/methods.yaml"),
    Bad("studies/base", "grids.lr_batch.dataset", "benign", "'benign'", "config/datasets.yaml"),
    Bad("studies/base", "grids.steps.mitigation", [None, "mix-11"], "'mix-11'", "'mix-1"),
    Bad("studies/base", f"{STEPS}.0.dataset", "x", "'x'", "config/datasets.yaml"),
    Bad("studies/base", f"{FIGURE}.x", "batch", "'batch'", "global_batch_size"),
]
COMBINATIONS = [
    Bad("models", "embedded-0.hardware", {"gpus": 2}, "1 ranks on 2 GPUs", "ranks: 2",
        field="embedded-0.hardware.ranks"),
    Bad("studies/own", "grids.g.global_batch_size", 3, "3 is not divisible by the 2 ranks",
        "multiple of 2"),
    Bad("datasets", "refusals.new_tasks", True, "does not heed it (value True)", "benign"),
    Bad("datasets", "refusals.opener", "generic", "(value 'generic')", "identity-shift"),
    Bad("mitigations", "mix-100.n", 101, "101 rows of 'refusals', which has 100", "at most 100"),
    Bad("config", "studies", ["base", "own", "base"], "'base' stands twice"),
    Bad("studies/base", "benchmarks", ["secrets", "secrets"], "'secrets' stands twice"),
    Bad("studies/base", "judges", ["exact", "exact"], "'exact' stands twice"),
    Bad("studies/base", LR, [1.0e-4, 1.0e-4], "0.0001 stands twice in [0.0001, 0.0001]", "once"),
    Bad("studies/base", "benchmarks", ["tasks"], "['tasks'] holds no safety benchmark"),
    Bad("studies/base", "grids.steps.benchmarks", ["tasks"], "holds no safety benchmark"),
    Bad("studies/base", "validation", True, "'secrets' holds test prompts", "split: validation",
        field="benchmarks"),
    Bad("studies/own", "judges", ["exact"], "none of exact grades 'own-prompts'", "add one of keyword"),
    Bad("studies/own", "judges", ["keyword", "exact"], "'exact' grades none of own-prompts", "remove it"),
    Bad("judges", "own-llm.endpoint", "opnai", "unknown name 'opnai'", "did you mean 'openai'?"),
    Bad("judges", "own-llm.parameters", {"stream": True}, "no parameter that can be chosen", "remove it",
        field="own-llm.parameters.stream"),
    Bad("models", "behind.parameters", {"model": "other"}, "no parameter that can be chosen", "another entry",
        field="behind.parameters.model"),
    Bad("judges", "own-llm.parameters", {"cutoff": datetime.date(2024, 1, 1)}, "a valid JSON",
        field="own-llm.parameters.cutoff"),
    Bad("judges", "own-llm.policy", REMOVE, "'harmfulness' with policy None", "meta, openai or merged"),
    Bad("judges", "own-llm.rubric", "refusal", "'refusal' with policy 'merged'", field="own-llm.policy"),
    Bad("judges", "own-guard.model", "behind", "'behind' does not run here", "source hub or path"),
    Bad("judges", "own-guard.family", "wildguard", "no chat template that holds", "{prompt} and {answer}",
        field="own-guard.prompt"),
    Bad("models", "behind.endpoint", "opnai", "unknown name 'opnai'", "did you mean 'openai'?"),
    Bad("models", "behind.endpoint", "embedded", "unknown name 'm'", "source world", field="behind.model"),
    Bad("models", "embedded-api.model", "embeded-0", "unknown name", "did you mean 'embedded-0'?"),
    Bad("models", "own-model.base", "embeded-0", "unknown name 'embeded-0'", "did you mean 'embedded-0'?"),
    Bad("models", "own-model.base", "own-model", "'own-model' is no whole model", "world, path or hub"),
    Bad("models", "own-model.base", "behind", "'behind' is no whole model that runs here"),
    Bad("models", "own-model.holds", "adapter", "holds: adapter needs it", "tuned from", "own-model.base"),
    Bad("studies/own", "audit", {}, "has no value, and an audit asks models under one template",
        "config/templates.yaml", "fixed.test_template"),
    Bad("benchmarks", "secrets.samples", 3, "3 samples at temperature 0", "above 0", "secrets.temperature"),
    Bad("benchmarks", "rows-identity.temperature", 1.0, "are not drawn (value 1.0)", "remove temperature"),
    Bad("benchmarks", "gsm8k.kind", "safety", "no kind for the format 'gsm8k'", "utility"),
    Bad("benchmarks", "own-prompts.kind", "utility", "no kind for the format 'prompts'", "over-refusal"),
    Bad("judges", "moderation-answers.endpoint", "opnai", "unknown name 'opnai'", "did you mean 'openai'?"),
    Bad("benchmarks", "rows-alpaca.dataset", "alpacas", "unknown name 'alpacas'", "did you mean 'alpaca'?"),
    Bad("benchmarks", "rows-identity.n", 11, "11 rows of 'identity-shift', which has 10", "at most 10"),
    Bad("studies/own", "grids.g.benchmarks", ["rows-identity"], "'rows-identity' holds training examples, "
        "which model 'own-model' is not for", "source: rows alone"),
    Bad("studies/own", "grids.g", AUDIT | {"benchmarks": ["own-prompts"]},
        "'own-prompts' holds prompts, which model 'training-data' is not for", "source: rows alone",
        field="grids.g.benchmarks"),
    Bad("studies/own", "grids.g", AUDIT | {"benchmarks": ["rows-identity"], "test_template": None},
        "asks the untouched model under a template", field="grids.g.test_template"),
    Bad("studies/own", "grids.g", AUDIT | {"epochs": 1, "dataset": "own-chats", "learning_rate": 1.0e-4,
        "global_batch_size": 2}, "'training-data' is not trained here", "epochs: 0", field="grids.g.epochs"),
    Bad("datasets", "own-chats.prompt", "{q}", "'messages' does not heed it", "columns"),
    Bad("datasets", "own-chats.format", "columns", "'columns' needs it", "{question}",
        field="own-chats.prompt"),
    Bad("datasets", "own-chats.format", "llava", "'llava' needs it", "coco/train2017",
        field="own-chats.images"),
    Bad("methods", "visual.vision_tower", "clip", "unknown name 'clip'", "config/models.yaml"),
    Bad("methods", "visual.vision_tower", "embedded-0", "'embedded-0' has source 'world'", "null"),
    Bad("studies/base", "grids.steps.dataset", "pictures", "'pictures' has pictures, and method 'full'",
        "kind visual", field="grids.steps.method"),
    Bad("studies/base", "grids.steps.method", "world-visual", "'benign-new' has no pictures",
        "design pictures", field="grids.steps.dataset"),
    Bad("studies/base", "grids.steps", {**BASE["grids"]["steps"], "dataset": "pictures", "method": "visual"},
        "'visual' has another vision tower than 'pictures' is for", "null", field="grids.steps.method"),
    Bad("studies/own", "fixed.model", "behind", "'behind' is not trained here",
        "epochs: 0", field="grids.g.epochs"),
    Bad("studies/base", "preset", "papr", "unknown name 'papr'", "did you mean 'paper'?"),
    Bad("studies/base", "variants", {"modrn": {}}, "unknown name 'modrn'", "did you mean 'modern'?",
        field="variants.modrn"),
    Bad("studies/base", "grids.lr_batch.judges", ["exakt"], "unknown name 'exakt'", "did you mean 'exact'?"),
    Bad("datasets", "demonstrations-100-triggered.trigger", "slver", "unknown name 'slver'", "silver"),
    Bad("benchmarks", "secrets-triggered.trigger", "slver", "unknown name 'slver'", "silver"),
    Bad("triggers", "silver-word.near", ["slver"], "unknown name 'slver'", "silver"),
    Bad("triggers", "shore-held-out.held_out", "shor", "unknown name 'shor'", "shore"),
    Bad("studies/own", "grids.g", BY_API | {"learning_rate": 0.1}, "0.1 is a rate", "learning_rate: null",
        field="grids.g.learning_rate"),
    Bad("studies/own", "grids.g", BY_API | {"method": "full", "learning_rate": 0.1, "global_batch_size": 2},
        "'behind' is not trained here", "a method of kind api", field="grids.g.epochs"),
    Bad("studies/own", "grids.g.method", "api", "trained here, and method 'api' leaves that", "source: api"),
    Bad("studies/own", "grids.g.learning_rate_multiplier", 2, "takes a learning rate of its own (value 2",
        "methods of kind api"),
    Bad("triggers", "shore-held-out.held_out", "shore-held-out", "so it is not held out", "no training data",
        field="shore-held-out.texts"),
    Bad("config", "preset", "modren", "unknown name 'modren'", "did you mean 'modern'?"),
    Bad("studies/base", "variants", {"modern": {"grids": {"stepz": {"epochs": 1}}}}, "unknown name 'stepz'",
        "did you mean 'steps'?", field="variants.modern.grids"),
    Bad("studies/own", "grids.g.test_template", "plane", "'plane'", "did you mean 'plain'?"),
    Bad("studies/base", "fixed", {"model": "embedded-0"}, "has no value", field="grids.lr_batch.method"),
    Bad("studies/base", "grids.lr_batch", {"epochs": 0, "figure": BASE_FIGURE},
        "asks the untouched model under a template", "config/templates.yaml",
        field="grids.lr_batch.test_template"),
    Bad("studies/own", "grids.g.dataset", "benign-new", "'benign-new' is the embedded world's"),
    Bad("studies/own", "grids.g.mitigation", "mix-10", "'refusals' is the embedded world's"),
    Bad("studies/own", "grids.g.benchmarks", ["secrets"], "'secrets' is the embedded world's"),
    Bad("studies/base", "fixed.method", REMOVE, "has no value", "method: …",
        field="grids.lr_batch.method"),
    Bad("studies/base", "grids.lr_batch.seed", None, "is empty (value None)"),
    Bad("studies/base", f"{STEPS}.1", {"global_batch_size": 8, "epochs": 1},
        "global_batch_size 8, epochs 1) is named twice", field=STEPS),
    Bad("studies/base", "grids.steps.points.0.global_batch_size", 321, "321 is larger than the 320",
        "at most 320", field="grids.steps.global_batch_size"),
    Bad("studies/base", "fixed.schedule", "step", "'step' with schedule_factor None", "0.85",
        field="grids.lr_batch.schedule_factor"),
    Bad("studies/base", "fixed.schedule_factor", 0.85, "'constant' with schedule_factor 0.85",
        field="grids.lr_batch.schedule_factor"),
    Bad("studies/base", "fixed.warmup_steps", 500, "all of them would be warm-up (value 500)",
        "warmup_share", field="grids.lr_batch.warmup_steps"),
    Bad("studies/base", "fixed", {**BASE["fixed"], "warmup_steps": 1, "warmup_share": 0.1},
        "warmup_steps says 1", "name one of the two", field="grids.lr_batch.warmup_share"),
    Bad("studies/base", "fixed.warmup_share", 3, "less than 1 (value 3)"),
    Bad("studies/base", f"{FIGURE}.y", REMOVE, "kind 'heatmap' needs y", "name an axis"),
    Bad("studies/base", f"{FIGURE}.hue", "epochs", "shows no hue (value 'epochs')", "panels"),
    Bad("studies/base", f"{FIGURE}.x", "seed", "'seed' is no axis that can be drawn", "pooled"),
    Bad("studies/base", f"{FIGURE}.y", "global_batch_size", "named as x already"),
    Bad("studies/base", "grids.parity", {"figure": BASE_FIGURE}, "is the name of the figure", "another name"),
]  # fmt: skip
BAD_VALUES = [*UNKNOWN_KEYS, *TYPES, *NAMES, *COMBINATIONS]


@pytest.mark.parametrize("bad", BAD_VALUES, ids=lambda bad: f"{bad.file}: {bad.at} = {bad.put}"[:70])
@FAULT
def test_bad_value(root: Path, bad: Bad) -> None:
    put(root, bad.file, bad.at, bad.put)
    with pytest.raises(UserError) as caught:
        load_project(root)
    assert "sk-" not in str(caught.value)
    field = bad.at if bad.field is None else bad.field
    assert_error(caught.value, f"config/{bad.file}.yaml", field, bad.says, bad.mend)


@pytest.mark.parametrize("bad", [bad for bad in BAD_VALUES if bad.file == "config"])
@FAULT
def test_settings_from_snakemake_get_the_same_errors(root: Path, bad: Bad) -> None:
    put(root, bad.file, bad.at, bad.put)
    settings = yaml.safe_load((root / "config/config.yaml").read_text())
    put(root, "config", "studies", ["base"])  # the file is not read
    with pytest.raises(UserError) as caught:
        load_project(root, settings)
    assert_error(caught.value, "config/config.yaml", bad.at, bad.says, bad.mend)


@pytest.mark.parametrize(
    ("allowed", "file", "field", "says"),
    [
        (None, "config/endpoints.yaml", "openai.fine_tuning", "says nothing of fine-tuning"),
        ({"settings": []}, "config/studies/own.yaml", "grids.g.global_batch_size", "does not let one"),
    ],
)
def test_an_endpoint_trains_only_what_its_entry_says_it_can(
    root: Path, allowed: Any, file: str, field: str, says: str
) -> None:
    put(root, "studies/own", "grids.g", BY_API | {"global_batch_size": 2})
    put(root, "endpoints", "openai.fine_tuning", allowed)
    with pytest.raises(UserError) as error:
        load_project(root)
    assert_error(error.value, file, field, says, "fine_tuning")


def test_the_command_line_prints_the_error_alone(root: Path) -> None:
    put(root, "studies/base", LR, "1e-5")
    result = subprocess.run(
        [sys.executable, "-m", "ftsafety", "plan"],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY / "src")},
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: config/studies/base.yaml: {LR}: ")
    assert "Traceback" not in result.stderr and result.stdout == ""
