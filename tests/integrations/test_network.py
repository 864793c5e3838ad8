"""No telemetry: strace watches each connection of a training run, a prediction, and Ray."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.bundles import tiny_backbone
from tests.data.folders import write_classes

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]
ADDRESS = re.compile(r'connect\(.*sin6?_port.*?"([^"]+)"')
LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
AT_HOME = {".ray", ".cache/matplotlib"}
"""Ray's key for its own processes, and an index of the machine's fonts."""
TRAIN = """
import sys
from pathlib import Path
from rootstock.cli.main import main

main(["train", "images", "--out", "run", *sys.argv[1:]])
image = str(next(Path("images/ants").iterdir()))
main(["predict", image, "--model", "run/artifacts/model"])
"""
RAY = """
import time
from rootstock.integrations.ray.cluster import ray_session

with ray_session(""):
    time.sleep(8)  # its dashboard asks, once it has come up
"""


@pytest.fixture
def connect(tmp_path):
    """Run code in a folder with a separate home; return the addresses it connected to."""
    home = tmp_path / "home"
    home.mkdir()

    def run(code, *options):
        trace = tmp_path / "trace"
        done = subprocess.run(
            ["strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=connect", "-o", str(trace)]
            + [sys.executable, "-c", code, *options],
            cwd=tmp_path,
            env=os.environ | {"HOME": str(home)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        files = [path.relative_to(home) for path in home.rglob("*") if path.is_file()]
        assert {path.parent.as_posix() for path in files} <= AT_HOME
        addresses = map(ADDRESS.search, trace.read_text().splitlines())
        return {found[1] for found in addresses if found} - LOOPBACK

    return run


def test_training_and_prediction_speak_to_loopback_only(connect, tmp_path):
    write_classes(tmp_path / "images", {"ants": 16, "bees": 16})
    settings = (
        "plan.strategy=linear_probe",
        f"backbone.weights={tiny_backbone().card.weights}",
        "search.engine=sequential",
    )
    assert connect(TRAIN, *(part for one in settings for part in ("--set", one))) == set()


def test_ray_asks_no_cloud_for_its_metadata(connect):
    assert connect(RAY) == set()


def test_a_connection_beyond_loopback_is_seen(connect):
    code = "import socket; s = socket.socket(); s.settimeout(1); s.connect_ex(('192.0.2.1', 9))"
    assert connect(code) == {"192.0.2.1"}
