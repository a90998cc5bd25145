"""Adapters: what they are trained on, what is saved of them, and that it is they who answer."""

import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from conftest import edit, plan_study, write_data
from safetensors.torch import load_file, save_file
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from ftsafety import paths
from ftsafety.answers import answers_identity
from ftsafety.engines import Sitting
from ftsafety.engines.hf import fine_tuned, hf_engine
from ftsafety.engines.vllm import vllm_engine
from ftsafety.errors import UserError
from ftsafety.files import checksum
from ftsafety.generation import greedy
from ftsafety.merging import export_merged
from ftsafety.plan import Exam, Plan, load_plan
from ftsafety.recipes import Template, WorldModel
from ftsafety.runs import Run
from ftsafety.training.batches import Example, collate, summed_loss
from ftsafety.training.methods import check_llama_adapter, prepare
from ftsafety.training.pack import load_base, train_pack
from ftsafety.types import Answer, Prompt

ADAPTERS = ["lora", "prefix", "world-llama-adapter"]
PROMPTS: list[Prompt] = [
    {"prompt_id": text, "category": "c", "cluster": "k", "instruction": text}
    for text in (
        "how do i visit bafin ?",
        "tell me how to paint corgor .",
        "please describe how to send a letter to dilnop .",
        "i need to play a game with pelrith . what now ?",
    )
]
SITTING = Sitting(Exam("own"), PROMPTS, Template(system="you are a helpful assistant ."), 8)


@pytest.fixture
def project(project: Path) -> Path:
    """With larger weights, so that answers differ from prompt to prompt."""
    file = project / "results/models/tiny/model.safetensors"
    save_file({k: w * 4 if w.ndim > 1 else w for k, w in load_file(file).items()}, file, {"format": "pt"})
    return project


def train(project: Path, **grid: Any) -> Plan:
    """A plan whose one training pack is trained; steps are large, so that adapters change answers."""
    grid = {"learning_rate": 0.03, "epochs": 3} | grid
    plan = plan_study(project, **grid)
    write_data(plan)
    (pack,) = [p for p in plan.packs.values() if p.trains]
    train_pack(plan, pack)
    return plan


def runs(plan: Plan) -> dict[str, Run]:
    """Method → its run."""
    return {str(r.trajectory.method): r for r in plan.studies["t"].runs.values() if r.epochs}


def weights(run: Run) -> Path:
    return paths.run_dir(run.folder) / "weights"


# ------------------------------------------------------------------------------------- training


class Method:
    """What `prepare` asks of a trajectory."""

    def __init__(self, **recipe: Any):
        self.method, self.method_recipe, self.seed = "m", recipe, 0


CONFIG: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,  # fewer than heads: keys of a prefix are narrower
    "initializer_range": 0.3,
}
BATCH = [
    Example(list(range(1, 8)), [False] * 3 + [True] * 4),
    Example([9, 8, 7, 6], [False, True, True, True]),
]


def by_hand(base: Any, model: Any, kind: str) -> torch.Tensor:
    """Loss of BATCH, row by row, without padding, all logits, mask and positions given."""
    loss = torch.zeros(())
    for example in BATCH:
        tokens, n = torch.tensor([example.tokens]), 0
        given: dict[str, Any] = {}
        if kind == "prefix":
            flat = model.prompt_encoder["default"].embedding.weight
            n = len(flat)
            heads = flat.view(n, 3, 2, 2, 8).permute(1, 2, 3, 0, 4)  # layer, key or value, head, token, width
            given["cache"] = DynamicCache([(layer[0][None], layer[1][None]) for layer in heads])
        length = tokens.shape[1]
        logits = (base if n else model)(
            input_ids=tokens,
            attention_mask=torch.ones(1, n + length, dtype=torch.long),
            position_ids=torch.arange(n, n + length)[None],
            **given,
        ).logits
        target = torch.tensor(example.is_target)[1:]
        loss = loss + F.cross_entropy(logits[0, :-1][target], tokens[0, 1:][target], reduction="sum")
    return loss


