"""Append lines to a file from several processes: whole, or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from rootstock.errors import ArtifactError


def append_text(path: Path, text: str, *, header: str) -> None:
    """Append ``text``, whole lines, with the line ``header`` before it if the file is new.

    After an incomplete last line the new lines start on a new one. One process writes at a time;
    on a file system without locks there is no waiting.
    Raises:
        ArtifactError: the file cannot be written; it is unchanged.
    """
    try:
        with path.open("a+b") as file:
            with suppress(ImportError, OSError):
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX)
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(-1, os.SEEK_END)
                begin = "" if file.read(1) == b"\n" else "\n"
            else:
                begin = f"{header}\n"
            try:
                file.write((begin + text).encode())
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):
                    os.truncate(path, size)
                raise
    except OSError as error:
        raise ArtifactError(
            f"{path} cannot be written: {error.strerror or error}",
            hint="free some disk space or check the folder's permissions; nothing was added",
        ) from None
