"""The facts about a run that every result file contains."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from rootstock.system.cpu import processor_name, usable_cores


def describe_run(command: str) -> dict[str, Any]:
    """Return command, machine, load, Python version, date, and commit of this run."""
    cores = usable_cores()
    return {
        "command": command,
        "machine": f"{processor_name()}, {cores} core{'s' if cores != 1 else ''}",
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit_of(Path(__file__).parents[1]),
    }


def commit_of(checkout: Path) -> str:
    """Return the commit of a checkout, marked if files have changed since."""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