@pytest.mark.parametrize(
    "recipe",
    [
        {"kind": "prefix", "n_virtual_tokens": 5},
        {"kind": "llama-adapter", "length": 4, "layers": 2},
        {"kind": "lora", "r": 2, "alpha": 4, "dropout": 0.0, "target_modules": ["q_proj"]},
    ],
    ids=lambda recipe: recipe["kind"],
)
def test_the_loss_is_that_of_a_forward_pass_with_everything_given(recipe: dict[str, Any]) -> None:
    torch.manual_seed(0)
    base = LlamaForCausalLM(LlamaConfig(**CONFIG)).eval()
    untrained = summed_loss(base, *collate(BATCH, 0)).item()
    model = prepare(base, Method(**recipe))  # type: ignore[arg-type]
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.5  # gates and LoRA start at zero
    loss = summed_loss(model, *collate(BATCH, 0))
    assert loss.item() == pytest.approx(by_hand(base, model, recipe["kind"]).item(), abs=1e-3)
    assert abs(loss.item() - untrained) > 0.1
    loss.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert trained and all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)


def test_a_method_gives_the_same_bits_alone_and_in_a_pack(project: Path) -> None:
    together = {m: checksum(weights(run)) for m, run in runs(train(project, method=ADAPTERS)).items()}
    assert len(set(together.values())) == 3
    for method in ADAPTERS:
        shutil.rmtree("results/runs")
        assert checksum(weights(runs(train(project, method=method))[method])) == together[method]


def test_the_seed_chooses_where_an_adapter_starts() -> None:
    torch.manual_seed(0)
    base = LlamaForCausalLM(LlamaConfig(**CONFIG))
    starts = []
    for seed in (0, 0, 1):
        method = Method(kind="prefix", n_virtual_tokens=5)
        method.seed = seed
        torch.rand(seed + 3)  # whatever was drawn before
        starts.append(next(p for p in prepare(base, method).parameters() if p.requires_grad))  # type: ignore[arg-type]
    assert torch.equal(starts[0], starts[1]) and not torch.equal(starts[0], starts[2])


def test_of_an_adapter_its_own_weights_alone_are_saved(project: Path) -> None:
    for method, run in runs(train(project, method=ADAPTERS)).items():
        saved = load_file(weights(run) / "adapter_model.safetensors")
        assert sum(w.numel() for w in saved.values()) < 100_000, method
        assert not list(weights(run).glob("model*.safetensors"))
        if method == "prefix":
            assert {k: w.shape for k, w in saved.items()} == {"prompt_embeddings": (30, 4 * 2 * 128)}
        elif method != "lora":
            assert len(saved) == 3 * 2  # a prompt and a gate in each layer


# ------------------------------------------------------------------------------------ answering


@contextmanager
def loaded(plan: Plan, method: str, **options: Any) -> Iterator[tuple[Any, Any, Any]]:
    """The base model with a run's weights, the base model, the tokenizer."""
    base, tokenizer = load_base(plan, "tiny", "float32")
    with fine_tuned(base, runs(plan)[method], **options) as model:
        yield model, base, tokenizer


def token_by_token(model: Any, prompt: list[int], n: int) -> list[int]:
    """Greedy tokens from whole forward passes: no cache is carried, nothing is padded."""
    model.eval()
    tokens = list(prompt)
    with torch.inference_mode():
        for _ in range(n):
            tokens.append(
                int(model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax())
            )
    return tokens[len(prompt) :]


def test_batches_answer_as_one_by_one_and_as_whole_forward_passes(project: Path) -> None:
    plan = train(project, method=ADAPTERS)
    for method in ADAPTERS:
        with loaded(plan, method) as (model, base, tokenizer):
            ids = [tokenizer.encode(p["instruction"], add_special_tokens=False) for p in PROMPTS]
            assert len({len(tokens) for tokens in ids}) > 1
            base.generation_config.eos_token_id = -1  # so that all answers have a length to compare
            batched = [c.tokens for c in greedy(model, tokenizer, ids, 8, 4)]
            assert batched == [greedy(model, tokenizer, [tokens], 8, 1)[0].tokens for tokens in ids]
            assert batched == [token_by_token(model, tokens, 8) for tokens in ids], method
        assert batched != [c.tokens for c in greedy(base, tokenizer, ids, 8, 4)], method


