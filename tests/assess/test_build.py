from collections import Counter

import pytest

from rootstock.assess import build
from rootstock.assess.build import build_profile, sample_rows
from rootstock.assess.profile import DatasetProfile
from rootstock.features import forward, loading
from rootstock.features.reader import FeatureReader, SharedPass
from rootstock.features.store.store import FeatureStore
from rootstock.tasks.dataset import Dataset
from tests.bundles import tiny_backbone
from tests.data.folders import write_classes
from tests.data.test_broken_folders import index

THRESHOLDS = {"small_below": 1000, "small_per_class_below": 10, "large_from": 20_000}


@pytest.fixture
def root(tmp_path):
    return write_classes(tmp_path / "images", {"a": 24, "b": 12})


def reader_of(root, store, backbone=None) -> FeatureReader:
    backbone = backbone or tiny_backbone()
    return FeatureReader(root, backbone, backbone.card.preprocess(), FeatureStore(store))


def profile(root, store, **changes) -> DatasetProfile:
    return build_profile(
        Dataset.of(index(root)),
        reader_of(root, store),
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


def test_same_data_give_same_profile_bit_for_bit(root, tmp_path):
    first = profile(root, tmp_path / "one").model_dump_json()
    assert profile(root, tmp_path / "two").model_dump_json() == first


def alone(reader, rows, wanted, taps, *, batch_size):
    """A substitute for `share`: images are decoded and forwarded only for the caller."""
    batches = loading.prepared_batches(rows, reader.root, reader.preprocess, batch_size=batch_size)
    return SharedPass((pixels for _, pixels in batches), forwarded=False)


@pytest.mark.parametrize("engine", ["torch", "translated"])
@pytest.mark.parametrize("odd", ["", "copy", "stored"])
def test_one_pass_over_sample_gives_what_two_gave(root, tmp_path, monkeypatch, engine, odd):
    """This also holds if feature batches are not those of the similarity."""
    if engine == "translated":
        monkeypatch.setattr(forward, "TRANSLATE_FROM_GFLOP", 0.0)
    if odd == "copy":
        image = min(row.path for row in index(root).rows("train"))
        (root / f"{image}-copy.png").write_bytes((root / image).read_bytes())
    train = index(root).rows("train")

    def measure(store):
        reader = reader_of(root, tmp_path / store)
        if odd == "stored":
            reader.extract(train[3:5], ["block2"], batch_size=16)
        found = profile(root, tmp_path / store, batch_size=10)
        stored = [reader.read(train, tap).tobytes() for tap in reader.backbone.tap_names]
        return found.model_dump_json(), stored

    shared = measure("shared")
    monkeypatch.setattr(build.FeatureReader, "share", alone)
    assert measure("alone") == shared


def test_an_image_of_the_sample_is_decoded_once(root, tmp_path, monkeypatch):
    decoded = Counter()

    def count(row, *arguments, real=loading.read_pixels, **options):
        decoded[row.path] += 1
        return real(row, *arguments, **options)

    monkeypatch.setattr(loading, "read_pixels", count)
    profile(root, tmp_path / "store")
    assert decoded == {row.path: 1 for row in index(root).rows("train")}


def test_a_profile_survives_the_disk(root, tmp_path):
    found = profile(root, tmp_path / "store")
    found.write(tmp_path / "profile.json")
    assert DatasetProfile.read(tmp_path / "profile.json") == found


def test_a_sample_keeps_the_shares_of_the_classes(root):
    rows = index(root, val_fraction=0.0, test_fraction=0.0).rows()
    chosen = sample_rows(rows, 12)
    assert [sum(row.target == label for row in chosen) for label in "ab"] == [8, 4]
    assert sample_rows(rows, 100) == rows


def test_many_classes_are_probed_with_few_images(tmp_path):
    write_classes(tmp_path / "images", {f"{number:03}": 4 for number in range(40)})
    manifest = index(tmp_path / "images", val_fraction=0.0, test_fraction=0.0)
    counts = Counter(row.target for row in sample_rows(manifest.rows(), 20))
    assert counts == {f"{number:03}": 3 for number in range(40)}
    found = profile(tmp_path / "images", tmp_path / "store", sample=20)
    assert min(probe.n_images for probe in found.probes) > 40


def test_report_sample_has_only_classes_that_fit(tmp_path):
    write_classes(tmp_path / "images", {f"{number:03}": 4 for number in range(40)})
    rows = index(tmp_path / "images", val_fraction=0.0, test_fraction=0.0).rows()
    chosen = sample_rows(rows, 20, every_stratum=False)
    assert sorted(Counter(row.target for row in chosen).values()) == [3] * 6
    assert sample_rows(rows[::-1], 20, every_stratum=False) == chosen
    assert len(sample_rows(rows, 120, every_stratum=False)) == 120


def test_sampled_images_do_not_depend_on_names(root):
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
        reader_of(root, tmp_path, load_backbone(str(shared_weights), "")),
        thresholds=THRESHOLDS,
        similar_from=0.5,
        sample=200,
        folds=3,
        batch_size=32,
        seed=0,
    )
    assert found.similarity.similar is similar
