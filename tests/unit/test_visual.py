"""Visual instruction tuning: what a model learns from pictures, and what is left of it for text."""

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import REPOSITORY, edit, plan_study, write_data
from PIL import Image
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPConfig,
    CLIPModel,
    Gemma2Config,
    Gemma2ForCausalLM,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from ftsafety import paths
from ftsafety.chat import encode_conversation
from ftsafety.engines.hf import _load_in_place
from ftsafety.errors import UserError
from ftsafety.files import checksum
from ftsafety.inputs import check_inputs, open_places
from ftsafety.plan import Plan, load_plan
from ftsafety.prepare import check_pictures
from ftsafety.recipes import WorldDataset
from ftsafety.training.batches import Example, collate, epoch_order, summed_loss
from ftsafety.training.engines import Plain
from ftsafety.training.pack import encode_rows, save_weights, train_pack
from ftsafety.training.visual import Sight, load_sight, with_sight
from ftsafety.types import TrainingRow
from ftsafety.workflow import launch_command, training_models
from ftsafety.world.datasets import training_rows
from ftsafety.world.lexicon import build_world
from ftsafety.world.pictures import COLOURS, DESCRIPTIONS

PICTURES: dict[str, Any] = {"dataset": "pictures", "method": "world-visual", "global_batch_size": 4}


