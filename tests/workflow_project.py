"""A copy of the repository to run Snakemake in, as a clone would be."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PARTS = ("Snakefile", "config", "workflow", "src", "resources", "profiles", "envs")


def copy_repository(folder: Path) -> Path:
    """The files a run needs, without results."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        source = REPOSITORY / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / part)
    return folder


def snakemake_command(*arguments: str, profile: str = "local") -> list[str]:
    return [sys.executable, "-m", "snakemake", "--profile", f"profiles/{profile}", *arguments]


def snakemake(
    folder: Path,
    *arguments: str,
    profile: str = "local",
    env: dict[str, str] | None = None,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run the workflow in `folder`, with its own copy of the package."""
    result = subprocess.run(
        snakemake_command(*arguments, profile=profile),
        cwd=folder,
        env=(env or dict(os.environ)) | python_path(folder, env),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert not check or result.returncode == 0, result.stdout[-6000:]
    return result


def python_path(folder: Path, env: dict[str, str] | None = None) -> dict[str, str]:
    """The copy's package comes before the installed one; what else was on the path stays."""
    before = (env or os.environ).get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder / "src"), before]))}
