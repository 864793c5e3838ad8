"""Write files whole or not at all."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rootstock.errors import ArtifactError

LEFTOVER_SECONDS = 60.0
"""A younger temporary file may belong to another process that is writing."""
_SYSTEM_ERROR = re.compile(r"(?:os error|[Ee]rrno:?) (\d+)")


class _Tree(dict[str, Any]):
    """A JSON object from a file; a missing key is an `ArtifactError`."""

    def __init__(self, tree: dict[str, Any], path: Path, hint: str) -> None:
        super().__init__(tree)
        self._path, self._hint = path, hint

    def __missing__(self, key: str) -> Any:
        raise ArtifactError(f"{self._path} has no `{key}`", hint=self._hint)


@contextmanager
def write_atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; it is renamed to ``path`` on success.

    On an error the temporary file is removed and ``path`` is unchanged. The file gets the
    permissions of any new file, because some libraries write files only for the owner.

    Raises:
        ArtifactError: the file cannot be written, for example because the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = stat.S_IMODE(temporary.stat().st_mode)
        yield temporary
        temporary.chmod(mode)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except ArtifactError:
        raise
    except Exception as error:
        number = _system_error(error)
        if number is None:
            raise
        raise ArtifactError(
            f"{path} cannot be written: {os.strerror(number) if number else error}",
            hint=f"there is a folder of this name: move {path} away, then run again"
            if path.is_dir()
            else "free some disk space or check the folder's permissions, then run again",
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def remove_leftovers(path: Path) -> None:
    """Remove temporary files of ``path`` that killed writers have left, a minute or more ago."""
    oldest = time.time() - LEFTOVER_SECONDS
    for left in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 8}.tmp"):
        with suppress(OSError):
            if left.stat().st_mtime < oldest:
                left.unlink()


def _system_error(error: Exception) -> int | None:
    """Return the system's error number for a file that could not be written; None otherwise.

    Libraries in Rust and C++ (safetensors, Arrow, ONNX) have it only in the text of their errors.
    """
    if isinstance(error, OSError):
        return error.errno or 0
    found = _SYSTEM_ERROR.search(str(error))
    return int(found[1]) if found else None


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented UTF-8 JSON; keys keep their order."""
    with write_atomic(path) as temporary:
        temporary.write_text(
            json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
            encoding="utf-8",
        )


def read_json(path: Path, *, made_by: str) -> dict[str, Any]:
    """Read a JSON object that the stage ``made_by`` wrote.

    Raises:
        ArtifactError: the file is missing, or is not a JSON object; also later, for a key that
            it does not have.
    """
    hint = f"run the stage `{made_by}` again"
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing", hint=hint) from None
    except OSError as error:
        raise ArtifactError(
            f"{path} cannot be read: {error.strerror or error}",
            hint=f"move it away, then {hint}" if path.is_dir() else hint,
        ) from None
    except (RecursionError, ValueError) as error:
        raise ArtifactError(f"{path} is not valid JSON: {error}", hint=hint) from None
    if not isinstance(value, dict):
        raise ArtifactError(f"{path} must contain a JSON object", hint=hint)
    return _Tree(value, path, hint)


def explain_format(found: Any, known: int, *, path: Path, again: str) -> tuple[str, str] | None:
    """Return message and hint if a file's format version is unsupported, otherwise None.

    ``again`` says how to create the file again with this version of Rootstock.
    """
    if found == known:
        return None
    newer = isinstance(found, int) and found > known
    message = f"{path} has format_version {found!r}, but this version of Rootstock reads {known}"
    if newer:
        return f"{message}: a newer version wrote it", f"upgrade Rootstock, or {again}"
    return f"{message}: an older version wrote it, or it is damaged", again


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
