"""Odd and hostile files: the service answers 200 or 422 like `rootstock predict`, never 500."""

import contextlib
import io
import json

import numpy as np
import pytest

from rootstock.cli.main import main
from tests.bundles import jpeg, tiny_bundle
from tests.data.odd_images import ODD_IMAGES


@pytest.fixture(scope="module")
def by_command(tmp_path_factory):
    """The output of `rootstock predict --json` for every odd file, by name."""
    folder = tmp_path_factory.mktemp("odd")
    files = {name: folder / f"{number}.bin" for number, name in enumerate(ODD_IMAGES)}
    for name, file in files.items():
        file.write_bytes(ODD_IMAGES[name].build())
    with contextlib.redirect_stdout(io.StringIO()) as printed, pytest.raises(SystemExit):
        main(["predict", *map(str, files.values()), "--model", str(tiny_bundle()), "--json"])
    rows = json.loads(printed.getvalue())["predictions"]
    return dict(zip(files, rows, strict=True))


@pytest.mark.parametrize("name", ODD_IMAGES)
def test_odd_file_is_answered_as_command_does(client, by_command, name):
    content, expected = ODD_IMAGES[name].build(), by_command[name]
    response = client.post("/v1/predict", content=content, headers={"content-type": "image/png"})
    answer = response.json()
    if "error" in expected:
        reason = expected["error"]["reason"]
        assert (response.status_code, answer["reason"]) == (422, reason)
        return
    assert response.status_code == 200, response.text
    (found,) = answer["predictions"]
    given, wanted = (
        {one["label"]: one["probability"] for one in row["top"]} for row in (found, expected)
    )
    assert list(given) == list(wanted)
    assert given == pytest.approx(wanted, abs=1e-4)
    assert found["unknown"] == expected["unknown"]


def test_damage_anywhere_is_never_a_500(client):
    random = np.random.default_rng(0)
    for name in ("progressive jpeg", "palette", "webp with alpha", "cmyk tiff", "animated gif"):
        content = ODD_IMAGES[name].build()
        for _ in range(20):
            damaged = bytearray(content)
            for place in random.integers(0, len(content), 4):
                damaged[place] = random.integers(256)
            response = client.post("/v1/predict", files={"files": ("x", bytes(damaged))})
            assert response.status_code in (200, 422)


@pytest.mark.parametrize("name", ["../../etc/passwd", "a\\b.jpg", "ä ö.jpg", "x" * 300, "<b>.jpg"])
def test_any_file_name_comes_back_as_it_was(client, name):
    response = client.post("/v1/predict", files={"files": (name, jpeg(0))})
    assert response.json()["predictions"][0]["filename"] == name
