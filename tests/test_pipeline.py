"""`dvc repro` for real, in a copy of the project with a small data set."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.bundles import tiny_backbone
from tests.data.folders import photo, write_classes

ROOT = Path(__file__).parents[1]
STAGES = ["index", "assess", "plan", "features", "train", "evaluate", "register"]
RESULTS = ["manifest.parquet", "profile.json", "plan.json", "features.json"]

pytestmark = pytest.mark.integration

PARAMS = """
seed: 0
data: {{root: data/raw}}
backbone: {{weights: {weights}}}
assess: {{probe_folds: 2}}
plan: {{strategy: linear_probe}}
features: {{store: .rootstock/features, batch_size: 16}}
train: {{epochs: 1, learning_rates: [0.001], l2_grid: [0.1]}}
search: {{engine: sequential}}
registry: {{name: rootstock}}
"""


class Project:
    """A copy of the project with its own data; `repro` runs DVC in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("pipelines", "src", ".dvc"):
            ignored = shutil.ignore_patterns("__pycache__", "cache", "tmp", "*.egg-info")
            shutil.copytree(ROOT / name, root / name, ignore=ignored)
        for name in ("dvc.yaml", ".gitignore", ".dvcignore"):
            shutil.copy(ROOT / name, root / name)
        self.set(weights=tiny_backbone().card.weights)
        write_classes(root / "data/raw", {"ants": 16, "bees": 16})
        self.run("git", "init", "--quiet")
        self.environment = os.environ | {
            "PYTHONPATH": str(root / "src"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    def set(self, *, weights: str, strategy: str = "linear_probe") -> None:
        text = PARAMS.format(weights=weights).replace("linear_probe", strategy)
        (self.root / "params.yaml").write_text(text)

    def run(self, *command: str) -> None:
        subprocess.run(command, cwd=self.root, check=True)

    def start(self) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "dvc", "repro"],
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def repro(self) -> list[str]:
        """Run `dvc repro`; returns the stages that ran."""
        output, _ = (process := self.start()).communicate(timeout=240)
        assert process.returncode == 0, output
        return [name for name in STAGES if f"Running stage '{name}'" in output]

    def kill_in(self, stage: str) -> None:
        """Start `dvc repro` and kill it with all its children as soon as ``stage`` runs."""
        process = self.start()
        assert process.stdout is not None
        for line in process.stdout:
            if f"Running stage '{stage}'" in line:
                time.sleep(1.5)
                break
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def results(self) -> dict[str, bytes]:
        return {name: (self.root / "artifacts" / name).read_bytes() for name in RESULTS}

    def segments(self) -> dict[str, float]:
        store = self.root / ".rootstock/features"
        return {path.name: path.stat().st_mtime for path in store.rglob("*.safetensors")}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """One project whose tests run in their order: each goes on from the last."""
    return Project(tmp_path_factory.mktemp("project"))


def test_the_first_run_runs_every_stage(project):
    assert project.repro() == STAGES
    metrics = json.loads((project.root / "reports/metrics.json").read_text())
    assert metrics["n_test"] > 0
    registration = json.loads((project.root / "artifacts/registration.json").read_text())
    assert registration["alias"] == "champion"


def test_a_second_run_does_nothing(project):
    assert project.repro() == []


def test_another_strategy_leaves_index_and_assess_alone(project):
    project.set(weights=tiny_backbone().card.weights, strategy="early_features")
    assert project.repro() == STAGES[2:]
    registration = json.loads((project.root / "artifacts/registration.json").read_text())
    assert "Version 2 against champion 1" in registration["reason"]


def test_new_images_keep_the_features_of_the_old_ones(project):
    before = project.segments()
    for number in range(4):
        (project.root / "data/raw/ants" / f"new-{number}.png").write_bytes(photo(900 + number))
    assert project.repro() == STAGES
    after = project.segments()
    assert before.items() <= after.items()


@pytest.mark.parametrize(
    "stage",
    # Each costs two whole runs; the two stages with work worth keeping stand for the others.
    [s if s in ("features", "train") else pytest.param(s, marks=pytest.mark.slow) for s in STAGES],
)
def test_a_run_killed_in_a_stage_ends_with_the_same_results(project, stage):
    expected, segments = project.results(), project.segments()
    project.run("git", "clean", "--quiet", "-fdx", "artifacts", "reports")
    shutil.rmtree(project.root / ".dvc/cache", ignore_errors=True)
    (project.root / "dvc.lock").unlink()
    project.kill_in(stage)
    project.repro()
    assert project.results() == expected
    assert project.segments() == segments
