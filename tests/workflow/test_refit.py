"""A head is fitted again to corrected labels; the pipeline's artifacts do not change."""

import hashlib
import shutil

import numpy as np
import pytest

from rootstock.config.paths import Paths
from rootstock.data.label_corrections import (
    Correction,
    append_corrections,
    locate_corrections,
    stamp_time,
)
from rootstock.errors import BundleError
from rootstock.model.head_layers import HeadLayers
from rootstock.model.predictor import Predictor
from rootstock.ports.runs import NullRunLogger
from rootstock.registry.champion import CHAMPION, find_alias
from rootstock.tasks.dataset import read_targets
from rootstock.training.training_job import TrainingJob
from rootstock.workflow.project import Project
from rootstock.workflow.refit import refit_head
from rootstock.workflow.register import register_model
from tests.data.folders import write_classes
from tests.folder_registry import FolderRegistry
from tests.workflow.test_run import configure, go

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", params=["linear_probe", "full_finetune"])
def finished(tmp_path_factory, request):
    """A project that was trained by this strategy."""
    folder = tmp_path_factory.mktemp(request.param)
    data = write_classes(folder / "insects", {"ants": 24, "bees": 24, "wasps": 24})
    config = configure(data, f"plan.strategy={request.param}", "train.epochs=1")
    go(config, folder / "out", FolderRegistry(folder / "registry"))
    return folder


@pytest.fixture
def project(finished, tmp_path):
    """A copy of the project, for tests that change it."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    config = configure(tmp_path / "insects", "train.epochs=1")
    return Project(config, Paths(tmp_path / "out"))


def correct(project, count):
    """Relabel this many ants of the training split as bees."""
    rows = [row for row in project.manifest.rows("train") if row.target == "ants"][:count]
    append_corrections(
        locate_corrections(project.root),
        [Correction(row.sha256, "ants", "bees", "me", stamp_time()) for row in rows],
    )


def refit(project):
    return refit_head(project.config, project.paths)


def digests(paths):
    files = [file for file in paths.root.rglob("*") if file.is_file()]
    inside = [file for file in files if ".rootstock" not in file.parts]
    return {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in inside}


def decide(predictor, images):
    return predictor.infer([predictor.prepare(image) for image in images]).decisions


def test_refit_learns_corrections_and_leaves_artifacts(project):
    before = digests(project.paths)
    correct(project, 12)
    done = refit(project)
    assert done.n_corrected == 12
    assert digests(project.paths) == before
    old, new = Predictor(project.paths.model), Predictor(done.bundle)
    assert new.bundle.strategy == old.bundle.strategy
    assert new.bundle.facts.int8 is None  # it takes longer to make than the head
    assert new.bundle.lineage["data_hash"] != old.bundle.lineage["data_hash"]
    assert done.comparison is not None
    assert done.comparison.n == len(project.manifest.rows("test"))
    ants = [row for row in project.manifest.rows("train") if row.target == "ants"]
    images = [(project.root / row.path).read_bytes() for row in ants]
    bees = old.names.index("bees")
    assert decide(new, images)[:, bees].mean() > decide(old, images)[:, bees].mean()


def test_refit_metrics_are_those_of_the_served_model(project):
    """The features are those that the network computes, fine-tuned or not."""
    first, again = refit(project), refit(project)
    assert first.metrics == again.metrics
    predictor = Predictor(first.bundle)
    rows = project.manifest.rows("test")
    decisions = decide(predictor, [(project.root / row.path).read_bytes() for row in rows])
    found = predictor.task.metrics(decisions, read_targets(predictor.task, rows, predictor.names))
    assert found["log_loss"] == pytest.approx(first.metrics["log_loss"], abs=1e-3)


def test_known_penalty_gives_the_head_of_a_whole_search(project, monkeypatch):
    correct(project, 3)
    quick = refit(project)
    monkeypatch.setattr(TrainingJob, "can_judge_final_head", lambda _: False)
    whole = refit(project)
    assert quick.metrics == whole.metrics
    assert quick.bundle.facts.calibration == whole.bundle.facts.calibration
    heads = [HeadLayers.read(one.bundle.weights_path) for one in (quick, whole)]
    for part in ("weights", "biases"):
        (first,), (second,) = (getattr(head, part) for head in heads)
        assert np.array_equal(first, second)
    assert quick.bundle.metrics["val_accuracy"] == pytest.approx(
        whole.bundle.metrics["val_accuracy"], abs=0.1
    )


def test_a_refit_meets_the_champion_at_the_gate(project, tmp_path):
    registry, runs = FolderRegistry(tmp_path / "fresh"), NullRunLogger()
    register_model(project.config, project.paths, runs=runs, registry=registry)
    correct(project, 3)
    done = refit(project)
    outcome = register_model(done.config, done.paths, runs=runs, registry=registry)
    assert outcome["registered"]
    assert outcome["version"] == "2"
    champion = find_alias(registry, "rootstock", CHAMPION)
    assert champion is not None
    assert (champion.version == "2") == outcome["comparison"]["promote"]


def test_a_project_without_a_model_says_so(tmp_path):
    data = write_classes(tmp_path / "insects", {"ants": 8, "bees": 8})
    with pytest.raises(BundleError, match="there is no model directory"):
        refit_head(configure(data), Paths(tmp_path / "out"))
