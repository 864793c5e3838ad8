"""From a table of boxes to an HTTP answer: frozen features, fine-tuning, and COCO."""

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from rootstock.config.load import load_config
from rootstock.config.paths import Paths
from rootstock.data.manifest import Manifest
from rootstock.errors import ConfigError, DataError
from rootstock.model.predictor import Predictor
from rootstock.ports.runs import NullRunLogger
from rootstock.ports.search import SequentialSearcher
from rootstock.ports.spread import InProcess
from rootstock.system.files import read_json
from rootstock.workflow.index import index_images
from rootstock.workflow.run import run_all
from tests.bundles import tiny_backbone
from tests.folder_registry import FolderRegistry
from tests.service.conftest import make_client
from tests.tasks.whole_way import check_twin

COLOURS = {"cherry": (220, 40, 60), "lime": (120, 210, 50)}
WIDTH, HEIGHT = 120, 80


def picture(label, box, seed, *, orientation=1):
    """Return an ellipse of the label's colour on grey, seen upright; ``box`` is x, y, w, h."""
    random = np.random.default_rng(seed)
    pixels = random.normal(90, 10, (HEIGHT, WIDTH, 3)).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    x, y, width, height = box
    ImageDraw.Draw(image).ellipse((x, y, x + width - 1, y + height - 1), fill=COLOURS[label])
    exif = Image.Exif()
    if orientation == 6:  # the camera was held upright: the stored image is rotated left
        image = image.transpose(Image.Transpose.ROTATE_90)
        exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, exif=exif)
    return buffer.getvalue()


def draw_box(random):
    width, height = random.integers(30, 70), random.integers(20, 50)
    corner = random.integers(0, WIDTH - width), random.integers(0, HEIGHT - height)
    return (*map(int, corner), int(width), int(height))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """The folder of eighty pictures, and path, label and box of each."""
    folder = tmp_path_factory.mktemp("fruit")
    (folder / "images").mkdir()
    random, rows = np.random.default_rng(0), []
    for number in range(80):
        label = list(COLOURS)[number % 2]
        box = draw_box(random)
        path = f"images/{number}.jpg"
        content = picture(label, box, number, orientation=6 if number % 5 == 0 else 1)
        (folder / path).write_bytes(content)
        rows.append((path, label, *box))
    return folder, rows


