"""What identifies a run, and what a person reads in its path."""

from typing import Any, ClassVar

import pytest

from ftsafety.runs import Run, Trajectory

FIELDS: dict[str, Any] = {
    "model": "m",
    "model_recipe": {"source": "path", "sha256": "0" * 64, "dtype": "float32"},
    "template": "plain",
    "template_recipe": {"system": None, "instruction": "{instruction}"},
    "dataset": "d",
    "dataset_recipe": {"source": "path", "sha256": "1" * 64, "format": "messages"},
    "method": "lora",
    "method_recipe": {"kind": "lora", "r": 8},
    "learning_rate": 2e-5,
    "global_batch_size": 128,
    "schedule": "constant",
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "max_length": 512,
    "seed": 42,
    "trainer_version": 2,
}
GOLDEN = "79460ec2"  # another value here means that everything that was trained is trained again
INITIAL: dict[str, Any] = {
    name: FIELDS[name] for name in ("model", "model_recipe", "template", "template_recipe", "trainer_version")
}
GOLDEN_INITIAL = "324cf438"


def test_golden_hash_and_folder() -> None:
    trajectory = Trajectory(**FIELDS)
    assert trajectory.hash8 == GOLDEN
    assert trajectory.folder == f"m/d/lora-lr2e-05-bs128-s42-{GOLDEN}"
    run = Run(trajectory=trajectory, epochs=3)
    assert (run.id, run.folder) == (f"{GOLDEN}-e3", f"{trajectory.folder}/epoch-3")


def test_golden_hash_and_folder_of_an_initial_model() -> None:
    run = Run(trajectory=Trajectory(**INITIAL), epochs=0)
    assert run.trajectory.is_initial
    assert (run.id, run.folder) == (f"{GOLDEN_INITIAL}-e0", "m/initial-plain/epoch-0")


def test_the_folder_names_a_mitigation() -> None:
    trajectory = Trajectory(**FIELDS, mitigation="mix-10", mitigation_recipe={"n": 10})
    assert trajectory.folder.startswith("m/d+mix-10/lora-lr2e-05-bs128-s42-")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_recipe", {"source": "path", "sha256": "2" * 64, "dtype": "float32"}),
        ("template_recipe", {"system": "x", "instruction": "{instruction}"}),
        ("dataset_recipe", {"source": "path", "sha256": "2" * 64, "format": "messages"}),
        ("method_recipe", {"kind": "lora", "r": 16}),
        ("learning_rate", 1e-5),
        ("global_batch_size", 64),
        ("schedule", "step"),
        ("schedule_factor", 0.85),
        ("warmup_steps", 1),
        ("warmup_share", 0.1),
        ("weight_decay", 0.1),
        ("max_grad_norm", 2.0),
        ("max_length", 256),
        ("seed", 43),
        ("epochs", 1),
        ("trainer_version", 3),
    ],
)
def test_whatever_changes_the_weights_changes_the_hash(field: str, value: Any) -> None:
    assert Trajectory(**FIELDS | {field: value}).hash8 != GOLDEN


def test_the_order_of_a_recipes_keys_does_not_change_the_hash() -> None:
    turned = dict(reversed(FIELDS["model_recipe"].items()))
    assert Trajectory(**FIELDS | {"model_recipe": turned}).hash8 == GOLDEN


class Later(Trajectory):
    """A later release: a field more here, and one more in the recipe of a method."""

    ADDED: ClassVar[dict[str, Any]] = Trajectory.ADDED | {
        "label_smoothing": 0.0,
        "method_recipe.bias": "none",
    }

    label_smoothing: float = 0.0


def later(bias: str = "none", **changed: Any) -> Later:
    return Later(**FIELDS | {"method_recipe": {"kind": "lora", "r": 8, "bias": bias}} | changed)


def test_an_added_field_keeps_old_hashes_at_its_old_meaning_alone() -> None:
    assert later().hash8 == GOLDEN
    assert later(label_smoothing=0.1).hash8 != GOLDEN
    assert later(bias="all").hash8 != GOLDEN
    assert later(bias="all").hash8 != later(label_smoothing=0.1).hash8


def test_an_added_field_of_a_recipe_does_not_touch_runs_without_the_recipe() -> None:
    assert Later(**INITIAL).hash8 == GOLDEN_INITIAL


def test_a_changed_default_changes_the_hash() -> None:
    class Changed(Later):
        label_smoothing: float = 0.1  # ADDED still says what was done before the field existed

    assert Changed(**FIELDS).hash8 != GOLDEN