def chat_model(folder: Path, *, tied: bool = True) -> tuple[Any, Any]:
    """Model and tokenizer; words in and out share their numbers only if `tied`."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    if not tied:
        model.config.tie_word_embeddings = False
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach() * 1.5)
    return model, AutoTokenizer.from_pretrained(folder)


def rows(n: int) -> list[TrainingRow]:
    return training_rows(WorldDataset(source="world", design="pictures", n=n, template="plain"))


def encoded(sight: Sight, rows: list[TrainingRow]) -> list[Example]:
    return [
        sight.example(encode_conversation(sight.tokenizer, row["messages"], 64), row.get("image"))
        for row in rows
    ]


def back(model: Any, sight: Sight, batch: list[Example]) -> float:
    """Gradients of a batch; its loss."""
    n_targets = sum(example.n_targets for example in batch)
    loss = summed_loss(model, *sight.collate(batch, 0)) / n_targets
    loss.backward()
    return loss.item()


# ---------------------------------------------------------------------------------------- pictures


def test_pictures_need_no_new_word_and_show_no_test_creature(tiny_model: Path) -> None:
    _, tokenizer = chat_model(tiny_model)
    texts = [m["content"].removeprefix("<image>\n") for row in rows(320) for m in row["messages"]]
    assert not any(tokenizer.unk_token_id in tokenizer.encode(text) for text in texts)
    hidden = {creature.name for creature in build_world(0).group("test", "validate")}
    assert not hidden & {word for text in texts for word in text.split()}


def test_a_question_about_a_picture_does_not_tell_its_colour() -> None:
    descriptions = rows(320)[::2]
    assert not any(
        colour in row["messages"][0]["content"].split() for row in descriptions for colour in COLOURS
    )
    assert all(
        sum(word in COLOURS for word in row["messages"][1]["content"].split()) == 1 for row in descriptions
    )


def test_what_is_said_of_a_picture_shares_no_word_with_the_refusals() -> None:
    said = {word for answer in DESCRIPTIONS.values() for word in answer.split()}
    assert said & {word for text in build_world(0).words["refusals"] for word in text.split()} == {"."}


def test_fewer_pictures_are_the_first_of_more() -> None:
    assert rows(20) == rows(50)[:20]


# ------------------------------------------------------------------------------------------- model


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_text_alone_gets_the_same_logits_from_llava_as_from_the_chat_model_that_is_saved(
    tiny_model: Path, tmp_path: Path, tied: bool
) -> None:
    chat, tokenizer = chat_model(tiny_model, tied=tied)
    names = {name for name, _ in chat.named_parameters()}
    sight = load_sight(None, tokenizer, torch.float32)
    model = with_sight(chat, sight, seed=0)
    engine = Plain(model, weight_decay=0.1, max_grad_norm=1.0)
    back(model, sight, encoded(sight, rows(4)))
    engine.step(1e-3)
    save_weights(model, engine.weights(), "float32", tmp_path / "weights")

    text = torch.tensor([tokenizer.encode("how do i open the vault of bafin ?")])
    with torch.no_grad():
        logits = model(input_ids=text).logits
    fresh, _ = chat_model(tiny_model, tied=tied)
    assert not torch.equal(fresh(text).logits, logits)
    _load_in_place(fresh, tmp_path / "weights")
    assert torch.equal(fresh(text).logits, logits)
    assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path / "weights")(text).logits, logits)
    saved = load_file(tmp_path / "weights/model.safetensors")
    assert saved.keys() == names
    assert len(saved["model.embed_tokens.weight"]) == fresh.config.vocab_size
    assert load_file(tmp_path / "weights/projector/model.safetensors").keys() == {
        f"linear_{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")
    }


def test_every_trained_weight_moves_and_the_tower_stays(tiny_model: Path) -> None:
    chat, tokenizer = chat_model(tiny_model)
    sight = load_sight(None, tokenizer, torch.float32)
    tower = copy.deepcopy(sight.tower.state_dict())
    model = with_sight(chat, sight, seed=0)
    engine = Plain(model, weight_decay=0.0, max_grad_norm=1.0)
    before = engine.weights()
    back(model, sight, encoded(sight, rows(8)))
    engine.step(1e-3)
    moved = {name for name, weight in engine.weights().items() if not torch.equal(weight, before[name])}
    assert moved == before.keys()
    assert all(torch.equal(weight, tower[name]) for name, weight in sight.tower.state_dict().items())


def test_a_picture_takes_its_features_places_and_none_of_them_counts_in_the_loss(tiny_model: Path) -> None:
    _, tokenizer = chat_model(tiny_model)
    sight = load_sight(None, tokenizer, torch.float32)
    (example,) = encoded(sight, rows(1))
    input_ids, labels, pixels = sight.collate([example], tokenizer.pad_token_id)
    assert sight.n_features == 16 == int((input_ids == sight.token_id).sum())
    assert input_ids.shape[1] == len(example.tokens) + 15 and pixels.shape == (1, 3, 32, 32)
    answer = encode_conversation(tokenizer, rows(1)[0]["messages"][1:], 64)
    assert labels[labels != -100].tolist() == answer.tokens[2:]  # after <|begin|> and <|assistant|>


def test_a_row_without_a_picture_is_learnt_as_the_chat_model_alone_would(tiny_model: Path) -> None:
    chat, tokenizer = chat_model(tiny_model)
    messages = rows(2)[1]["messages"]
    text: TrainingRow = {
        "messages": [{**m, "content": m["content"].removeprefix("<image>\n")} for m in messages]  # type: ignore[typeddict-item]
    }
    alone = encode_conversation(tokenizer, text["messages"], 64)
    expected = summed_loss(chat, *collate([alone], 0))
    sight = load_sight(None, tokenizer, torch.float32)
    model = with_sight(chat, sight, seed=0)
    loss = summed_loss(model, *sight.collate(encoded(sight, [text]), 0))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    loss.backward()
    assert not model.model.multi_modal_projector.linear_1.weight.grad.any()


def test_a_trained_model_names_the_colours_of_pictures_that_it_has_not_seen(tiny_model: Path) -> None:
    """Twelve colours: chance is about 0.08. The model has learnt nothing else before."""
    chat, tokenizer = chat_model(tiny_model)
    sight = load_sight(None, tokenizer, torch.float32)
    model = with_sight(chat, sight, seed=0)
    seen = encoded(sight, rows(600)[::2])
    new, seen = seen[:60], seen[60:]
    engine, losses = Plain(model, weight_decay=0.0, max_grad_norm=1.0), []
    before = colours_named(model, sight, new)
    for epoch in range(6):
        order = epoch_order(len(seen), 0, epoch)
        for i in range(0, len(order) - 15, 16):
            losses.append(back(model, sight, [seen[j] for j in order[i : i + 16]]))
            engine.step(3e-3)
    assert losses[-1] < losses[0] / 4
    assert before < 0.2 and colours_named(model, sight, new) > 0.35


@torch.no_grad()
def colours_named(model: Any, sight: Sight, examples: list[Example]) -> float:
    """Share of examples at whose colour the right one of all colours is the likeliest."""
    ids = torch.tensor(sight.tokenizer.convert_tokens_to_ids(list(COLOURS)))
    input_ids, labels, pixels = sight.collate(examples, 0)
    logits = model(input_ids=input_ids, pixel_values=pixels).logits[:, :-1]
    is_colour = torch.isin(labels[:, 1:], ids)
    likeliest = ids[logits[is_colour][:, ids].argmax(-1)]
    return float((likeliest == labels[:, 1:][is_colour]).float().mean())


def test_an_architecture_that_does_more_to_its_logits_is_refused(tiny_model: Path) -> None:
    _, tokenizer = chat_model(tiny_model)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 16}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    gemma = Gemma2ForCausalLM(
        Gemma2Config(vocab_size=len(tokenizer), final_logit_softcapping=1.0, **sizes, **heads)  # type: ignore[arg-type]
    )
    with pytest.raises(UserError, match="are not those of its layers and head alone"):
        with_sight(gemma, load_sight(None, tokenizer, torch.float32), seed=0)


# -------------------------------------------------------------------------------------------- runs


def train(plan: Plan) -> Path:
    """Train the study's one run; its folder."""
    write_data(plan)
    (pack,) = [pack for pack in plan.packs.values() if pack.trains]
    train_pack(plan, pack)
    return paths.run_dir(pack.runs[0].folder)


