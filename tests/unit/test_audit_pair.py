"""What MODEL and BASE of an audit mean, and what is refused before anything is asked."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import REPOSITORY, edit, plan_study

from ftsafety.audit.card import command
from ftsafety.audit.command import example
from ftsafety.audit.pair import clean, resolve, write_pair
from ftsafety.config import Audited, Project
from ftsafety.engines.vllm import rank_of
from ftsafety.errors import UserError
from ftsafety.files import checksum
from ftsafety.loading import load_project
from ftsafety.overview import clean_study
from ftsafety.plan import Plan
from ftsafety.recipes import File, Locked


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


def test_a_folder_with_a_long_name_is_audited_under_a_shorter_one(catalogue: Project, adapter: Path) -> None:
    folder = adapter.rename(adapter.with_name("tiny-instruct-with-a-name-that-" + "goes-on-and-on-" * 3))
    pair = resolve(catalogue, str(folder), "tiny")
    assert len(pair.model) == 60 and ".." in pair.model


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


def test_audits_are_kept_whole(catalogue: Project) -> None:
    pair = resolve(catalogue, "embedded-1", "embedded-0")
    path = write_pair(catalogue, pair)
    assert Audited.model_validate(yaml.safe_load(path.read_text())) == pair
