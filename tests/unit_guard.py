"""Fail a unit test that starts a server, Ray, DVC or MLflow: such a test is an integration test.

`make test-fast` runs the tests without a marker. They stay fast and need no sockets, because no
test without the marker `integration` may start one of these.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest

LIBRARIES = {"dvc", "mlflow", "ray"}
PROGRAMS = {"dvc", "mlflow", "ray", "raylet", "postgres", "pg_ctl", "caddy"}
MODULES = {"services.inference", "mlflow", "dvc", "ray.scripts.scripts"}

_unit_test = ""


def watch(item: pytest.Item | None) -> None:
    """Set the test that runs now; ``None`` if no test runs or it may start servers."""
    global _unit_test
    allowed = item is None or item.get_closest_marker("integration")
    _unit_test = "" if allowed else item.nodeid


def find_server(event: str, arguments: tuple[Any, ...]) -> str:
    """Return what an interpreter's audit event starts, or an empty string."""
    if event == "socket.bind" and isinstance(arguments[1], tuple):
        return f"a server at {arguments[1]}"
    if event == "sqlite3.connect" and "mlflow" in os.path.basename(str(arguments[0])):
        return f"MLflow's database {arguments[0]}"
    if event == "import" and arguments[0].partition(".")[0] in LIBRARIES:
        return f"the library {arguments[0]}"
    if event == "subprocess.Popen":
        words = [os.fsdecode(word) for word in arguments[1]]
        module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
        if os.path.basename(words[0]) in PROGRAMS or module in MODULES:
            return " ".join(words[:4])
    return ""


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _unit_test and (server := find_server(event, arguments)):
        pytest.fail(f"{_unit_test} has no marker `integration`, but starts {server}")


sys.addaudithook(_audit)
