"""What programs of the workflow say when they cannot go on."""

import pytest
import torch

from ftsafety.cli import user_errors


def test_a_full_gpu_is_a_sentence_with_its_mend(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end, user_errors():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    said = capsys.readouterr().err
    assert end.value.code == 2 and "CUDA out of memory" in said and "Traceback" not in said
    assert "lower max_per_device_batch_size" in said
