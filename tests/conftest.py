"""Fixtures for all tests: seeds, no telemetry, and the shared image sets if they exist."""

import os
import random
import sys
import tarfile
from pathlib import Path

# Before NumPy and torch are imported: there are as many test processes as processors, and
# waiting threads take a hundred times as long as the work of a tiny network.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The handlers of gRPC at a fork can end the new process; gRPC reads this when it is imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import numpy as np
import pytest

from rootstock.config.paths import Paths
from tests import unit_guard

SHARED = Path(__file__).parents[2] / "shared"


LONG_ROOMS = (
    "workflow/test_dvc.py",
    "integrations/ray",
    "integrations",
    "workflow",
    "service",
    "tools",
    "backbones",
)
"""Rooms of tests/ whose files take longest, in the order in which they should begin."""


def pytest_collection_modifyitems(items):
    """Run long files first: if short ones run last, no process has to wait for a long one."""
    tests = Path(__file__).parent

    def rank(item):
        path = item.path.relative_to(tests).as_posix()
        return next((i for i, room in enumerate(LONG_ROOMS) if path.startswith(room)), 99)

    items.sort(key=rank)


def pytest_sessionfinish():
    """Remove shared files; xdist workers do not run exit handlers."""
    if bundles := sys.modules.get("tests.bundles"):
        bundles.remove_folders()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    unit_guard.watch(item)
    try:
        return (yield)
    finally:
        unit_guard.watch(None)


@pytest.fixture(autouse=True)
def _seeds_fixed():
    random.seed(0)
    np.random.seed(0)


@pytest.fixture(autouse=True)
def _nothing_inherited(monkeypatch):
    """Clear variables, so that tests set servers and caches."""
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session", autouse=True)
def _one_pace(tmp_path_factory):
    """Measure this machine's pace once for all projects, because it takes seconds."""
    folder = tmp_path_factory.mktemp("paces")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Paths, "paces", folder)
        yield


@pytest.fixture(scope="session")
def shared_data(tmp_path_factory):
    """Unpack one of the real image sets next to the project; skip if it is missing."""
    unpacked: dict[str, Path] = {}

    def unpack(name: str) -> Path:
        found = sorted(SHARED.glob(f"data/{name}.tar*"))
        if not found:
            pytest.skip(f"the image set {name} is not in {SHARED / 'data'}")
        if name not in unpacked:
            target = tmp_path_factory.mktemp(name)
            with tarfile.open(found[0]) as archive:
                archive.extractall(target, filter="data")
            unpacked[name] = next(path for path in target.iterdir() if path.is_dir())
        return unpacked[name]

    return unpack


@pytest.fixture(scope="session")
def shared_weights():
    """Return the path of real ImageNet weights next to the project; skip if they are missing."""
    path = SHARED / "backbones/mobilenetv2_100.in1k.safetensors"
    if not path.exists():
        pytest.skip(f"the weights {path.name} are not in {path.parent}")
    return path
