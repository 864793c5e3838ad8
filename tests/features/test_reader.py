import numpy as np
import pytest
import torch

from rootstock.backbones import to_onnx
from rootstock.data.manifest import ImageRow
from rootstock.errors import ArtifactError, BundleError, DataError
from rootstock.features import forward, reader, writer
from rootstock.features import loading as feed
from rootstock.features.reader import FeatureReader
from rootstock.features.store.store import FeatureStore
from rootstock.runtimes import engines as runtimes
from tests.bundles import tiny_backbone
from tests.data.folders import photo, write_classes
from tests.data.test_broken_folders import index

TAPS = ["block1", "last"]


def translators():
    return [engine for engine in runtimes.installed_engines() if engine != "torch"]


@pytest.fixture
def data(tmp_path):
    """Eleven images in three classes, a backbone, its preprocessing, and an empty store."""
    root = write_classes(tmp_path / "images", {"a": 4, "b": 4, "c": 3})
    backbone = tiny_backbone()
    return {
        "rows": index(root, val_fraction=0.0, test_fraction=0.0).rows(),
        "root": root,
        "backbone": backbone,
        "preprocess": backbone.card.preprocess(),
        "store": FeatureStore(tmp_path / "store"),
    }


def reader_of(data):
    return FeatureReader(data["root"], data["backbone"], data["preprocess"], data["store"])


def run(data, *, rows=None, taps=TAPS, **options):
    return reader_of(data).extract(rows or data["rows"], taps, **({"batch_size": 4} | options))


def features(data, tap="last"):
    return reader_of(data).read(data["rows"], tap)


def test_a_second_run_computes_nothing(data):
    assert run(data).computed == 11
    again = run(data)
    assert (again.computed, again.reused) == (0, 11)


def test_ten_new_images_compute_ten(data):
    run(data)
    for number in range(10):
        (data["root"] / "a" / f"new-{number}.png").write_bytes(photo(500 + number))
    rows = index(data["root"], val_fraction=0.0, test_fraction=0.0).rows()
    report = run(data, rows=rows)
    assert (report.computed, report.reused) == (10, 11)


def test_a_copy_is_computed_once(data):
    (data["root"] / "a" / "copy.png").write_bytes(photo(0))
    rows = index(data["root"], val_fraction=0.0, test_fraction=0.0).rows()
    assert len(rows) == 12
    assert run(data, rows=rows).computed == 11