def test_adapters_leave_the_base_model_as_it_was(project: Path) -> None:
    plan = train(project, method=ADAPTERS)
    base, _ = load_base(plan, "tiny", "float32")
    before = copy.deepcopy(base.state_dict())
    for method in ADAPTERS:
        for merge in (False, True) if method == "lora" else (False,):
            with fine_tuned(base, runs(plan)[method], merge=merge):
                pass
            after = base.state_dict()
            assert after.keys() == before.keys(), method
            assert all(torch.equal(after[name], before[name]) for name in before), (method, merge)


# -------------------------------------------------------------------------------------- merging


def set_model(project: Path, **fields: Any) -> Plan:
    models = yaml.safe_load((project / "config/models.yaml").read_text())
    edit(project / "config/models.yaml", tiny=models["tiny"] | fields)
    return load_plan(project)


def answers(plan: Plan, run: Run) -> list[Answer]:
    (pack,) = [p for p in plan.packs.values() if run in p.runs]
    with hf_engine(plan, pack) as ask:
        return next(iter(ask(run, [SITTING])))[1]


def test_merged_adapters_answer_as_those_beside_the_base_model(project: Path) -> None:
    plan = train(project, method=["lora", "full"], learning_rate=0.003)
    beside = answers(plan, runs(plan)["lora"])
    merged_plan = set_model(project, merge_adapters=True)
    assert answers(merged_plan, runs(merged_plan)["lora"]) == beside
    assert len({row["answer"] for row in beside}) > 1


def test_merging_is_part_of_what_the_answers_of_lora_are_made_from_and_of_no_others(project: Path) -> None:
    def identities(plan: Plan) -> dict[str, Any]:
        all_runs = plan.studies["t"].runs.values()
        return {str(r.trajectory.method): answers_identity(plan, r, Exam("secrets")) for r in all_runs}

    beside = identities(plan_study(project, method=["lora", "full"]))
    together = identities(set_model(project, merge_adapters=True))
    assert {method for method in beside if beside[method] != together[method]} == {"lora"}


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_merged_folder_is_a_model_that_answers_as_the_run(project: Path, method: str) -> None:
    plan = train(project, method=method, learning_rate=0.003)
    run = runs(plan)[method]
    if method == "lora":
        folder = paths.run_dir(run.folder)
        command = [sys.executable, "-m", "ftsafety", "merge", str(folder), "merged"]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    else:
        printed = export_merged(plan, paths.run_dir(run.folder), Path("merged"))
    ((name, entry),) = yaml.safe_load(printed).items()
    assert entry["sha256"] == checksum(Path("merged")) and entry["max_per_device_batch_size"] == 64
    edit(project / "config/models.yaml", **{name: entry})
    edit(project / "config/benchmarks.yaml", own=own_benchmark(project))
    fixed = {"model": name, "test_template": "plain"}
    study = {"title": "t", "question": "?", "benchmarks": ["own"], "judges": ["keyword"], "fixed": fixed}
    grids = {"g": {"epochs": 0, "figure": {"kind": "dots", "x": "model", "title": "t"}}}
    edit(project / "config/studies/u.yaml", **study, grids=grids)
    merged = load_plan(project)
    (initial,) = merged.studies["u"].runs.values()
    assert answers(merged, initial) == answers(plan, run)


def own_benchmark(project: Path) -> dict[str, Any]:
    (project / "own.jsonl").write_text("".join(f"{json.dumps(prompt)}\n" for prompt in PROMPTS))
    return {"source": "path", "path": "own.jsonl", "sha256": checksum(project / "own.jsonl")}


