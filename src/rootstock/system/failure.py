"""The end of a command or stage in an error: a few lines, and an exit status."""

from __future__ import annotations

import errno
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from rootstock.errors import RootstockError, shorten
from rootstock.system.escape import escape_lines
from rootstock.system.progress import say

UNEXPECTED, INTERRUPTED = 70, 130
"""Exit statuses: EX_SOFTWARE of sysexits.h, and 128 + SIGINT as shells report it."""
STOPPED = "stopped; finished work is kept, and the same command continues from there"
TRACEBACK_CHARACTERS = 1_000_000
_PATH_ERRORS = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR)


@contextmanager
def exit_on_failure() -> Iterator[None]:
    """Turn an error into a message and an exit status: 1, 70 if unexpected, 130 for Ctrl-C.

    The traceback of an unexpected error is written to a file that only this user can read. An
    invalid path is not unexpected, because users enter paths.
    """
    try:
        yield
    except RootstockError as error:
        sys.exit(f"error: {escape_lines(str(error))}")
    except KeyboardInterrupt:
        say(STOPPED)
        sys.exit(INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - a user always gets a message
        if isinstance(error, OSError) and error.filename and error.errno in _PATH_ERRORS:
            name = shorten(str(error.filename), 300)
            sys.exit(
                f"error: {escape_lines(name)}: {os.strerror(error.errno)}\n"
                "  -> use another path: a name has at most 255 bytes, links must not form a "
                "circle, and only folders contain files"
            )
        say(describe_unexpected(error))
        sys.exit(UNEXPECTED)


def describe_unexpected(error: BaseException) -> str:
    """Write the traceback of ``error`` into a file; return a message that names it."""
    text = "".join(traceback.format_exception(error))
    first = f"{type(error).__name__}: {error}".partition("\n")[0]
    reason = escape_lines(shorten(first, 300))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="rootstock-error-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file:
            file.write(shorten(text, TRACEBACK_CHARACTERS))
    except OSError:  # the disk may be full: then print the traceback
        return f"error: unexpected {reason}\n{escape_lines(shorten(text))}"
    return (
        f"error: unexpected {reason}\n"
        f"  -> this is a bug of Rootstock or a fault of this machine; for a report, {file.name} "
        "has the traceback"
    )


def hush_interrupts() -> None:
    """Let Ctrl-C end this worker process without a traceback; its parent reports it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def install_hook() -> None:
    """Keep Ctrl-C from printing a traceback outside of `exit_on_failure`, as during imports."""
    default = sys.excepthook

    def report(kind: type[BaseException], error: BaseException, trace: object) -> None:
        if issubclass(kind, KeyboardInterrupt):
            say(STOPPED)
        else:
            default(kind, error, trace)  # type: ignore[arg-type]

    sys.excepthook = report
