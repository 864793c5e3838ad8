"""Real `dvc repro` runs in a copy of the project with a small data set."""

import json
import shutil

import pytest

from rootstock.config.paths import Paths
from rootstock.data.manifest import Manifest
from rootstock.integrations.connect import tracking_uri
from rootstock.integrations.mlflow.registry import MlflowRegistry
from tests.bundles import tiny_backbone
from tests.data.folders import photo
from tests.projects import STAGES, Project

pytestmark = pytest.mark.integration

ALWAYS = ["always changed"]
"""What `dvc status` says of a stage that is run each time."""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """One project whose tests run in order: each continues from the last."""
    return Project(tmp_path_factory.mktemp("project"))


def test_the_first_run_runs_every_stage(project):
    assert project.repro() == STAGES
    metrics = json.loads((project.root / "reports/metrics.json").read_text())
    assert metrics["n_test"] > 0
    registration = json.loads((project.root / "artifacts/registration.json").read_text())
    assert registration["alias"] == "champion"


def test_a_second_run_only_looks_into_the_registry(project):
    assert project.repro() == ["register"]
    assert [entry.version for entry in versions(project)] == ["1"]


def versions(project):
    """Return the versions in the project's registry."""
    return MlflowRegistry(tracking_uri(Paths(project.root))).versions("rootstock")


def stale(project, *modules):
    """Return the stages that DVC would run if these modules of Rootstock changed."""
    files = [project.root / "src/rootstock" / module for module in modules]
    sources = [file.read_text() for file in files]
    for file, source in zip(files, sources, strict=True):
        file.write_text(f"{source}\nCHANGED = True\n")
    status = json.loads(project.run("dvc", "status", "--json"))
    for file, source in zip(files, sources, strict=True):
        file.write_text(source)
    return [stage for stage in STAGES if status.get(stage, ALWAYS) != ALWAYS]


def test_a_changed_module_makes_stale_what_imports_it(project):
    assert stale(project, "metrics.py") == STAGES  # each of them knows the task
    assert stale(project, "registry/champion.py") == ["register"]


def test_another_service_or_adapter_makes_no_stage_stale(project):
    changed = ["service/settings.py", "cli/main.py", "integrations/connect.py", "client.py"]
    assert stale(project, *changed) == []


@pytest.fixture
def s3(monkeypatch):
    """An S3 server on this machine, its bucket, and the keys that it takes."""
    import boto3
    from moto.server import ThreadedMotoServer

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
def test_colleague_s_clone_has_model_without_training(project, tmp_path, kind, request):
    if kind == "s3":
        colleague = project.share(tmp_path, "s3://team/images", request.getfixturevalue("s3"))
    else:
        colleague = project.share(tmp_path, str(tmp_path / "remote"))
    assert colleague.repro() == ["register"]
    assert colleague.repro() == ["register"]
    assert [entry.aliases for entry in versions(colleague)] == [("champion",)]
    assert colleague.results() == project.results()
    model = colleague.root / "artifacts/model"
    image = next((colleague.root / "data/raw/bees").iterdir())
    command = ["rootstock", "predict", str(image), "--model", str(model), "--json"]
    assert json.loads(colleague.run(*command)) == json.loads(project.run(*command))
    assert colleague.run("git", "status", "--porcelain") == ""


@pytest.mark.slow
def test_colleague_trains_without_shared_features(project, tmp_path):
    colleague = project.share(tmp_path, str(tmp_path / "remote"))
    colleague.set(weights=tiny_backbone().card.weights, weight="balanced")
    assert {"features", "train"} & set(colleague.repro()) == {"train"}
    assert colleague.segments()


def test_experiment_is_listed_with_its_change(project):
    """`dvc exp show` and MLflow show the same name, and what it changed."""
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
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project.root / 'mlflow.db'}")
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


def test_temporary_experiment_meets_project_champion(project):
    before = len(versions(project))
    project.run(
        "dvc", "exp", "run", "--quiet", "--temp", "--name", "aside", "-S", "train.l2_grid=[3.0]"
    )
    known = versions(project)
    assert len(known) == before + 1
    assert (known[0].aliases, known[-1].aliases) == (("champion",), ("challenger",))
    project.run("dvc", "exp", "apply", "--quiet", "aside")
    assert project.repro() == ["register"]
    registration = json.loads((project.root / "artifacts/registration.json").read_text())
    again = f"Already registered as version {known[-1].version} (challenger)"
    assert registration["reason"].startswith(again)
    assert len(versions(project)) == before + 1
    project.run("git", "checkout", "--quiet", "--", ".")
    project.run("dvc", "checkout", "--quiet")


def test_other_strategy_does_not_rerun_index_and_assess(project):
    project.set(weights=tiny_backbone().card.weights, strategy="early_features")
    assert project.repro() == STAGES[2:]
    registration = json.loads((project.root / "artifacts/registration.json").read_text())
    assert "against champion 1" in registration["reason"]


def test_new_images_keep_old_features_and_splits(project):
    before, old = project.segments(), splits(project)
    for number in range(40):
        (project.root / "data/raw/ants" / f"new-{number}.png").write_bytes(photo(900 + number))
    assert project.repro() == STAGES
    after = project.segments()
    assert before.items() <= after.items()
    assert old.items() <= splits(project).items()


def splits(project):
    """Return the split of each image."""
    manifest = Manifest.read(project.root / "artifacts/manifest.parquet")
    return {row.path: row.split for row in manifest.rows()}


@pytest.mark.parametrize(
    "stages",
    # Each costs a run or more, so only two stages with valuable work are killed in one test.
    [("features", "train"), *(pytest.param((s,), marks=pytest.mark.slow) for s in STAGES)],
    ids=" and ".join,
)
def test_run_killed_in_stage_ends_with_same_results(project, stages):
    expected, segments = project.results(), project.segments()
    project.run("git", "clean", "--quiet", "-fdx", "artifacts", "reports")
    shutil.rmtree(project.root / ".dvc/cache", ignore_errors=True)
    (project.root / "dvc.lock").unlink()
    for stage in stages:
        project.kill_in(stage)
    project.repro()
    assert project.results() == expected
    assert project.segments() == segments