def test_stored_features_are_those_of_the_backbone(data):
    run(data)
    images = np.stack(
        [data["preprocess"].apply(feed.read_pixels(r, data["root"])) for r in data["rows"]]
    )
    expected = data["backbone"].features(torch.from_numpy(images), TAPS)
    for tap in TAPS:
        np.testing.assert_allclose(features(data, tap), expected[tap], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("taps", [["last"], ["last", "block1"], ["block2", "block1"]])
def test_a_translated_network_gives_the_same_features(data, monkeypatch, tmp_path, taps):
    run(data, taps=taps)
    monkeypatch.setattr(forward, "TRANSLATE_FROM_GFLOP", 0.0)
    other = data | {"store": FeatureStore(tmp_path / "other")}
    assert passes_of(other, taps).variants[0].engine == "onnx"
    run(other, taps=taps)
    for tap in taps:
        np.testing.assert_allclose(features(other, tap), features(data, tap), rtol=2e-3, atol=2e-3)


def test_what_cannot_be_traced_is_translated_another_way(data, monkeypatch):
    def refuse(*arguments):
        raise RuntimeError("no TorchScript")

    monkeypatch.setattr(to_onnx, "_trace", refuse)
    monkeypatch.setattr(forward, "TRANSLATE_FROM_GFLOP", 0.0)
    # Compared with PyTorch's features before it is used.
    assert passes_of(data, ["last"]).variants[0].engine == "onnx"


@pytest.mark.parametrize("wrong", translators())
def test_an_engine_that_answers_otherwise_is_not_used(data, monkeypatch, caplog, wrong):
    monkeypatch.setattr(forward, "TRANSLATE_FROM_GFLOP", 0.0)

    def open_features(engine, path, *, cores):
        right = runtimes.open_features(engine, path, cores=cores)
        return (lambda images: right(images) * 1.01) if engine == wrong else right

    monkeypatch.setattr(forward, "open_features", open_features)
    variants = passes_of(data, ["last"]).variants
    right = [engine for engine in runtimes.installed_engines() if engine != wrong]
    assert [variant.engine for variant in variants] == right
    assert f"not computed with {wrong}: its features differ by 0.01 of the largest" in caplog.text


def test_engine_that_cannot_read_network_is_not_used(data, monkeypatch, caplog):
    def refuse(engine, path, *, cores):
        raise BundleError(f"{engine} cannot load it")

    monkeypatch.setattr(forward, "TRANSLATE_FROM_GFLOP", 0.0)
    monkeypatch.setattr(forward, "open_features", refuse)
    assert passes_of(data, ["last"]).variants[0].engine == "torch"
    assert "not computed with onnx: onnx cannot load it" in caplog.text


@pytest.mark.parametrize("engine", runtimes.installed_engines())
def test_stored_features_agree_whatever_computes_them(data, monkeypatch, tmp_path, engine):
    run(data)
    monkeypatch.setattr(forward, "TRANSLATE_FROM_GFLOP", 0.0)
    monkeypatch.setattr(reader, "choose_pass", lambda ways, **_: next(
        way for way in ways.variants if way.engine == engine
    ))  # fmt: skip
    other = data | {"store": FeatureStore(tmp_path / "other")}
    monkeypatch.setattr(reader, "MEASURE_FROM_IMAGES", 1)
    assert run(other, measure=True).engine == engine
    for tap in TAPS:
        found, expected = (features(one, tap).astype(np.float32) for one in (other, data))
        assert np.abs(found - expected).max() <= 2 * forward.TOLERANCE * np.abs(expected).max()


def test_few_images_are_not_worth_a_measurement(data, monkeypatch):
    monkeypatch.setattr(reader, "choose_pass", None)
    assert run(data, measure=True, n_images=reader.MEASURE_FROM_IMAGES - 1).engine == "torch"


def test_parts_leave_merging_to_whoever_has_them_all(data, monkeypatch):
    merged = []
    monkeypatch.setattr(reader, "compact", merged.append)
    run(data, n_images=11)
    assert merged == []
    run(data)
    assert len(merged) == 1


def test_what_the_plan_needs_is_computed_unmeasured(data, monkeypatch):
    monkeypatch.setattr(reader, "choose_pass", None)
    assert run(data).engine == "torch"
    assert run(data).engine == ""


def passes_of(data, taps):
    probe = feed.read_prepared(data["rows"][:2], data["root"], data["preprocess"])
    return forward.open_passes(
        data["backbone"], data["preprocess"], taps, n_images=11, probe=lambda: probe,
        folder=data["store"].root / ".engines", every=True,
    )  # fmt: skip


@pytest.mark.parametrize("processes", [False, True])
def test_batches_come_in_order_and_whole(data, processes):
    arguments = (data["rows"], data["root"], data["preprocess"])
    batches = list(feed.prepared_batches(*arguments, batch_size=4, processes=processes))
    assert [row for rows, _ in batches for row in rows] == data["rows"]
    pixels = np.concatenate([found for _, found in batches])
    np.testing.assert_array_equal(pixels, feed.read_prepared(*arguments))


@pytest.mark.parametrize("processes", [False, True])
def test_process_that_decodes_says_which_image_has_changed(data, processes):
    (data["root"] / data["rows"][9].path).unlink()
    arguments = (data["rows"], data["root"], data["preprocess"])
    with pytest.raises(DataError, match=f"{data['rows'][9].path} can no longer be read") as found:
        list(feed.prepared_batches(*arguments, batch_size=4, processes=processes))
    assert found.value.hint == "run the stage `index` again"


def test_only_the_missing_tap_is_computed(data):
    run(data, taps=["last"])
    before = features(data).tobytes()
    assert run(data).computed == 11
    assert features(data).tobytes() == before
    assert run(data).computed == 0


def test_a_damaged_row_is_computed_again(data):
    run(data)
    good = features(data)
    segment = next(data["store"].root.rglob("last/*.safetensors"))
    content = bytearray(segment.read_bytes())
    content[content.index(good[5].tobytes()) + 3] ^= 64
    segment.write_bytes(content)
    assert run(data).computed == 1
    np.testing.assert_allclose(features(data), good, rtol=2e-3, atol=2e-3)


def test_an_interrupted_extraction_keeps_what_was_stored(data, monkeypatch):
    monkeypatch.setattr(writer, "SEGMENT_ROWS", 4)
    seen = []

    def break_later(row, root, *, _read=feed.read_pixels, **named):
        seen.append(row)
        if row.path == data["rows"][-1].path:
            raise KeyboardInterrupt
        return _read(row, root, **named)

    monkeypatch.setattr(feed, "read_pixels", break_later)
    with pytest.raises(KeyboardInterrupt):
        run(data)
    monkeypatch.undo()
    report = run(data)
    assert report.reused >= 4
    assert report.computed + report.reused == 11


def test_features_too_large_for_half_precision_stay_finite(data, monkeypatch):
    huge = {"last": torch.full((4, 3), 1e9)}
    backbone = data["backbone"]
    monkeypatch.setattr(backbone, "features", lambda images, taps: {
        tap: value[: len(images)] for tap, value in huge.items()
    })  # fmt: skip
    run(data, taps=["last"])
    assert np.isfinite(features(data)).all()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "can no longer be read since it was indexed"),
        (lambda path: path.write_bytes(photo(999)), "has changed since it was indexed"),
    ],
)
def test_an_image_that_changed_is_named(data, damage, message):
    damage(data["root"] / data["rows"][2].path)
    with pytest.raises(DataError, match=f"{data['rows'][2].path} {message}"):
        run(data)


def test_the_index_fits_its_inputs_only(data, tmp_path):
    run(data)
    index = tmp_path / "features.json"
    reader_of(data).write_index(index, data["rows"], TAPS)
    reader_of(data).check_index(index, data["rows"])
    fewer: list[ImageRow] = data["rows"][1:]
    with pytest.raises(ArtifactError, match="made for other inputs: keys_sha256 differs"):
        reader_of(data).check_index(index, fewer)


def test_the_index_is_the_same_bit_for_bit(data, tmp_path):
    run(data)
    for name in ("one", "two"):
        reader_of(data).write_index(tmp_path / name, data["rows"], TAPS)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_saved_features_are_those_that_are_read(data, tmp_path, monkeypatch):
    run(data)
    monkeypatch.setattr(reader, "_PART_ROWS", 4)
    with (tmp_path / "features.npy").open("wb") as file:
        reader_of(data).save(file, data["rows"], "block1+last")
    saved = np.load(tmp_path / "features.npy", mmap_mode="r")
    np.testing.assert_array_equal(saved, features(data, "block1+last"))
