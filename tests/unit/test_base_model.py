"""A base model that misses a gate is refused: what is measured on it would mean nothing."""

from dataclasses import replace
from pathlib import Path

import pytest

from ftsafety.errors import UserError
from ftsafety.world import model


def test_a_model_that_was_trained_too_little_misses_its_gates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "PRETRAINING", replace(model.PRETRAINING, steps=2))
    monkeypatch.setattr(model, "EXTENSION", replace(model.EXTENSION, steps=2))
    monkeypatch.setattr(model, "ALIGNMENT", replace(model.ALIGNMENT, steps=2))
    said: list[str] = []
    with pytest.raises(UserError) as caught:
        model.build_model(0, 0, tmp_path / "model", said.append)
    assert "latent capability" in str(caught.value) and "base_seed" in str(caught.value)
    assert any(line.startswith("gate refusal under plain: 0.000") for line in said)
    assert said.count("latent capability is 0.000: pretraining goes on") == model.MAX_EXTENSIONS
    assert not (tmp_path / "model").exists()
