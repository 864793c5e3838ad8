"""Files of other Rootstock versions: read as before, or rejected with a hint."""

import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rootstock.assess.profile import DatasetProfile
from rootstock.data.manifest import Manifest
from rootstock.errors import ArtifactError, BundleError
from rootstock.model.bundle import read_bundle
from rootstock.model.predictor import Predictor
from rootstock.plan.transfer_plan import TransferPlan

OLD = Path(__file__).parent / "bundles_old"


@pytest.fixture(params=sorted(path.name for path in OLD.glob("*.tar.xz")))
def old(request, tmp_path):
    """An unpacked model of an earlier Rootstock, images, and its answers at the time."""
    with tarfile.open(OLD / request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def test_an_old_model_answers_as_it_did(old):
    predictor = Predictor(old / "lenet5")
    predictor.check_golden()
    for told in json.loads((old / "answers.json").read_text()):
        (answer,) = predictor.predict([(old / told["image"]).read_bytes()], top_k=3, coverage=0.9)
        assert [one.label for one in answer.top] == [label for label, _ in told["top"]]
        assert [one.probability for one in answer.top] == pytest.approx(
            [p for _, p in told["top"]], abs=1e-4
        )
        assert answer.novelty == pytest.approx(told["novelty"], abs=1e-3)
        assert list(answer.labels) == told["labels"]


@pytest.mark.parametrize(
    ("version", "words"),
    [
        (3, r"a newer version wrote it\n.*upgrade Rootstock"),
        (0, r"an older version wrote it, or it is damaged\n.*dvc repro --force train"),
        (None, "has format_version None"),
    ],
)
def test_model_of_another_format_gives_a_hint(tmp_path, version, words):
    (tmp_path / "bundle.json").write_text(json.dumps({"format_version": version}))
    with pytest.raises(BundleError, match=words):
        read_bundle(tmp_path)


@pytest.mark.parametrize(("kind", "stage"), [(DatasetProfile, "assess"), (TransferPlan, "plan")])
def test_artifact_of_newer_version_gives_a_hint(tmp_path, kind, stage):
    (tmp_path / "new.json").write_text('{"format_version": 7, "more": 1}')
    message = rf"format_version 7, but this .* reads 1: a newer version(.|\n)*stage `{stage}`"
    with pytest.raises(ArtifactError, match=message):
        kind.read(tmp_path / "new.json")


def test_manifest_of_newer_version_gives_a_hint(tmp_path, monkeypatch):
    monkeypatch.setattr("rootstock.data.manifest.FORMAT_VERSION", 3)
    Manifest(()).write(tmp_path / "manifest.parquet")
    monkeypatch.undo()
    with pytest.raises(ArtifactError, match=r"a newer version wrote it(.|\n)*upgrade Rootstock"):
        Manifest.read(tmp_path / "manifest.parquet")


def test_manifest_of_format_1_has_one_class_per_image(tmp_path):
    names = [
        "path",
        "sha256",
        "bytes",
        "width",
        "height",
        "mode",
        "format",
        "label",
        "split",
        "group",
        "quarantine",
    ]
    rows = [
        ("ants/1.jpg", "a" * 64, 9, 48, 32, "RGB", "JPEG", "ants", "train", 0, ""),
        ("bees/1.jpg", "b" * 64, 8, 32, 48, "RGB", "PNG", "bees", "test", 1, ""),
        ("bees/2.jpg", "c" * 64, 0, 0, 0, "", "", "bees", "", 0, "empty"),
    ]
    header = {"format_version": 1, "warnings": ["odd"], "given_splits": ["test", "train"]}
    table = pa.table(dict(zip(names, zip(*rows, strict=True), strict=True)))
    pq.write_table(
        table.replace_schema_metadata({"rootstock": json.dumps(header)}), tmp_path / "old.parquet"
    )
    manifest = Manifest.read(tmp_path / "old.parquet")
    assert manifest.task == "single_label"
    assert [(row.target, row.stratum) for row in manifest.images] == [
        ("ants", "ants"),
        ("bees", "bees"),
        ("bees", "bees"),
    ]
    assert manifest.warnings == ("odd",)
    assert manifest.given_splits == ("test", "train")
    # Computed as in the Rootstock that wrote format 1: lineages of old models contain such hashes.
    digest = "4a7cd390104a133f59bf87c2d5ff3a5f320d782c4b57ac9bce2318d30ae7c1e7"
    assert manifest.content_hash == digest
