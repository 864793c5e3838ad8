"""Read whole files of limited size, but never a pipe or a device."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

from rootstock.data.limits import DecodeLimits
from rootstock.errors import ImageError


class ReadFile(NamedTuple):
    """``status`` is the status of the file before it was read."""

    content: bytes
    status: os.stat_result


def read_file(path: Path | str, limits: DecodeLimits) -> ReadFile:
    """Return the content of an image file, unless it is too large.

    Raises:
        ImageError: ``unreadable``, ``too-large`` or ``empty``.
    """
    try:
        # System calls: Python's files and pathlib take twice as long for a small file.
        handle = _open_file(path)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise ImageError("unreadable", "not a regular file")
            if status.st_size > limits.max_bytes:
                raise _too_large(limits)
            size = status.st_size + 1
            content = os.read(handle, size)
            # One read may return only a part.
            while len(content) < size and (more := os.read(handle, size - len(content))):
                content += more
        finally:
            os.close(handle)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ImageError("unreadable", f"the file cannot be read: {why}") from None
    check_bytes(content, limits)
    return ReadFile(content, status)


def _open_file(path: Path | str) -> int:
    try:
        # Open a pipe without waiting for its writer.
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except BlockingIOError:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - a path may be text
            raise
        return os.open(path, os.O_RDONLY)  # another process held a lease, and now releases it


def check_bytes(content: bytes, limits: DecodeLimits) -> None:
    """Refuse empty and too large content.

    Raises:
        ImageError: ``empty`` or ``too-large``.
    """
    if not content:
        raise ImageError("empty", "the file is empty")
    if len(content) > limits.max_bytes:
        raise _too_large(limits)


def _too_large(limits: DecodeLimits) -> ImageError:
    return ImageError("too-large", f"the file has more than {limits.max_bytes:,} bytes")
