"""Divert a process's standard output, including compiled code and child processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import TextIO

STDOUT = 1


@contextmanager
def divert_stdout(to: TextIO) -> Iterator[TextIO]:
    """Send what is written to standard output to the file ``to``; yield the true standard output.

    It works for Python's `print`, for compiled code, and for processes started inside the block.
    """
    true = sys.stdout
    true.flush()
    try:
        shares_descriptor = true.fileno() == STDOUT
    except (OSError, ValueError):  # not a file, as in a notebook
        shares_descriptor = False
    kept = None
    with suppress(OSError):  # a service may run without a standard output
        kept = os.dup(STDOUT)
        os.dup2(to.fileno(), STDOUT)
    if shares_descriptor and kept is not None:
        true = os.fdopen(os.dup(kept), "w", encoding=true.encoding, errors=true.errors)
    try:
        with redirect_stdout(to):
            yield true
    finally:
        true.flush()
        to.flush()
        if shares_descriptor and kept is not None:
            true.close()
        if kept is not None:
            os.dup2(kept, STDOUT)
            os.close(kept)
