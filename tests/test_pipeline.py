"""`dvc repro` for real, in a copy of the project with a small data set."""

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import boto3
import mlflow
import pytest
from moto.server import ThreadedMotoServer

from tests.bundles import tiny_backbone
from tests.data.folders import photo, write_classes

ROOT = Path(__file__).parents[1]
STAGES = ["index", "assess", "plan", "features", "train", "evaluate", "register"]
KNOWN = ("NAME", "EMAIL")
RESULTS = ["manifest.parquet", "profile.json", "plan.json", "features.json"]

pytestmark = pytest.mark.integration

PARAMS = """
seed: 0
data: {{root: data/raw}}
backbone: {{weights: {weights}}}
assess: {{probe_folds: 2}}
plan: {{strategy: {strategy}}}
features: {{store: .rootstock/features, batch_size: 16}}
train: {{epochs: 1, learning_rates: [0.001], l2_grid: [0.1], class_weight: {weight}}}
search: {{engine: sequential}}
registry: {{name: rootstock}}
"""


def environment(root: Path) -> dict[str, str]:
    """What a shell in the project has, once its environment is active."""
    people = {f"GIT_{who}_{what}": "team@x" for who in ("AUTHOR", "COMMITTER") for what in KNOWN}
    return (
        os.environ
        | people
        | {
            "PYTHONPATH": str(root / "src"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
    )


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
        self.environment = environment(root)
        write_classes(root / "data/raw", {"ants": 16, "bees": 16})
        self.run("git", "init", "--quiet")
        self.run("dvc", "add", "--quiet", "data/raw")
        self.commit()

    def set(self, *, weights: str, strategy: str = "linear_probe", weight: str = "none") -> None:
        text = PARAMS.format(weights=weights, strategy=strategy, weight=weight)
        (self.root / "params.yaml").write_text(text)

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=self.root, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def commit(self) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--allow-empty", "--message", "as it is now")

    def share(self, folder: Path, remote: str, endpoint: str = "") -> "Project":
        """A colleague's project: git's clone, and what DVC's remote has of it."""
        self.run("dvc", "remote", "add", "--force", "--default", "team", remote)
        if endpoint:
            self.run("dvc", "remote", "modify", "team", "endpointurl", endpoint)
        self.environment = environment(self.root)  # with the keys of this test's remote
        self.run("dvc", "push", "--quiet")
        self.commit()
        other = copy.copy(self)
        other.root = folder / "clone"
        other.environment = environment(other.root)
        self.run("git", "clone", "--quiet", ".", str(other.root))
        other.run("dvc", "pull", "--quiet")
        return other

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


@pytest.fixture
def s3(monkeypatch):
    """An S3 server on this machine, its bucket, and the keys that it takes."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="team")
    yield f"http://{host}:{port}"
    server.stop()


def test_git_keeps_no_image_and_no_result(project):
    kept = project.run("git", "ls-files").splitlines()
    assert "data/raw.dvc" in kept
    assert not [name for name in kept if name.startswith(("data/raw/", "artifacts/", "reports/"))]


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_a_colleague_s_clone_has_the_model_without_training(project, tmp_path, kind, request):
    if kind == "s3":
        colleague = project.share(tmp_path, "s3://team/images", request.getfixturevalue("s3"))
    else:
        colleague = project.share(tmp_path, str(tmp_path / "remote"))
    assert colleague.repro() == []
    assert colleague.results() == project.results()
    model = colleague.root / "artifacts/model"
    image = next((colleague.root / "data/raw/bees").iterdir())
    command = ["rootstock", "predict", str(image), "--model", str(model), "--json"]
    assert json.loads(colleague.run(*command)) == json.loads(project.run(*command))
    assert colleague.run("git", "status", "--porcelain") == ""


@pytest.mark.slow
def test_a_colleague_trains_on_though_the_feature_store_was_not_shared(project, tmp_path):
    colleague = project.share(tmp_path, str(tmp_path / "remote"))
    colleague.set(weights=tiny_backbone().card.weights, weight="balanced")
    assert {"features", "train"} & set(colleague.repro()) == {"train"}
    assert colleague.segments()


def test_an_experiment_stands_beside_what_it_changed(project):
    """`dvc exp show` and MLflow tell it apart by the same name, and by what it changed."""
    change = "train.l2_grid=[10.0]"
    project.run("dvc", "exp", "run", "--quiet", "--name", "steeper", "-S", change)
    shown = json.loads(project.run("dvc", "exp", "show", "--json"))
    committed = shown[1]
    (tried,) = (one["revs"][0] for one in committed["experiments"] if one["name"] == "steeper")
    grids = [
        row["data"]["params"]["params.yaml"]["data"]["train"]["l2_grid"]
        for row in (committed, tried)
    ]
    assert grids == [[0.1], [10.0]]
    assert "accuracy" in tried["data"]["metrics"]["reports/metrics.json"]["data"]
    client = mlflow.MlflowClient(f"sqlite:///{project.root / 'mlflow.db'}")
    (experiment,) = (one for one in client.search_experiments() if one.name == "rootstock")
    found = client.search_runs(
        [experiment.experiment_id], "tags.`rootstock.experiment` = 'steeper'"
    )
    (run,) = (one for one in found if "mlflow.parentRunId" not in one.data.tags)
    assert run.info.run_name == "steeper: linear_probe"
    assert run.data.params["train.l2_grid"] == "[10.0]"
    assert "test_accuracy" in run.data.metrics
    project.run("git", "checkout", "--quiet", "--", ".")
    project.run("dvc", "checkout", "--quiet")


def test_another_strategy_leaves_index_and_assess_alone(project):
    project.set(weights=tiny_backbone().card.weights, strategy="early_features")
    assert project.repro() == STAGES[2:]
    registration = json.loads((project.root / "artifacts/registration.json").read_text())
    assert "against champion 1" in registration["reason"]


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
