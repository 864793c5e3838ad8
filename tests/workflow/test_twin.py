"""The int8 twin of trained models: measured on validation images, whatever the task is."""

import json

import numpy as np
import pytest

from rootstock.config.paths import Paths
from rootstock.model.bundle import read_bundle
from rootstock.model.predictor import Predictor
from rootstock.workflow.project import Project
from tests.data.folders import write_classes
from tests.workflow.test_run import configure, go

pytestmark = pytest.mark.integration
COUNTS = {"ants": 24, "bees": 24, "wasps": 24}


def train(tmp_path, *overrides):
    data = write_classes(tmp_path / "insects", COUNTS)
    config = configure(data, *overrides)
    go(config, tmp_path / "out")
    return Project(config, Paths(tmp_path / "out")), read_bundle(tmp_path / "out/artifacts/model")


@pytest.mark.parametrize("strategy", ["linear_probe", "full_finetune"])
def test_trained_model_has_twin_unless_never_is_set(tmp_path, strategy):
    # The network of the tests has random weights: int8 may lose anything.
    project, bundle = train(tmp_path / "a", f"plan.strategy={strategy}", "export.max_loss=1")
    figures = bundle.facts.int8.figures
    assert bundle.has_twin
    assert figures.n_images == len(project.manifest.rows("val"))
    assert 0 <= figures.agreement <= 1
    twin = Predictor(bundle, precision="int8")
    assert twin.golden_difference < 1
    if bundle.facts.fitted_to == "train":
        recorded = bundle.facts.metrics["val_accuracy"]
        assert figures.score_float32 == pytest.approx(recorded, abs=1e-6)
    _, without = train(tmp_path / "b", f"plan.strategy={strategy}", "export.int8=never")
    assert without.facts.int8 is None
    assert not without.twin_path.exists()


def test_twin_is_judged_by_head_that_has_not_seen_images(tmp_path):
    project, bundle = train(tmp_path, "plan.strategy=linear_probe", "export.max_loss=1")
    assert bundle.facts.fitted_to == "train+val"
    training = json.loads(project.paths.training.read_text())
    figures = bundle.facts.int8.figures
    assert figures.score_float32 == pytest.approx(training["metrics"]["val_accuracy"], abs=1e-6)
    assert figures.loss_float32 == pytest.approx(training["metrics"]["val_log_loss"], rel=1e-3)
    assert np.isfinite(figures.loss)
