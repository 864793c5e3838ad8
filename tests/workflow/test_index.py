import os
from functools import partial

import pytest

from rootstock.config.load import load_config
from rootstock.config.paths import Paths
from rootstock.errors import ArtifactError
from rootstock.plots import background as artist
from rootstock.workflow import index
from tests.data.folders import write_classes

PICTURES = ["classes.png", "contact_sheet.png", "sizes.png"]


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """Index 20 images; the bytes of the pictures."""
    images = write_classes(tmp_path / "images", {"a": 12, "b": 8})

    def run(name, *, many):
        monkeypatch.setattr(index, "MIN_DRAWN_ASIDE_IMAGES", many)
        paths = Paths(tmp_path / name)
        index.index_images(load_config(None, overrides=[f"data.root={images}"]), paths)
        return {path.name: path.read_bytes() for path in (paths.reports / "plots/data").iterdir()}

    return run


def test_a_process_beside_draws_what_is_drawn_without_one(draw):
    alone = draw("alone", many=21)
    assert sorted(alone) == PICTURES
    assert draw("beside", many=20) == alone


def test_pictures_are_drawn_though_their_process_is_killed(draw, monkeypatch):
    monkeypatch.setattr(artist, "_warm_up", partial(os._exit, 9))
    assert sorted(draw("killed", many=20)) == PICTURES


def test_a_picture_that_cannot_be_written_is_said_and_there_is_no_manifest(draw, tmp_path):
    folder = tmp_path / "full" / "reports" / "plots"
    folder.mkdir(parents=True)
    (folder / "data").write_text("a file where the folder of the pictures should be")
    with pytest.raises(ArtifactError, match=r"sizes\.png cannot be written") as caught:
        draw("full", many=20)
    assert "free some disk space" in caught.value.hint
    assert not Paths(tmp_path / "full").manifest.exists()
