"""The demo writes its digits, keeps away from images of a user, and ends with what to try."""

import pytest
from PIL import Image

from pipelines import demo


def test_the_demo_writes_readable_digits_of_each_kind(tmp_path):
    assert demo.write_digits(tmp_path) == 10 * demo.EACH
    files = sorted(tmp_path.glob("*/*.png"))
    assert {path.parent.name for path in files} == {str(digit) for digit in range(10)}
    assert Image.open(files[0]).size == (demo.SIDE, demo.SIDE)


def test_demo_does_not_mix_its_digits_into_images_of_user(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "data/raw/cat"
    own.mkdir(parents=True)
    (own / "1.jpg").write_bytes(b"x")
    with pytest.raises(SystemExit, match="your own images"):
        demo.prepare_data()
    assert [path.name for path in (tmp_path / "data/raw").iterdir()] == ["cat"]


def test_demo_ends_with_addresses_and_three_things_to_try(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    demo.prepare_data()
    capsys.readouterr()
    demo.show_results()
    text = capsys.readouterr().out
    assert "http://127.0.0.1:8000\n" in text
    assert "http://127.0.0.1:8100\n" in text
    assert [f" {number}. " in text for number in (1, 2, 3)] == [True] * 3
    image = text.partition("files=@")[2].split()[0]
    assert (tmp_path / image).is_file()
