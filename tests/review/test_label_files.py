"""Labels of each task, exported and imported again, and exports as the tools write them."""

import json

import pytest

from rootstock.errors import DataError
from rootstock.review.label_files import Labelled, read_labels, write_labels
from rootstock.tasks import get_task

LABELS = [
    ("single_label", "ant"),
    ("multi_label", '["ant", "bee"]'),
    ("multi_label", "[]"),
    ("regression", "3.5"),
    ("regression", '{"height": 2.0, "width": 3.5}'),
    ("localisation", '["ant", 0.1, 0.2, 0.5, 1.0]'),
]


@pytest.mark.parametrize("form", ["coco", "label-studio", "csv"])
@pytest.mark.parametrize(("name", "label"), LABELS)
def test_labels_survive_each_format(tmp_path, name, label, form):
    task = get_task(name)
    images = [Labelled("a/ü.png", "0" * 64, label, (640, 480))]
    if name == "regression" and form == "coco":
        with pytest.raises(DataError, match="cannot hold numbers"):
            write_labels(images, task, form)
        return
    path = tmp_path / ("labels.csv" if form == "csv" else "labels.json")
    path.write_text(write_labels(images, task, form), encoding="utf-8")
    (read,) = read_labels(path, task)
    assert read[:3] == images[0][:3] or (name, label) == ("regression", "3.5")
    assert task.annotate(read.label) == task.annotate(label)


def test_label_studio_s_own_export_is_read(tmp_path):
    """An export of Label Studio 1.x: several annotations, cancelled ones, percent of the sides."""
    tree = [
        {
            "id": 7,
            "data": {"image": "/data/local-files/?d=photos/a%20b.png"},
            "annotations": [
                {"result": [], "was_cancelled": False},
                {
                    "result": [
                        {
                            "original_width": 600,
                            "original_height": 400,
                            "from_name": "box",
                            "to_name": "image",
                            "type": "rectanglelabels",
                            "value": {
                                "x": 10.0,
                                "y": 20.0,
                                "width": 30.0,
                                "height": 40.0,
                                "rotation": 0,
                                "rectanglelabels": ["ant"],
                            },
                        }
                    ],
                    "was_cancelled": False,
                },
                {"result": [], "was_cancelled": True},
            ],
        },
        {"id": 8, "data": {"image": "b.png"}, "annotations": []},
    ]
    path = tmp_path / "export.json"
    path.write_text(json.dumps(tree))
    (read,) = read_labels(path, get_task("localisation"))
    assert read.path.endswith("a%20b.png")
    assert json.loads(read.label) == ["ant", 0.1, 0.2, 0.4, 0.6]


def test_image_with_two_classes_is_rejected_by_name(tmp_path):
    marks = [{"image_id": 1, "category_id": one} for one in (1, 2)]
    tree = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "ant"}, {"id": 2, "name": "bee"}],
        "annotations": marks,
    }
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(tree))
    with pytest.raises(DataError, match="a.png: the image has 2 classes"):
        read_labels(path, get_task("single_label"))
