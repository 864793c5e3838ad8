"""A head that is trained on int8 features is served on the int8 network that gave them."""

import json
import shutil

import numpy as np
import pytest

from rootstock.config.load import load_config
from rootstock.config.paths import Paths
from rootstock.errors import BackboneError, BundleError, ConfigError
from rootstock.features import rounded
from rootstock.features.reader import FeatureReader
from rootstock.features.store.store import FeatureStore
from rootstock.model.bundle import read_bundle
from rootstock.model.engine import Way
from rootstock.model.predictor import Predictor
from rootstock.model.twin import describe_twin
from rootstock.workflow.calibration import calibration_images
from rootstock.workflow.project import Project
from rootstock.workflow.refit import refit_head
from tests.bundles import tiny_backbone
from tests.data.folders import write_classes
from tests.workflow.test_run import configure, go

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("int8")
    data = write_classes(folder / "insects", {"ants": 24, "bees": 24, "wasps": 24})
    go(configured(data), folder / "out")
    return folder


def configured(data, *overrides):
    return configure(data, "features.precision=int8", "plan.strategy=linear_probe", *overrides)


@pytest.fixture
def project(trained, tmp_path):
    """A copy of the project, for tests that change it."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return Project(configured(tmp_path / "insects"), Paths(tmp_path / "out"))


def reader_of(project, *, int8):
    rows = project.manifest.rows("train")
    backbone = tiny_backbone()
    return FeatureReader(
        project.root,
        backbone,
        read_bundle(project.paths.model).preprocess,
        FeatureStore(project.store),
        calibration=calibration_images(rows) if int8 else (),
    )


def test_head_on_int8_features_is_served_in_int8(project):
    bundle = read_bundle(project.paths.model)
    assert bundle.is_int8
    predictor = Predictor(bundle)
    assert predictor.way == Way("onnx", "int8")
    rows = project.manifest.rows("val")
    stored = reader_of(project, int8=True).read(rows, bundle.facts.tap)
    served = predictor.infer(
        [predictor.prepare((project.root / row.path).read_bytes()) for row in rows]
    )
    np.testing.assert_array_equal(served.features.astype(np.float16), stored)
    index = json.loads(project.paths.features.read_text())
    assert index["precision"] == "int8"


def test_stores_keep_both_precisions_apart(project):
    rows = project.manifest.rows("val")
    tap = read_bundle(project.paths.model).facts.tap
    exact, int8 = (reader_of(project, int8=one) for one in (False, True))
    assert exact.space.folder != int8.space.folder
    exact.extract(rows, [tap])
    one, other = (np.float32(each.read(rows, tap)) for each in (exact, int8))
    assert 0 < np.abs(one - other).max() < 0.5 * np.abs(one).max()


def test_features_of_a_tap_do_not_depend_on_other_taps(project):
    rows = project.manifest.rows("test")
    reader = reader_of(project, int8=True)
    reader.extract(rows, ["block1", "last"])
    together = reader.read(rows, "last")
    shutil.rmtree(reader.space.folder / "last")
    reader.extract(rows, ["last"])
    np.testing.assert_array_equal(reader.read(rows, "last"), together)


def test_network_that_int8_changes_too_much_is_refused(project, monkeypatch):
    reader = reader_of(project, int8=True)
    monkeypatch.setattr(rounded, "LEAST_LIKENESS", 0.99999)
    with pytest.raises(BackboneError, match=r"too unlike .* cosine .* at least 0.99999"):
        reader.extract(project.manifest.rows("test"), ["block1"])


def test_model_in_int8_says_so_and_runs_in_no_other_engine(project):
    bundle = read_bundle(project.paths.model)
    assert describe_twin(bundle.facts.int8).startswith("The model runs in int8, because")
    with pytest.raises(BundleError, match="'torch' does not run int8"):
        Predictor(bundle, engine="torch")
    metrics = json.loads(project.paths.metrics.read_text())
    assert not [name for name in metrics if name.startswith("int8_")]


def test_fitted_again_the_head_stays_on_int8(project):
    done = refit_head(project.config, project.paths)
    assert done.bundle.is_int8
    assert Predictor(done.bundle).precision == "int8"


def test_plan_that_fine_tunes_uses_float32(tmp_path, capsys):
    data = write_classes(tmp_path / "insects", {"ants": 24, "bees": 24})
    go(configured(data, "plan.strategy=full_finetune"), tmp_path / "out")
    assert "features: in float32, because the plan fine-tunes" in capsys.readouterr().err
    assert json.loads(Paths(tmp_path / "out").features.read_text())["precision"] == "float32"
    assert not read_bundle(tmp_path / "out/artifacts/model").is_int8


@pytest.mark.parametrize(
    ("other", "message"),
    [("export.int8=never", "needs export.int8: auto"), ("train.views=flip", "train.views: one")],
)
def test_settings_that_contradict_int8_features_are_refused(other, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, overrides=["features.precision=int8", other])


def test_calibration_images_rarely_change_when_a_set_grows(project):
    rows = project.manifest.rows()
    first = calibration_images(rows)
    assert len(first) == 40
    assert calibration_images([*reversed(rows)]) == first
    grown = calibration_images(rows[:-1])
    assert len({row.sha256 for row in grown} & {row.sha256 for row in first}) >= 39
