"""Labels of every task: the index reads the text that the page's parts become."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from rootstock.config.load import load_config
from rootstock.config.paths import Paths
from rootstock.data.label_corrections import ORIGINAL, REMOVE, read_corrections
from rootstock.data.manifest import REMOVED
from rootstock.workflow.index import index_images
from tests.data.folders import photo
from tests.service.requests import wait_for
from tests.studio.browser import Browser, find_browser
from tests.studio.conftest import open_studio, running

pytestmark = pytest.mark.integration

TASKS = {
    "multi_label": ("labels", ["a;b", "b", "a", ""], "toggles"),
    "regression": ("target", ["1.5", "2.5", "3.5", "4"], "numbers"),
    "localisation": ("label,x,y,width,height", ["a,4,4,20,20", "b,8,8,10,30"], "box"),
}


def make_project(root, task):
    """Write a project of a task whose index has run."""
    columns, cells, _ = TASKS[task]
    folder = root / "images"
    folder.mkdir(parents=True)
    rows = [["path", *columns.split(",")]]
    for number in range(24):
        (folder / f"{number}.png").write_bytes(photo(number))
        rows.append([f"{number}.png", *cells[number % len(cells)].split(",")])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    (root / "params.yaml").write_text("data: {root: images/labels.csv}\n")
    index(root)
    return root


def index(root, data="images/labels.csv"):
    config = load_config(root / "params.yaml", overrides=[f"data.root={root / data}"])
    return index_images(config, Paths(root))


@pytest.fixture
def masked(tmp_path):
    """A project of masks whose index has run."""
    for name in ("images", "masks"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for number in range(12):
        (tmp_path / f"data/images/{number}.png").write_bytes(photo(number))
        mask = np.random.default_rng(number).integers(0, 2, (48, 48), np.uint8)
        Image.fromarray(mask).save(tmp_path / f"data/masks/{number}.png")
    (tmp_path / "params.yaml").write_text("data: {root: data}\n")
    index(tmp_path, "data")
    return tmp_path


@pytest.mark.parametrize(
    ("task", "parts", "text"),
    [
        ("multi_label", {"labels": ["b", "new"]}, '["b", "new"]'),
        ("multi_label", {"labels": []}, "[]"),
        ("regression", {"numbers": {"target": 7.25}}, "7.25"),
        (
            "localisation",
            {"labels": ["b"], "box": [0.1, 0.2, 0.5, 0.9]},
            '["b", 0.1, 0.2, 0.5, 0.9]',
        ),
    ],
)
def test_parts_become_the_text_of_the_task(tmp_path, task, parts, text):
    root = make_project(tmp_path / "project", task)
    client = open_studio(root)
    assert client.get("/api/session").json()["project"]["editor"] == TASKS[task][2]
    image = client.get("/api/images", params={"text": "0.png"}).json()["images"][0]
    given = {"seen": image["text"], "who": "Ada", "parts": parts}
    answer = client.post(f"/api/images/{image['id']}/label", json=given)
    assert answer.status_code == 200, answer.text
    (row,) = read_corrections(root / "images/corrections.csv")
    assert row.new == text
    assert json.dumps(answer.json()["parts"])
    # The next index reads this.
    config = load_config(
        root / "params.yaml", overrides=[f"data.root={root / 'images/labels.csv'}"]
    )
    manifest = index_images(config, Paths(root))
    assert text in {row.target for row in manifest.images}


@pytest.fixture(params=TASKS)
def desk(request, tmp_path):
    if not find_browser():
        pytest.skip("Chromium is not installed")
    root = make_project(tmp_path / "project", request.param)
    with running(root) as address, Browser() as page:
        page.open(address)
        page.wait("document.querySelectorAll('#nav a').length")
        page.run("localStorage.setItem('studio.who', 'Ada')")
        page.open(f"{address}#/label?text=.png")
        page.wait("document.querySelectorAll('.label-body button.main').length")
        yield request.param, page, root


def test_each_editor_writes_label_and_shows_next_image(desk):
    task, page, root = desk
    page.wait("document.querySelector('.stage img').naturalWidth > 0")
    first = page.run("document.querySelector('.label .path').textContent")
    if task == "multi_label":
        page.wait("document.querySelector('.option kbd')")
        page.press("1")
    elif task == "regression":
        page.run("document.querySelector('input[type=number]').value = '9'")
    else:
        left, top, wide, high = page.run(
            "(() => { const b = document.querySelector('.boxes').getBoundingClientRect();"
            "return [b.x, b.y, b.width, b.height]; })()"
        )
        corners = [(0.25, 0.25), (0.5, 0.5), (0.75, 0.75)]
        page.drag([(left + x * wide, top + y * high) for x, y in corners])
    page.press("Enter")
    page.wait(f"document.querySelector('.label .path').textContent !== {first!r}")
    # The next image is shown before the label is on disk.
    (row,) = wait_for(lambda: read_corrections(root / "images/corrections.csv"))
    assert row.old != row.new
    if task == "localisation":
        assert json.loads(row.new)[1:] == pytest.approx([0.25, 0.25, 0.75, 0.75], abs=0.02)


def test_image_with_a_mask_is_removed_and_put_back(masked):
    if not find_browser():
        pytest.skip("Chromium is not installed")
    before = index(masked, "data")

    def rows():
        found = read_corrections(masked / "data/corrections.csv")
        return [(row.old, row.new, row.why) for row in found]

    with running(masked) as address, Browser() as page:
        page.open(address)
        page.wait("document.querySelectorAll('#nav a').length")
        page.run("localStorage.setItem('studio.who', 'Ada')")
        page.open(f"{address}#/label?text=.png")
        page.wait("document.querySelector('.stage img').naturalWidth > 0")
        page.wait("document.querySelectorAll('.decide button').length === 3")
        first = page.run("document.querySelector('.label .path').textContent")
        page.press("x")
        page.wait(f"document.querySelector('.label .path').textContent !== {first!r}")
        wait_for(lambda: rows() == [(ORIGINAL, REMOVE, "")])
        (gone,) = index(masked, "data").quarantined
        assert (gone.path, gone.quarantine) == (first, REMOVED)
        page.press("u")
        page.wait(f"document.querySelector('.label .path').textContent === {first!r}")
        wait_for(lambda: rows()[1:] == [(REMOVE, ORIGINAL, "undone")])
        assert index(masked, "data") == before
        # In another visit, a key puts back an image that was removed.
        page.press("x")
        wait_for(lambda: len(rows()) == 3)
        page.open(f"{address}#/label?flag=corrected")
        page.wait("document.querySelector('.label h1').textContent === 'removed'")
        page.press("r")
        wait_for(lambda: rows()[3:] == [(REMOVE, ORIGINAL, "")])
        assert index(masked, "data") == before
        # The browser logs the answers that need a model, which this project does not have.
        assert all("409" in error for error in page.errors)