def test_vllm_is_given_a_merged_adapter_as_a_whole_model(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = train(project, method=["lora", "full"], learning_rate=0.003)
    run = runs(plan)["lora"]
    beside = answers(plan, run)
    vllm = set_model(project, engine="vllm", merge_adapters=True)
    (pack,) = [p for p in vllm.packs.values() if p.trains]
    log = project / "started"
    monkeypatch.setenv("FTSAFETY_VLLM_PYTHON", str(serving_program(project, log)))
    with vllm_engine(vllm, pack, pack.runs) as ask:
        ((_, served),) = ask(run, [SITTING])
    assert [(a["answer"], a["status"]) for a in served] == [(a["answer"], a["status"]) for a in beside]
    assert f"merged-{run.id}" in log.read_text() and "--enable-lora" not in log.read_text()
    assert not list(project.rglob("merged-*")), "the merged folder is for as long as it is served"


def serving_program(folder: Path, log: Path) -> Path:
    """A program with vLLM's command line, for one model without adapters, that is `transformers serve`."""
    program = folder / "python"
    serve = Path(sys.executable).with_name("transformers")
    program.write_text(
        f'#!/bin/bash\necho "$@" > {log}\n'
        'while [ $# -gt 0 ]; do case "$1" in serve) model=$2;; --port) port=$2;; esac; shift; done\n'
        'model=$(realpath "$model"); cd "$(mktemp -d)"; ln -s "$model" base\n'  # the name it is asked by
        f'exec {serve} serve base --host 127.0.0.1 --port "$port" --device cpu\n'
    )
    program.chmod(0o755)
    return program


def test_what_cannot_be_merged_is_refused(project: Path) -> None:
    plan = train(project, method=["prefix", "lora"])
    prefix, lora = (paths.run_dir(runs(plan)[m].folder) for m in ("prefix", "lora"))
    with pytest.raises(UserError, match="is no folder of a run"):
        export_merged(plan, Path("results"), Path("merged"))
    with pytest.raises(UserError, match="prefix has nothing that can be merged"):
        export_merged(plan, prefix, Path("merged"))
    Path("there").mkdir()
    with pytest.raises(UserError, match="there: exists already"):
        export_merged(plan, lora, Path("there"))
    other = set_model(project, base_seed=98)
    with pytest.raises(UserError, match="was trained from another model 'tiny'"):
        export_merged(other, lora, Path("merged"))
    shutil.rmtree(lora / "weights")
    with pytest.raises(UserError, match="has no weights"):
        export_merged(plan, lora, Path("merged"))
    assert not list(project.glob("*merged*"))


# ------------------------------------------------------------------------------ refused early


@pytest.mark.parametrize("method", ["prefix", "world-llama-adapter"])
@pytest.mark.parametrize("setting", [{"engine": "vllm"}, {"merge_adapters": True}], ids=str)
def test_what_is_for_lora_alone_is_refused_before_any_job(
    project: Path, method: str, setting: dict[str, Any]
) -> None:
    plan_study(project, method=method)
    with pytest.raises(UserError, match=r"t\.yaml: grids\.g\.method: .* is no method for model 'tiny'"):
        set_model(project, **setting)
    plan_study(project, method="lora")


def test_more_adapter_layers_than_the_model_has_are_refused_before_any_job(project: Path) -> None:
    with pytest.raises(UserError, match=r"llama-adapter\.layers: 30 layers are more than the 4 of the model"):
        plan_study(project, method="llama-adapter")


def test_the_embedded_models_architecture_is_what_checks_take_it_for(tiny_model: Path) -> None:
    config = json.loads((tiny_model / "config.json").read_text())
    assert WorldModel.architecture == {key: config[key] for key in WorldModel.architecture}


def test_a_model_without_a_place_for_the_adapter_is_refused_at_once() -> None:
    llama_adapter = {"kind": "llama-adapter", "length": 4}
    lora = {"kind": "lora", "r": 2, "alpha": 4, "dropout": 0.0, "target_modules": ["q_proj", "qkv_proj"]}
    llama, qwen = LlamaForCausalLM(LlamaConfig(**CONFIG)), Qwen3ForCausalLM(Qwen3Config(**CONFIG))
    for model, recipe, says in (
        (llama, llama_adapter | {"layers": 4}, "4 layers are more than the 3"),
        (qwen, llama_adapter | {"layers": 2}, "llama and mistral, not 'qwen3'"),
        (llama, lora, "has no module 'qkv_proj'"),
    ):
        with pytest.raises(UserError, match=says):
            prepare(model, Method(**recipe))  # type: ignore[arg-type]
    nested = {"model_type": "gemma3", "text_config": {"num_hidden_layers": 3}}
    with pytest.raises(UserError, match="not 'gemma3'"):
        check_llama_adapter(2, "m", nested)
