"""The command explain: writes pictures, and reports wrong names before any work."""

import json

import pytest
from PIL import Image

from rootstock.cli.main import main
from tests.bundles import CLASSES, SIZE, jpeg, tiny_bundle


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for name in ("a", "b"):
        (images / f"{name}.jpg").write_bytes(jpeg(ord(name)))
    return images


def run(folder, *options):
    return main(["explain", str(folder), "--model", str(tiny_bundle()), *map(str, options)])


@pytest.mark.parametrize("method", ["auto", "occlusion"])
def test_every_image_gets_a_picture_and_an_answer(folder, tmp_path, capsys, method):
    run(folder, "--out", tmp_path / "out", "--json", "--method", method)
    entries = json.loads(capsys.readouterr().out)["explanations"]
    assert [entry["filename"] for entry in entries] == [str(folder / f"{n}.jpg") for n in "ab"]
    for entry in entries:
        (picture,), (heat_map,) = entry["pictures"], entry["heat_maps"]
        assert Image.open(picture).size == (SIZE, SIZE)
        assert heat_map["output"] == entry["top"][0]["label"]


def test_bad_file_does_not_cost_the_others(folder, tmp_path, capsys):
    (folder / "a.jpg").write_bytes(b"no image")
    with pytest.raises(SystemExit) as caught:
        run(folder, "--out", tmp_path / "out", "--output", CLASSES[0])
    assert caught.value.code == 1
    assert len(list((tmp_path / "out").iterdir())) == 1
    assert "a.jpg" in capsys.readouterr().err


def test_wrong_output_is_told_before_anything_is_written(folder, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        run(folder, "--out", tmp_path / "out", "--output", "oak")
    assert "tulip" in f"{caught.value.code}{capsys.readouterr().err}"
    assert not (tmp_path / "out").exists()


def test_page_of_what_is_inside_holds_every_picture(folder, tmp_path, capsys):
    page = tmp_path / "inside.html"
    main(["visualise", str(folder), "--model", str(tiny_bundle()), "--out", str(page)])
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 7
    assert 'src="http' not in text
    assert str(page) in capsys.readouterr().out
