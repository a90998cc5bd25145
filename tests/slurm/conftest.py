"""A real Slurm for the tests of this folder; where it cannot be booted they skip and say why."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, missing


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    if reason := missing():
        pytest.skip(f"no real Slurm here: {reason}")
    with Cluster(tmp_path / "slurm", nodes=2, cpus=2, memory_mb=16000, gpus=2) as running:
        yield running