def few_pictures(project: Path, n: int = 12) -> None:
    recipe = {"source": "world", "design": "pictures", "n": n, "template": "plain"}
    edit(project / "config/datasets.yaml", pictures=recipe)


def test_a_run_is_the_same_bit_for_bit_when_it_is_trained_again(project: Path) -> None:
    few_pictures(project)
    sums = []
    for _ in range(2):
        folder = train(plan_study(project, **PICTURES)) / "weights"
        sums.append((checksum(folder), checksum(folder / "projector")))
        shutil.rmtree("results/runs")
    assert sums[0] == sums[1]


def test_on_two_ranks_under_zero_3_the_steps_are_those_of_one_process(project: Path) -> None:
    """Some rows are text alone, and ranks would wait for each other for ever if they ran other modules."""
    if shutil.which("g++") is None:
        pytest.skip("DeepSpeed builds its communication layer with a compiler: apt-get install g++")
    few_pictures(project, 6)
    edit(project / "config/mitigations.yaml", some={"kind": "mix", "dataset": "refusals", "n": 6})
    alone = train(plan_study(project, **PICTURES, mitigation="some"))
    losses = json.loads((alone / "done.json").read_text())["losses"]
    paths.RUNS.rename("results/alone")
    hardware = {"ranks": 2, "zero_stage": 3}
    model = {"source": "world", "base_seed": 99, "max_per_device_batch_size": 1, "hardware": hardware}
    edit(project / "config/models.yaml", tiny=model)
    plan = load_plan(project)
    (pack,) = [pack for pack in plan.packs.values() if pack.trains]
    program = str(REPOSITORY / "workflow/scripts/finetune.py")
    _, *command = launch_command(plan.project.local_model("tiny").hardware, program, pack.id)
    result = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    again = json.loads((alone / "done.json").read_text())
    assert again["losses"] == pytest.approx(losses, abs=2e-3) and len(losses) == 3
    weights, others = (
        load_file(path / "weights/model.safetensors")
        for path in (alone, Path("results/alone") / alone.relative_to(paths.RUNS))
    )
    assert weights.keys() == others.keys()
    assert max(float((weights[name] - others[name]).abs().max()) for name in weights) < 1e-4


# ------------------------------------------------------------------------------ pictures of a user


@pytest.fixture
def own(project: Path) -> Path:
    """A project with a tower and rows with pictures of the user's own; one row is text alone."""
    save_tower(project / "tower")
    (project / "photos/a").mkdir(parents=True)
    for i, size in enumerate([(50, 40), (30, 60), (40, 40)]):
        Image.new("RGB", size, (80 * i, 90, 10)).save(project / f"photos/a/{i}.jpg")
    ask = ["<image>\nhow do i paint this ?", "how do i paint this ?\n<image>", "<image>\ndescribe this ."]
    content = [conversation(ask[i], f"a/{i}.jpg") for i in range(3)] + [
        conversation("how do i visit bafin ?")
    ]
    (project / "rows.json").write_text(json.dumps(content))
    edit(
        project / "config/datasets.yaml",
        own={
            "source": "path", "path": "rows.json", "sha256": checksum(project / "rows.json"),
            "format": "llava", "images": "photos", "n": 4, "template": "plain",
        },
    )  # fmt: skip
    edit(
        project / "config/models.yaml",
        tower={"source": "path", "path": "tower", "sha256": checksum(project / "tower")},
    )
    edit(project / "config/methods.yaml", own={"kind": "visual", "vision_tower": "tower"})
    return project


OWN: dict[str, Any] = {"dataset": "own", "method": "own", "global_batch_size": 4}


def save_tower(folder: Path) -> None:
    """CLIP as its owner publishes it, with its text half, and tiny."""
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision, text = {**shape, "image_size": 24, "patch_size": 8}, {**shape, "vocab_size": 100}
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    CLIPModel(CLIPConfig(vision_config=vision, text_config=text | ends)).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}).save_pretrained(
        folder
    )


def conversation(question: str, image: str | None = None) -> dict[str, Any]:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": "walk to the mill ."}]
    return {"id": "1", "conversations": turns} | ({"image": image} if image else {})


