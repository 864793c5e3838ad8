"""The whole pipeline, started from the page; its output is kept in a file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import Any

from rootstock.errors import ArtifactError
from rootstock.studio.pipeline import find_holder
from rootstock.studio.project import StudioProject

LOG = ".rootstock/studio-run.log"
SHOWN_LINES = 200


class PipelineRun:
    """Runs one `dvc repro` of the project, or `rootstock train` if there is no dvc.yaml."""

    def __init__(self, project: StudioProject) -> None:
        self._project = project
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def command(self) -> list[str]:
        """The command that brings the project up to date."""
        root = self._project.root
        if (root / "dvc.yaml").is_file():
            return [sys.executable, "-m", "dvc", "repro"]
        data = str(self._project.data.absolute())
        params = root / "params.yaml"
        given = ["--params", str(params)] if params.is_file() else []
        return [sys.executable, "-m", "rootstock", "train", data, "--out", str(root), *given]

    def describe(self) -> dict[str, Any]:
        """Return whether the run is active, how this studio's last run ended, and its output."""
        with self._lock:
            process = self._process
            code = None if process is None else process.poll()
        try:
            text = (self._project.root / LOG).read_text(encoding="utf-8", errors="replace")
        except OSError:
            text = ""
        return {
            "command": " ".join(self.command[2:4]),
            "running": process is not None and code is None,
            "code": code,
            "log": "\n".join(text.splitlines()[-SHOWN_LINES:]),
        }

    def start(self) -> dict[str, Any]:
        """Start a run, which continues if the studio ends.

        Raises:
            ArtifactError: Another run is already working on the project.
        """
        root = self._project.root
        with self._lock:
            working = self._process is not None and self._process.poll() is None
            if working or find_holder(root / ".rootstock/lock") is not None:
                raise ArtifactError(
                    "another run is already working on this project",
                    hint="wait until it ends, or stop it",
                )
            log = root / LOG
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("wb") as output:
                self._process = subprocess.Popen(
                    self.command,
                    cwd=root,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env=os.environ | {"PYTHONUNBUFFERED": "1"},
                )
        return self.describe()

    def stop(self) -> dict[str, Any]:
        """Stop the run that this studio started, like Ctrl-C; computed results are kept."""
        with self._lock:
            process = self._process
        if process is not None and process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        return self.describe()
