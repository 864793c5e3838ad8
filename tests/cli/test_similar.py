"""The commands index-images and similar."""

import json

import pytest

from rootstock.cli.main import main
from tests.bundles import jpeg, tiny_bundle


def test_similar_finds_an_image_of_the_indexed_folder(tmp_path, capsys):
    folder = tmp_path / "images"
    (folder / "below").mkdir(parents=True)
    for seed in range(4):
        (folder / "below" / f"{seed}.jpg").write_bytes(jpeg(seed))
    (folder / "bad.jpg").write_bytes(b"no image")
    model = ["--model", str(tiny_bundle())]
    main(["index-images", str(folder), "--out", str(tmp_path / "index"), *model])
    output = capsys.readouterr()
    assert "4 of 5 images" in output.out
    assert "bad.jpg" in output.err
    query = folder / "below/2.jpg"
    main(["similar", str(query), str(tmp_path / "index"), "-n", "2", "--json", *model])
    found = json.loads(capsys.readouterr().out)["similar"]
    assert [one["path"] for one in found][0] == "below/2.jpg"
    assert len(found) == 2
    main(["similar", str(query), str(tmp_path / "index"), *model])
    assert "below/2.jpg" in capsys.readouterr().out


def test_similar_without_an_index_needs_named_training_images(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    with pytest.raises(SystemExit) as caught:
        main(["similar", str(tmp_path / "a.jpg"), "--model", str(tiny_bundle())])
    assert caught.value.code not in (0, None)
