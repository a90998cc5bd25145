"""Reading and writing the files of a study so that a crash or a second writer harms nothing.

Everything is written to a temporary name first and then renamed. `publish_*` leaves equal content alone:
jobs that outlive a killed Snakemake may still write what a newer job has written already.
"""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from ftsafety.errors import UserError

#: Architecture, decoding defaults, tokenizer and chat template; how a vision tower takes pictures; what an
#: adapter is put around.
MODEL_TEXTS = (
    *("config.json", "generation_config.json", "chat_template.jinja", "tokenizer*"),
    *("special_tokens_map.json", "*.model", "vocab.*", "merges.txt", "preprocessor_config.json"),
    "adapter_config.json",
)
MODEL_FILES = ("*.safetensors", "model.safetensors.index.json", *MODEL_TEXTS)
PRIVATE_DIR, PRIVATE_FILE = 0o700, 0o600


def digest(value: Any, length: int = 8) -> str:
    """Hexadecimal sha256 of a JSON value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def sha256_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def checksum(path: Path) -> str:
    """sha256 of a file, or of a folder: over names and sha256s of its files.

    Of a model folder those that make its answers count. Raises UserError where there is nothing.
    """
    if path.is_file():
        return sha256_file(path)
    patterns = MODEL_FILES if any(path.glob("*.safetensors")) else ("[!.]*",)
    files = sorted({file for pattern in patterns for file in path.glob(pattern) if file.is_file()})
    if not files:
        raise UserError("is no file and no folder with files", file=path, mend="correct the path")
    return digest([[file.name, sha256_file(file)] for file in files], 64)


def private_dir(path: Path) -> Path:
    """Make a folder for sensitive text (mode 0700); folders that exist are tightened."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(PRIVATE_DIR)
    return path


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    """Write atomically; equal content is left alone, so that its time stamp stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = text.encode()
    if path.exists() and path.read_bytes() == content:
        if private:
            path.chmod(PRIVATE_FILE)
        return
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:  # mkstemp makes the file 0600
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if not private:
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any, *, private: bool = False) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n", private=private)


def write_yaml(path: Path, value: Any) -> None:
    write_text(path, yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def write_rows(path: Path, rows: Iterable[Any], *, private: bool = False) -> str:
    """Write JSON Lines, and return their sha256."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_text(path, text, private=private)
    return hashlib.sha256(text.encode()).hexdigest()


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def read_json_if_whole(path: Path) -> Any:
    """The file's JSON, or None where it is missing or was cut off while being written.

    Raises UserError where it is another user's.
    """
    try:
        return read_json(path)
    except PermissionError:
        mend = "work in a folder of your own: answers can be read by their owner alone"
        raise UserError("cannot be read: it is another user's", file=path, mend=mend) from None
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        return None


def read_rows(path: Path) -> Iterator[Any]:
    """Rows of a JSON Lines file.

    Raises UserError naming file and line for a line that is no JSON object; its text is not shown, since
    it may be harmful and errors end in logs.
    """
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                row = json.loads(line.decode())
                if not isinstance(row, dict):
                    raise ValueError("not a JSON object")
            except (ValueError, RecursionError) as error:
                problem = "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
                raise UserError(
                    f"is no row: {problem}",
                    file=f"{path}:{number}",
                    mend="write one JSON object a line, or remove the line",
                ) from None
            yield row


def publish_folder(temporary: Path, final: Path) -> None:
    """Move a finished folder to its name; where a second writer was faster, keep the first's.

    Its files are on the disk before: what says that they are there must not outlive them.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    for path in [*temporary.rglob("*"), temporary]:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    try:
        os.rename(temporary, final)
    except OSError:
        if not final.exists():
            raise
        shutil.rmtree(temporary)


def remove_leftovers(folders: Iterable[Path]) -> None:
    """Temporary folders of jobs that were killed; those of the last hour may be another writer's."""
    for folder in folders:
        with suppress(OSError):  # another job removes it as well
            if time.time() - folder.stat().st_mtime > 3600:
                shutil.rmtree(folder)
