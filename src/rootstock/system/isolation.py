"""A process without network access, if the system allows it."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from pathlib import Path

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_NO_NEW_PRIVS = 38
"""Constants of unshare(2) and prctl(2), Linux."""


def leave_network() -> None:
    """Move this process into a network namespace without interfaces, and forbid new rights.

    Open sockets stay open. Linux allows this with CAP_SYS_ADMIN or in a user namespace, which many
    containers forbid, and not in a process with several threads. If it is not allowed, nothing
    happens: see `shares_network`.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(AttributeError, OSError):
        system = ctypes.CDLL(None)
        system.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if system.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
            system.unshare(_CLONE_NEWNET)


def shares_network(pid: int) -> bool:
    """Return whether another process has this one's network; True if that is unknown."""
    try:
        other, own = (Path(f"/proc/{one}/ns/net").readlink() for one in (pid, "self"))
    except OSError:
        return True
    return other == own
