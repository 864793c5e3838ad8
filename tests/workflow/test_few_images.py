"""Training finishes with any data that the index accepts, down to three images per class."""

import json

import pytest

from rootstock.config.paths import Paths
from rootstock.errors import DataError
from rootstock.model.predictor import Predictor
from rootstock.workflow.index import index_images
from tests.data.folders import write_classes
from tests.folder_registry import FolderRegistry
from tests.workflow.test_run import configure, go

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("duplicated", [False, True])
@pytest.mark.parametrize(
    "counts",
    [
        {"a": 3, "b": 3},
        {"a": 3, "b": 3, "c": 3, "d": 3, "e": 3},
        {"rare": 3, "usual": 200},
    ],
    ids=["two of three", "five of three", "three and two hundred"],
)
def test_the_smallest_classes_end_in_a_registered_model(tmp_path, counts, duplicated):
    data = write_classes(tmp_path / "images", counts)
    if duplicated:  # one group per class: copies of one picture
        rare = data / min(counts, key=counts.get)
        first, *others = sorted(rare.iterdir())
        for other in others:
            other.write_bytes(first.read_bytes())
    out = tmp_path / "out"
    bundle = go(configure(data, "train.l2_grid=[0.001, 0.1, 10.0]"), out, FolderRegistry(tmp_path))
    answer = Predictor(bundle).predict([next(data.rglob("*.png")).read_bytes()])[0]
    assert answer.label in counts
    assert json.loads(Paths(out).metrics.read_text())["n_test"] >= 1


@pytest.mark.parametrize(
    "strategy", ["early_features", "partial_finetune", "probe_then_finetune", "full_finetune"]
)
def test_two_classes_of_three_images_take_every_strategy(tmp_path, strategy):
    data = write_classes(tmp_path / "images", {"a": 3, "b": 3})
    bundle = go(configure(data, f"plan.strategy={strategy}"), tmp_path / "out")
    assert bundle.strategy == strategy


@pytest.mark.parametrize("pictures", [1, 2])
def test_index_rejects_copies_that_empty_a_split(tmp_path, pictures):
    data = write_classes(tmp_path / "images", {"a": 4, "b": 4})
    for name in "ab":
        files = sorted((data / name).iterdir())
        for number, file in enumerate(files):
            file.write_bytes(files[number % pictures].read_bytes())
    with pytest.raises(DataError, match="split `val`"):
        index_images(configure(data), Paths(tmp_path / "out"))
