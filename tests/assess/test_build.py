from collections import Counter

import pytest

from rootstock.assess.build import build_profile, sample_rows
from rootstock.assess.profile import DatasetProfile
from rootstock.features.store.store import FeatureStore
from rootstock.tasks.dataset import Dataset
from tests.bundles import tiny_backbone
from tests.data.folders import write_classes
from tests.data.test_broken_folders import index

THRESHOLDS = {"small_below": 1000, "small_per_class_below": 10, "large_from": 20_000}


@pytest.fixture
def root(tmp_path):
    return write_classes(tmp_path / "images", {"a": 24, "b": 12})


def profile(root, store, **changes) -> DatasetProfile:
    return build_profile(
        Dataset.of(index(root)),
        root=root,
        backbone=tiny_backbone(),
        store=FeatureStore(store),
        **(
            {
                "thresholds": THRESHOLDS,
                "similar_from": 0.5,
                "sample": 500,
                "folds": 3,
                "batch_size": 16,
                "seed": 0,
            }
            | changes
        ),
    )


def test_a_profile_counts_and_probes_every_tap(root, tmp_path):
    found = profile(root, tmp_path / "store")
    assert found.size_class == "small"
    assert found.n_train == sum(found.train_per_class.values())
    assert [probe.tap for probe in found.probes] == tiny_backbone().tap_names
    assert found.short_side_quantiles == (48,) * 5
    assert found.backbone.gflop_per_megapixel > 0


def test_the_same_data_give_the_same_profile_bit_for_bit(root, tmp_path):
    first = profile(root, tmp_path / "one").model_dump_json()
    assert profile(root, tmp_path / "two").model_dump_json() == first


def test_a_profile_survives_the_disk(root, tmp_path):
    found = profile(root, tmp_path / "store")
    found.write(tmp_path / "profile.json")
    assert DatasetProfile.read(tmp_path / "profile.json") == found


def test_a_sample_keeps_the_shares_of_the_classes(root):
    rows = index(root, val_fraction=0.0, test_fraction=0.0).rows()
    chosen = sample_rows(rows, 12)
    assert [sum(row.target == label for row in chosen) for label in "ab"] == [8, 4]
    assert sample_rows(rows, 100) == rows


def test_many_classes_are_probed_however_few_images_a_sample_has(tmp_path):
    write_classes(tmp_path / "images", {f"{number:03}": 4 for number in range(40)})
    manifest = index(tmp_path / "images", val_fraction=0.0, test_fraction=0.0)
    counts = Counter(row.target for row in sample_rows(manifest.rows(), 20))
    assert counts == {f"{number:03}": 3 for number in range(40)}
    found = profile(tmp_path / "images", tmp_path / "store", sample=20)
    assert min(probe.n_images for probe in found.probes) > 40


def test_the_images_a_sample_takes_do_not_depend_on_their_names(root):
    rows = index(root, val_fraction=0.0, test_fraction=0.0).rows()
    chosen = {row.sha256 for row in sample_rows(rows, 12)}
    for path in list(root.rglob("*.png")):
        path.rename(path.with_name(f"z{path.name}"))
    renamed = index(root, val_fraction=0.0, test_fraction=0.0).rows()
    assert {row.sha256 for row in sample_rows(renamed, 12)} == chosen


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "similar"), [("ants_bees", True), ("flowers12", True), ("sign_digits", False),
                          ("brain_mri", False)]
)  # fmt: skip
def test_real_sets_are_told_apart(name, similar, shared_data, shared_weights, tmp_path):
    from rootstock.backbones.load import load_backbone

    root = shared_data(name)
    found = build_profile(
        Dataset.of(index(root, workers=2)),
        root=root,
        backbone=load_backbone(str(shared_weights), ""),
        store=FeatureStore(tmp_path),
        thresholds=THRESHOLDS,
        similar_from=0.5,
        sample=200,
        folds=3,
        batch_size=32,
        seed=0,
    )
    assert found.similarity.similar is similar