@pytest.fixture(scope="module")
def table(rows):
    folder, cells = rows
    with (folder / "boxes.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "x", "y", "width", "height"), *cells])
    return folder / "boxes.csv"


def configure(root, *more):
    return load_config(
        None,
        overrides=[
            f"data.root={root}",
            f"backbone.weights={tiny_backbone().card.weights}",
            "data.duplicates='off'",
            "assess.probe_folds=2",
            "features.batch_size=16",
            "train.l2_grid=[0.0001,0.01]",
            "plan.race=never",
            *more,
        ],
    )


def go(config, out, registry):
    paths = Paths(out)
    run_all(
        config,
        paths,
        runs=NullRunLogger(),
        searcher=SequentialSearcher(),
        racer=SequentialSearcher(),
        spreader=InProcess(),
        registry=registry,
    )
    return paths


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    return FolderRegistry(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def trained(table, tmp_path_factory, registry):
    config = configure(table, "plan.strategy=linear_probe")
    return go(config, tmp_path_factory.mktemp("trained"), registry)


def test_int8_is_judged_by_score_of_task(trained):
    check_twin(trained)


def test_class_and_box_are_learnt_and_reported(trained):
    metrics = read_json(trained.metrics, made_by="evaluate")
    assert list(metrics)[0] == "localisation_accuracy"
    assert metrics["accuracy"] > 0.9
    assert metrics["mean_iou"] > 0.4
    manifest = Manifest.read(trained.manifest)
    assert (manifest.task, manifest.strata) == ("localisation", ["cherry", "lime"])
    assert "the columns label, x, y, width, height" in manifest.recognised
    model = read_json(trained.model / "bundle.json", made_by="train")
    assert model["preprocess"]["geometry"] == "squash"
    assert model["tap"].endswith("@7+last")
    rows = list(csv.DictReader((trained.reports / "predictions.csv").open()))
    overlaps = [float(row["iou"]) for row in rows]
    assert np.mean(overlaps) == pytest.approx(metrics["mean_iou"], abs=1e-5)
    pictures = {path.name for path in (trained.reports / "plots/evaluation").iterdir()}
    assert {"worst_boxes.png", "overlaps.png", "confusion.png"} <= pictures
    assert "Class and box of" in trained.model_card.read_text()


def test_service_answers_in_pixels_of_upright_upload(trained):
    box = (40, 20, 50, 40)
    plain, turned = (picture("lime", box, 200, orientation=way) for way in (1, 6))
    with make_client(model=str(trained.model)) as client:
        files = [
            ("files", ("plain.jpg", plain)),
            ("files", ("turned.jpg", turned)),
            ("files", ("bad.jpg", b"no")),
        ]
        body = client.post("/v1/predict", files=files).json()
        first, second, bad = body["predictions"]
        assert body["model"]["task"] == "localisation"
        assert first["top"][0]["label"] == "lime"
        found = [first["box"][side] for side in ("x", "y", "width", "height")]
        np.testing.assert_allclose(found, box, atol=15)
        for side, value in first["box"].items():
            assert second["box"][side] == pytest.approx(value, abs=3)
        assert bad["error"]["reason"] == "not-an-image"
        alike = client.post("/v1/predict?neighbours=2", files=files[:1]).json()["predictions"][0]
        assert {one["target"] for one in alike["neighbours"]} <= set(COLOURS)
        name = body["model"]["name"]
        outputs = {
            one["name"]: one["shape"] for one in client.get(f"/v2/models/{name}").json()["outputs"]
        }
        assert outputs == {"label": [-1], "probabilities": [-1, 2], "box": [-1, 4]}
        schemas = client.get("/openapi.json").json()["components"]["schemas"]
        assert "box" in schemas["Prediction"]["properties"]


def test_box_of_large_photo_is_in_upload_pixels(trained):
    """It is decoded at a fraction of its size."""
    small = Image.open(io.BytesIO(picture("cherry", (20, 10, 60, 40), 201)))
    buffer = io.BytesIO()
    small.resize((WIDTH * 20, HEIGHT * 20)).save(buffer, "JPEG", quality=95)
    predictor = Predictor(trained.model)
    large = predictor.predict([buffer.getvalue()])[0]
    np.testing.assert_allclose(
        [large.box.x, large.box.y, large.box.width, large.box.height],
        [400, 200, 1200, 800],
        atol=300,
    )
    assert set(large.columns()) >= {"label", "x", "y", "width", "height"}
    assert type(large).from_json(large.to_json()) == large


def test_fine_tuning_learns_box_and_meets_champion(table, tmp_path, registry, trained):
    config = configure(
        table,
        "plan.strategy=full_finetune",
        "train.epochs=2",
        "train.learning_rates=[0.001]",
        "registry.gate.metric=mean_iou",
    )
    paths = go(config, tmp_path, registry)
    comparison = read_json(paths.registration, made_by="register")["comparison"]
    assert comparison["metric"] == "mean_iou"
    assert comparison["n"] == read_json(paths.metrics, made_by="evaluate")["n_test"]


def test_largest_of_several_coco_boxes_is_used(rows, tmp_path):
    folder, cells = rows
    tree = {
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in range(80)]
        + [{"id": 99, "file_name": "z.jpg"}],
        "categories": [{"id": i, "name": name} for i, name in enumerate(COLOURS)],
        "annotations": [
            {"image_id": i, "category_id": i % 2, "bbox": row[2:]} for i, row in enumerate(cells)
        ]
        + [{"image_id": 3, "category_id": 0, "bbox": [0, 0, 3, 3]}],
    }
    (folder / "annotations.json").write_text(json.dumps(tree))
    manifest = index_images(configure(folder / "annotations.json"), Paths(tmp_path))
    assert manifest.task == "localisation"
    row = next(row for row in manifest.rows() if row.path == "images/3.jpg")
    x, y, width, height = cells[3][2:]
    shares = [x / WIDTH, y / HEIGHT, (x + width) / WIDTH, (y + height) / HEIGHT]
    assert json.loads(row.target) == ["lime", *(round(share, 6) for share in shares)]
    assert row.facts == {"boxes": "2"}
    assert any("1 image with several boxes: the largest is used" in w for w in manifest.warnings)
    assert any("1 image without a box ignored" in w for w in manifest.warnings)


def test_file_that_is_not_coco_is_rejected(tmp_path):
    (tmp_path / "boxes.json").write_text('{"images": []}')
    with pytest.raises(DataError, match="does not contain annotations in COCO format"):
        index_images(configure(tmp_path / "boxes.json"), Paths(tmp_path / "out"))


@pytest.mark.parametrize(
    "setting", ["train.views=flip", "train.mixup=0.2", "train.cutmix=1.0", "data.geometry=pad"]
)
def test_what_would_misplace_a_box_is_rejected(table, tmp_path, setting):
    with pytest.raises(ConfigError, match="but the task `localisation` does not support it"):
        index_images(configure(table, setting), Paths(tmp_path))
