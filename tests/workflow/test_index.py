import json
import os
from functools import partial

import pytest

from rootstock.config.load import load_config
from rootstock.config.paths import Paths
from rootstock.data.label_corrections import Correction, append_corrections, stamp_time
from rootstock.errors import ArtifactError, DataError
from rootstock.plots import background as artist
from rootstock.workflow import index
from tests.data.folders import write_classes

PICTURES = ["classes.png", "contact_sheet.png", "sizes.png"]


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """Index 20 images; return the bytes of the pictures."""
    images = write_classes(tmp_path / "images", {"a": 12, "b": 8})

    def run(name, *, many):
        monkeypatch.setattr(index, "MIN_DRAWN_ASIDE_IMAGES", many)
        paths = Paths(tmp_path / name)
        index.index_images(load_config(None, overrides=[f"data.root={images}"]), paths)
        return {path.name: path.read_bytes() for path in (paths.reports / "plots/data").iterdir()}

    return run


def test_second_process_draws_the_same_pictures(draw):
    alone = draw("alone", many=21)
    assert sorted(alone) == PICTURES
    assert draw("beside", many=20) == alone


def test_pictures_are_drawn_though_their_process_is_killed(draw, monkeypatch):
    monkeypatch.setattr(artist, "_warm_up", partial(os._exit, 9))
    assert sorted(draw("killed", many=20)) == PICTURES


def test_unwritable_picture_fails_without_manifest(draw, tmp_path):
    folder = tmp_path / "full" / "reports" / "plots"
    folder.mkdir(parents=True)
    (folder / "data").write_text("a file where the folder of the pictures should be")
    with pytest.raises(ArtifactError, match=r"sizes\.png cannot be written") as caught:
        draw("full", many=20)
    assert "free some disk space" in caught.value.hint
    assert not Paths(tmp_path / "full").manifest.exists()


def test_corrections_next_to_the_images_are_applied(tmp_path):
    images = write_classes(tmp_path / "images", {"a": 12, "b": 12})
    config = load_config(None, overrides=[f"data.root={images}"])
    before = index.index_images(config, Paths(tmp_path / "one"))
    row = before.rows("train")[0]
    append_corrections(
        images / "corrections.csv",
        [Correction(row.sha256, row.target, "b", "Ada", stamp_time())],
    )
    after = index.index_images(config, Paths(tmp_path / "two"))
    assert after.originals == {row.path: row.target}
    assert len(after.images) == len(before.images)
    assert after.warnings == before.warnings
    assert json.loads((tmp_path / "two/reports/data.json").read_text())["corrected"] == 1


def test_wrong_correction_is_rejected_before_reading(tmp_path):
    images = write_classes(tmp_path / "images", {"a": 12, "b": 12})
    append_corrections(
        images / "corrections.csv", [Correction("0" * 64, "a", " ", "Ada", stamp_time())]
    )
    paths = Paths(tmp_path / "work")
    with pytest.raises(DataError, match="the image 000000000000 the label ' '"):
        index.index_images(load_config(None, overrides=[f"data.root={images}"]), paths)
    assert not paths.seen.exists()
