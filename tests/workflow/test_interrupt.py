"""Ctrl-C during `dvc repro`: the signal reaches DVC, the stage, and all of its processes."""

import os
import signal
import time

import pytest

from tests.projects import Project

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("project"))
    project.set(weights="packaged", engine="ray")
    return project


@pytest.mark.parametrize(("stage", "seconds"), [("index", 0.5), ("assess", 6.0), ("train", 6.0)])
def test_interrupted_stage_ends_in_line_without_traceback(project, stage, seconds):
    process, lines = project.start(), []
    for line in process.stdout:
        lines.append(line)
        if f"Running stage '{stage}'" in line:
            time.sleep(seconds)
            os.killpg(process.pid, signal.SIGINT)
            break
    rest, _ = process.communicate(timeout=120)
    output = "".join(lines) + rest
    assert process.returncode
    assert "stopped; finished work is kept" in output
    assert "Traceback" not in output
    assert "KeyboardInterrupt" not in output
