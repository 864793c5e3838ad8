"""Images far from square: the part that a model sees, from the assessment to the answer."""

import io

import numpy as np
import pytest
from PIL import Image

from rootstock.assess.profile import DatasetProfile
from rootstock.config.paths import Paths
from rootstock.data.limits import DecodeLimits
from rootstock.model.predictor import Predictor
from rootstock.plan.transfer_plan import TransferPlan
from rootstock.ports.runs import NullRunLogger
from rootstock.ports.search import SequentialSearcher
from rootstock.service.inference.decode_worker import prepare, recipe_bytes
from rootstock.workflow.assess import assess_data
from rootstock.workflow.evaluate import evaluate_model
from rootstock.workflow.features import cache_features
from rootstock.workflow.index import index_images
from rootstock.workflow.plan import make_plan
from rootstock.workflow.train import train_model
from tests.data.folders import photo, write_classes
from tests.workflow.test_run import configure

pytestmark = pytest.mark.integration

COLOURS = {"red": (230, 20, 20), "green": (20, 200, 20)}


def wide_image(seed, label):
    """Return a PNG of 3 : 1 whose class is visible only in a patch at its right end."""
    blobs = np.asarray(Image.open(io.BytesIO(photo(seed, side=64))).convert("RGB"))
    pixels = np.concatenate([blobs, blobs[::-1], blobs], axis=1)
    pixels[12:52, 148:188] = COLOURS[label]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    root = tmp_path_factory.mktemp("wide")
    for number, label in enumerate(COLOURS):
        (root / "data" / label).mkdir(parents=True)
        for index in range(80):
            content = wide_image(1000 * number + index, label)
            (root / "data" / label / f"{index}.png").write_bytes(content)
    return root


def run(root, out, *overrides):
    config, paths = configure(root / "data", "plan.race=never", *overrides), Paths(out)
    index_images(config, paths)
    assess_data(config, paths)
    make_plan(config, paths, searcher=SequentialSearcher())
    cache_features(config, paths)
    bundle = train_model(config, paths, runs=NullRunLogger(), searcher=SequentialSearcher())
    return bundle, evaluate_model(config, paths, runs=NullRunLogger()).metrics["accuracy"]


def test_auto_sees_what_a_crop_cuts_off(wide, tmp_path):
    bundle, accuracy = run(wide, tmp_path / "auto")
    _, cropped = run(wide, tmp_path / "crop", "data.geometry=crop")
    assert accuracy > 0.95
    assert cropped < 0.75
    profile = DatasetProfile.read(Paths(tmp_path / "auto").profile)
    assert profile.aspect_ratio == 3.0
    assert profile.geometry in ("pad", "squash")
    assert [one.geometry for one in profile.geometry_probes] == ["crop", "pad", "squash"]
    plan = TransferPlan.read(Paths(tmp_path / "auto").plan)
    assert plan.geometry == profile.geometry == bundle.preprocess.geometry
    report = (tmp_path / "auto" / "reports" / "plan.md").read_text()
    assert f"| geometry | {plan.geometry} |" in report
    answers = Predictor(bundle).predict([wide_image(77, "red"), wide_image(78, "green")])
    assert [answer.text for answer in answers] == ["red", "green"]


@pytest.mark.parametrize("geometry", ["pad", "squash"])
def test_geometry_that_is_set_is_trained_and_served(wide, tmp_path, geometry):
    bundle, accuracy = run(wide, tmp_path / "out", f"data.geometry={geometry}")
    assert accuracy > 0.95
    assert DatasetProfile.read(Paths(tmp_path / "out").profile).geometry_probes == ()
    assert bundle.preprocess.geometry == geometry
    predictor, content = Predictor(bundle), wide_image(79, "red")
    recipe = recipe_bytes(bundle.preprocess, "one", DecodeLimits())
    served = np.frombuffer(prepare(recipe, content)[9:], np.uint8)  # after mark and upright size
    np.testing.assert_array_equal(served, predictor.prepare(content).ravel())


def test_images_that_are_nearly_square_cost_no_comparison(tmp_path, monkeypatch):
    config = configure(write_classes(tmp_path / "data", {"ants": 12, "bees": 12}))
    paths = Paths(tmp_path / "out")
    index_images(config, paths)
    monkeypatch.delattr("rootstock.workflow.assess.probe_geometries")
    profile = assess_data(config, paths)
    assert (profile.aspect_ratio, profile.geometry) == (1.0, "crop")
