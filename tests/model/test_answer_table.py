"""Tables of answers: the same answers as one by one, and stopped runs that continue."""

import contextlib
import csv

import numpy as np
import pyarrow.parquet
import pytest

from rootstock.errors import ArtifactError
from rootstock.model import answer_table
from rootstock.model.answer_table import AnswerTable
from rootstock.model.predictor import Predictor
from rootstock.tasks.task import AnswerOptions
from tests.bundles import jpeg, tiny_bundle

OPTIONS = AnswerOptions()


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Seven files in parts of three; the second one is unusable."""
    monkeypatch.setattr(answer_table, "PART_IMAGES", 3)
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(7):
        (folder / f"{number}.jpg").write_bytes(jpeg(number))
    (folder / "1.jpg").write_bytes(b"nonsense")
    return sorted(folder.iterdir())


def write(path, images, *, options=OPTIONS, embeddings=False, spreader=None):
    table = AnswerTable(tiny_bundle(), path, options, embeddings=embeddings)
    return table.write([image.name for image in images], images, spreader=spreader)


class Stops:
    """Process ``parts`` parts, then die."""

    def __init__(self, parts):
        self.parts = parts

    def spread(self, work, parts):
        return contextlib.nullcontext(self._run(work, parts))

    def _run(self, work, parts):
        for number, part in enumerate(parts):
            if number == self.parts:
                raise KeyboardInterrupt
            yield work(part)


class Counts(Stops):
    """Record the requested parts."""

    def __init__(self):
        super().__init__(None)
        self.asked = []

    def _run(self, work, parts):
        for part in parts:
            self.asked.append(part.names)
            yield work(part)


def test_table_equals_answers_given_one_by_one(tmp_path, images):
    counts = write(tmp_path / "answers.parquet", images, embeddings=True)
    assert (counts.images, counts.failed) == (7, 1)
    rows = pyarrow.parquet.read_table(tmp_path / "answers.parquet").to_pylist()
    predictor = Predictor(tiny_bundle())
    assert [row["path"] for row in rows] == [image.name for image in images]
    for row, image in zip(rows, images, strict=True):
        (answer,) = predictor.predict([image.read_bytes()])
        if answer.error:
            assert row["label"] is None
            assert row["embedding"] is None
            assert (row["error"], row["reason"]) == (answer.error.detail, "not-an-image")
            continue
        assert row["error"] is None
        assert row["label"] == answer.label
        assert row["probability"] == pytest.approx(answer.probability, abs=1e-5)
        features = predictor.infer([predictor.prepare(image.read_bytes())]).features[0]
        np.testing.assert_allclose(row["embedding"], features, atol=1e-4)
    assert not (tmp_path / "answers.parquet.parts").exists()


def test_csv_and_parquet_hold_the_same(tmp_path, images):
    options = AnswerOptions(coverage=0.9)
    write(tmp_path / "a.parquet", images, options=options)
    write(tmp_path / "a.csv", images, options=options)
    rows = pyarrow.parquet.read_table(tmp_path / "a.parquet").to_pylist()
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        texts = list(csv.DictReader(file))
    for row, text in zip(rows, texts, strict=True):
        assert (row["label"] or "") == text["label"]
        assert (row["labels"] or "") == text["labels"]
    assert texts[0]["labels"]


def test_stopped_run_continues(tmp_path, images):
    path = tmp_path / "answers.parquet"
    with pytest.raises(KeyboardInterrupt):
        write(path, images, spreader=Stops(2))
    assert not path.exists()
    counting = Counts()
    write(path, images, spreader=counting)
    assert counting.asked == [("6.jpg",)]
    whole = tmp_path / "whole.parquet"
    write(whole, images)
    assert pyarrow.parquet.read_table(path).equals(pyarrow.parquet.read_table(whole))


@pytest.mark.parametrize("change", ["image", "options", "damage"])
def test_parts_of_another_run_are_not_used(tmp_path, images, change):
    path, options = tmp_path / "answers.parquet", OPTIONS
    with pytest.raises(KeyboardInterrupt):
        write(path, images, spreader=Stops(2))
    if change == "image":
        images[0].write_bytes(jpeg(20))
    elif change == "options":
        options = OPTIONS._replace(coverage=0.9)
    else:
        next((tmp_path / "answers.parquet.parts").iterdir()).write_bytes(b"torn")
    counting = Counts()
    write(path, images, options=options, spreader=counting)
    asked = {name for part in counting.asked for name in part}
    assert "6.jpg" in asked
    assert len(asked) > 1


@pytest.mark.parametrize(
    ("name", "embeddings", "message"),
    [
        ("answers.json", False, "must end in .csv or .parquet"),
        ("answers.csv", True, "cannot be written to a CSV file"),
    ],
)
def test_unwritable_table_is_rejected_before_work(tmp_path, name, embeddings, message):
    with pytest.raises(ArtifactError, match=message):
        AnswerTable(tiny_bundle(), tmp_path / name, OPTIONS, embeddings=embeddings)


def test_existing_table_stays_until_new_one_is_whole(tmp_path, images):
    path = tmp_path / "answers.csv"
    path.write_text("mine")
    with pytest.raises(KeyboardInterrupt):
        write(path, images, spreader=Stops(1))
    assert path.read_text() == "mine"
