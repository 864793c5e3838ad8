"""Copies never predict each other: random labels stay at chance for any number of copies."""

import io
import json
import math

import numpy as np
import pytest
from PIL import Image

from rootstock.heads.linear import PROBE_L2
from rootstock.ports.runs import NullRunLogger
from rootstock.review.borders import Borders
from rootstock.review.build import build_review
from rootstock.tasks.dataset import Dataset
from rootstock.training.objectives import PATH_FILE, HeadObjective
from rootstock.training.tracked import Tracking
from tests.assess.test_build import profile
from tests.data.folders import photo
from tests.data.test_broken_folders import index

PHOTOS = 120
SIDES = (96, 72, 56)
CLASSES = ("a", "b", "c")
CHANCE = pytest.approx(1 / len(CLASSES), abs=0.15)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copies") / "images"
    random = np.random.default_rng(0)
    for number in range(PHOTOS):
        picture = Image.open(io.BytesIO(photo(number, side=96)))
        name = folder / str(random.choice(CLASSES))
        name.mkdir(parents=True, exist_ok=True)
        for side in SIDES:
            saved = picture.resize((side, side), Image.Resampling.LANCZOS)
            saved.save(name / f"{random.integers(10**9)}.png")
    return folder


@pytest.fixture(scope="module")
def dataset(root):
    return Dataset.of(index(root))


def pixels_of(root, rows):
    """Return small grey pictures float32[N,256]: copies of one photo are nearly equal."""
    pictures = [Image.open(root / row.path).convert("L").resize((16, 16)) for row in rows]
    return np.array([np.asarray(picture).ravel() for picture in pictures], np.float32)


def test_the_index_joins_the_three_sizes(dataset):
    sizes = np.unique([row.group for row in dataset.manifest.rows()], return_counts=True)[1]
    assert sizes.tolist() == [len(SIDES)] * PHOTOS


def test_probes_and_neighbours_promise_chance(root, dataset):
    rows = dataset.manifest.rows()
    features, targets = pixels_of(root, rows), dataset.targets_of(rows)
    score, _ = dataset.task.head().probe(features, targets, folds=5, l2=PROBE_L2, seed=0)
    assert score == CHANCE
    assert dataset.task.neighbour_score(features, targets) == CHANCE


def test_the_profile_promises_chance_at_every_depth(root, tmp_path):
    for probe in profile(root, tmp_path / "store").probes:
        assert probe.accuracy == CHANCE
        assert probe.knn == CHANCE


def test_the_learning_curve_promises_no_more(root, dataset, tmp_path):
    rows = dataset.manifest.rows()
    review = build_review(
        dataset,
        profile(root, tmp_path / "store"),
        rows=rows,
        features=pixels_of(root, rows),
        borders=(rows[:9], Borders(rows[:9]).read(root)),
        target_accuracy=None,
        folds=5,
        seed=0,
    )
    assert max(point.accuracy for point in review.feasibility.measured) < 0.55
    # Random labels are doubted; with copies in training they would all look right.
    assert len(review.suspects) > 30


def test_strength_of_head_is_chosen_on_unseen_photos(root, dataset, tmp_path):
    files = {}
    for split in ("train", "val"):
        files[split] = tmp_path / f"{split}.npy"
        np.save(files[split], pixels_of(root, dataset.manifest.rows(split)).astype(np.float16))
    objective = HeadObjective(
        train_features={"last": files["train"]},
        val_features={"last": files["val"]},
        task=dataset.task,
        train_targets=dataset.targets("train"),
        val_targets=dataset.targets("val"),
        weighting="none",
        tracking=Tracking(NullRunLogger(), ""),
    )
    objective({"tap": "last", "strengths": [0.001, 0.1, 10.0]}, tmp_path, lambda *_: None)
    path = json.loads((tmp_path / PATH_FILE).read_text())["path"]
    assert min(row["cv_log_loss"] for row in path) > 0.98 * math.log(len(CLASSES))