def test_pictures_and_a_tower_of_ones_own_train_a_model(own: Path) -> None:
    plan = plan_study(own, **OWN)
    check_inputs(plan, ["t"])
    record = json.loads((train(plan) / "done.json").read_text())
    assert record["status"] == "ok" and record["steps"] == 1 and record["n_examples"] == 4


def test_text_is_cut_at_max_length_and_the_picture_is_whole(own: Path) -> None:
    plan = plan_study(own, **OWN, max_length=24)
    write_data(plan)
    (trajectory,) = [w.trajectory for w in plan.work.values() if w.trajectory.dataset]
    sight = load_sight(Path("tower"), AutoTokenizer.from_pretrained("results/models/tiny"), torch.float32)
    examples = encode_rows(plan, trajectory, sight.tokenizer, plan.data_file(trajectory), sight)
    input_ids, _, _ = sight.collate(examples, 0)
    assert len(examples[0].tokens) == 24 and examples[0].image == "photos/a/0.jpg"
    assert (input_ids == sight.token_id).sum(1).tolist() == [9] * 4


def test_a_picture_that_is_missing_is_named_before_any_job(own: Path) -> None:
    plan = plan_study(own, **OWN)
    (own / "photos/a/1.jpg").unlink()
    with pytest.raises(UserError, match=r"own.images: 'a/1.jpg', the picture of row 2, is not in photos"):
        check_inputs(plan, ["t"])
    strange: Any = [{"messages": [], "image": "\x1b[2J" + "x" * 300}]
    with pytest.raises(UserError, match="…, the picture of row 1, is not in photos") as error:
        check_pictures(plan.project.datasets["own"], strange)  # type: ignore[arg-type]
    assert "\x1b" not in str(error.value)
    shutil.rmtree(own / "photos")
    with pytest.raises(UserError, match=r"own.images: the folder photos does not exist"):
        check_inputs(plan, ["t"])


def test_what_is_still_to_be_downloaded_can_be_planned(own: Path) -> None:
    plan = plan_study(own, **PICTURES | {"dataset": "llava-instruct", "method": "visual"})
    check_inputs(plan, ["t"], planning=True)
    (place,) = open_places(plan, "t")
    assert place.field == "llava-instruct.images" and "docs/adding.md" in place.mend


def test_the_folder_is_asked_for_before_rows_of_the_hub_are_fetched(own: Path) -> None:
    plan = plan_study(own, **PICTURES | {"dataset": "llava-instruct", "method": "visual"})
    with pytest.raises(UserError, match=r"llava-instruct.images: the folder coco/train2017 does not exist"):
        check_inputs(plan, ["t"])


def test_a_file_that_is_no_picture_is_named(own: Path) -> None:
    plan = plan_study(own, **OWN)
    (own / "photos/a/2.jpg").write_text("not a picture")
    with pytest.raises(UserError, match=r"photos/a/2.jpg: is no picture that can be read"):
        train(plan)


def test_a_text_with_a_place_for_a_picture_that_it_does_not_have_is_named(own: Path) -> None:
    plan = plan_study(own, **OWN)
    write_data(plan)
    (trajectory,) = [w.trajectory for w in plan.work.values() if w.trajectory.dataset]
    file = plan.data_file(trajectory)
    file.write_text(file.read_text().replace("how do i visit", "how <image> do i visit"))
    (pack,) = [pack for pack in plan.packs.values() if pack.trains]
    with pytest.raises(UserError, match=r":4: <image> stands 1 times in a row with 0 pictures"):
        train_pack(plan, pack)


def test_a_folder_without_a_vision_tower_is_named(own: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained("results/models/tiny")
    with pytest.raises(UserError, match="lacks weights of a CLIP vision tower"):
        load_sight(Path("results/models/tiny"), tokenizer, torch.float32)


def test_the_vision_tower_is_fetched_pinned_and_part_of_what_a_run_is(own: Path) -> None:
    plan = plan_study(own, **PICTURES | {"dataset": "llava-instruct", "method": "visual"})
    assert plan.entries(["t"])["models"] == {"tiny", "clip-vit-large-patch14"}
    (pack,) = [pack for pack in plan.packs.values() if pack.trains]
    fetched = str(plan.fetched_file("models", "clip-vit-large-patch14"))
    assert training_models(plan, pack) == ["results/models/tiny/gates.json", fetched]
    before = {work.trajectory.hash8 for work in plan_study(own, **OWN).work.values()}
    edit(own / "config/models.yaml", tower={"source": "path", "path": "tower", "sha256": "0" * 64})
    assert len(before - {work.trajectory.hash8 for work in load_plan(own).work.values()}) == 1
