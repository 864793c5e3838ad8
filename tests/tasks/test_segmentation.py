"""From folders of images and masks to an HTTP answer: with frozen maps, and with a decoder."""

import base64
import csv
import io
import json
import os

import numpy as np
import pytest
from PIL import Image, ImageDraw

from rootstock.cli.main import main
from rootstock.data.manifest import Manifest
from rootstock.explain.heat_map import explain_images
from rootstock.model.engine import load_network
from rootstock.model.predictor import Predictor
from rootstock.model.python_function import DETAILS, PythonFunction
from rootstock.system.files import read_json
from rootstock.tasks.segmentation.colours import colour_of
from rootstock.tasks.segmentation.masks import read_grid, read_names
from tests.folder_registry import FolderRegistry
from tests.service.conftest import make_client
from tests.service.test_serve import running
from tests.studio.browser import Browser, find_browser
from tests.tasks.whole_way import check_twin, configure, go, png

WIDTH, HEIGHT = 96, 64
NAMES = ["ground", "cherry", "lime"]
COLOURS = {1: (220, 40, 60), 2: (120, 210, 50)}


def scene(seed):
    """Return a noisy picture with one or two discs, and its classes uint8[H,W]."""
    random = np.random.default_rng(seed)
    image = Image.fromarray(random.normal(90, 10, (HEIGHT, WIDTH, 3)).clip(0, 255).astype(np.uint8))
    classes = Image.new("L", (WIDTH, HEIGHT))
    for number in COLOURS if seed % 3 else (1 + seed % 2,):
        side = int(random.integers(20, 40))
        x, y = int(random.integers(0, WIDTH - side)), int(random.integers(0, HEIGHT - side))
        for canvas, fill in ((image, COLOURS[number]), (classes, number)):
            ImageDraw.Draw(canvas).ellipse((x, y, x + side, y + side), fill=fill)
    return np.asarray(image), np.asarray(classes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("fruit")
    for name in ("images", "masks"):
        (root / name).mkdir()
    for number in range(60):
        pixels, classes = scene(number)
        (root / f"images/{number}.png").write_bytes(png(pixels))
        Image.fromarray(classes).save(root / f"masks/{number}.png")
    (root / "classes.txt").write_text("\n".join(NAMES))
    return root


def configured(data, *more):
    return configure(data, "data.duplicates='off'", *more)


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    return FolderRegistry(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory, registry):
    config = configured(folder, "plan.strategy=linear_probe")
    return go(config, tmp_path_factory.mktemp("trained"), registry)


def test_int8_is_judged_by_score_of_task(trained):
    check_twin(trained)


def test_masks_are_learnt_and_reported(trained):
    metrics = read_json(trained.metrics, made_by="evaluate")
    assert list(metrics)[0] == "mean_iou"
    assert metrics["mean_iou"] > 0.5
    assert metrics["mean_iou_low"] < metrics["mean_iou"] < metrics["mean_iou_high"]
    manifest = Manifest.read(trained.manifest)
    assert (manifest.task, manifest.recognised) == (
        "segmentation",
        "the folders images and masks",
    )
    rows = list(csv.DictReader((trained.reports / "per_class.csv").open()))
    assert [row["class"] for row in rows] == NAMES
    assert all(float(row["low"]) <= float(row["iou"]) <= float(row["high"]) for row in rows)
    pictures = {path.name for path in (trained.reports / "plots/evaluation").iterdir()}
    assert {"overlays.png", "classes.png", "confusion.png"} <= pictures
    assert "Mean IoU" in trained.model_card.read_text()
    probes = read_json(trained.profile, made_by="assess")["probes"]
    assert min(probe["accuracy"] for probe in probes) > 0.2


def test_service_answers_with_mask_in_size_of_upload(trained, tmp_path):
    pixels, classes = scene(200)
    large = Image.fromarray(pixels).resize((WIDTH * 20, HEIGHT * 20))
    content = io.BytesIO()
    large.save(content, "PNG")
    with make_client(model=str(trained.model), journal=str(tmp_path)) as client:
        files = [
            ("files", ("a.png", png(pixels))),
            ("files", ("large.png", content.getvalue())),
            ("files", ("bad.png", b"no")),
        ]
        body = client.post("/v1/predict", files=files).json()
        first, second, bad = body["predictions"]
        mask = Image.open(io.BytesIO(base64.b64decode(first["mask"])))
        assert (mask.mode, mask.size) == ("P", (WIDTH, HEIGHT))
        assert (np.asarray(mask) == classes).mean() > 0.85
        assert first["areas"][0]["label"] == "ground"
        assert sum(one["share"] for one in first["areas"]) == pytest.approx(1)
        colour = bytes.fromhex(first["areas"][0]["colour"][1:])
        assert bytes(mask.getpalette()[:3]) == colour
        assert Image.open(io.BytesIO(base64.b64decode(second["mask"]))).size == (1024, 683)
        assert bad["error"]["reason"] == "not-an-image"
        name = body["model"]["name"]
        outputs = {
            o["name"]: o["shape"] for o in client.get(f"/v2/models/{name}").json()["outputs"]
        }
        assert outputs == {"mask": [-1], "shares": [-1, 3]}
        image = base64.b64encode(png(pixels)).decode()
        asked = {"inputs": [{"name": "images", "datatype": "BYTES", "shape": [1], "data": [image]}]}
        answer = client.post(f"/v2/models/{name}/infer", json=asked).json()
        assert answer["outputs"][0]["data"] == [first["mask"]]
        rows = client.post("/invocations", json={"instances": [image]}).json()["predictions"]
        assert json.loads(rows[0]["shares"])["ground"] == pytest.approx(first["areas"][0]["share"])
        schemas = client.get("/openapi.json").json()["components"]["schemas"]
        assert {"mask", "areas"} <= set(schemas["Prediction"]["properties"])
    import pyarrow.parquet as pq

    [journal] = tmp_path.glob("*.parquet")
    assert {"label", "shares", "unknown"} <= set(pq.read_table(journal).column_names)
    assert "mask" not in pq.read_table(journal).column_names


def test_predict_writes_masks_and_never_over_an_image(trained, tmp_path, monkeypatch, capsys):
    pixels, classes = scene(204)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new").mkdir()
    (tmp_path / "new/a.png").write_bytes(png(pixels))
    (tmp_path / "new/b.png").write_bytes(b"no")
    arguments = ["predict", "new", "--model", str(trained.model), "--files"]
    with pytest.raises(SystemExit) as ended:  # b.png has no answer
        main([*arguments, "out"])
    assert ended.value.code == 1
    assert "ground" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out/new").iterdir()] == ["a.png"]
    mask = np.asarray(Image.open(tmp_path / "out/new/a.png"))
    assert (mask == classes).mean() > 0.85
    for wrong in ([*arguments, "."], [*arguments, "out", "--out", "answers.csv"]):
        with pytest.raises(SystemExit) as ended:
            main(wrong)
        assert ended.value.code
    assert (tmp_path / "new/a.png").read_bytes() == png(pixels)


@pytest.mark.integration
@pytest.mark.skipif(
    not find_browser() and not os.environ.get("BROWSER_REQUIRED"), reason="no browser"
)
def test_the_page_draws_the_mask_over_the_picture(trained):
    upload = base64.b64encode(png(scene(205)[0])).decode()
    with running("--model", str(trained.model)) as (address, _), Browser() as browser:
        browser.open(f"{address}/")
        browser.wait("typeof classify === 'function'")
        browser.run(
            f"classify(new File([Uint8Array.from(atob('{upload}'), c => c.charCodeAt(0))],"
            " 'a.png'))"
        )
        browser.wait("document.querySelector('.answer img')?.alt.includes('classes in colours')")
        assert browser.run("document.querySelector('.answer h2').textContent").startswith("ground")
        assert browser.run("document.querySelectorAll('.answer .bars dt').length") >= 2
        # A pixel of the first class has its colour over that of the photo
        colour = browser.run(
            "(() => { const pen = document.createElement('canvas').getContext('2d');"
            "pen.drawImage(document.querySelector('.answer img'), 0, 0);"
            "return [...pen.getImageData(1, 1, 1, 1).data]; })()"
        )
        expected = 0.45 * scene(205)[0][1, 1] + 0.55 * np.array(colour_of(0))
        np.testing.assert_allclose(colour[:3], expected, atol=4)
        assert not browser.errors


def test_occlusion_shows_what_a_class_depends_on(trained):
    pixels, classes = scene(203)
    predictor = Predictor(trained.model)
    prepared = predictor.prepare(png(pixels))
    [explained] = explain_images(predictor, [prepared], output="lime")
    assert (explained.heat_map.output, explained.heat_map.method) == ("lime", "occlusion")
    lime = np.asarray(Image.fromarray(classes == 2).resize((8, 8)))
    assert explained.heat_map.evidence[lime].mean() > explained.heat_map.evidence[~lime].mean()


def test_mlflow_and_json_get_the_same_answer(trained):
    pixels, _ = scene(201)
    function = PythonFunction(trained.model)
    assert function.predict([png(pixels), b"no"]).tolist() == ["ground", None]
    assert json.loads(function.predict([png(pixels)], {DETAILS: True})["shares"][0])
    [answer] = function.predictor.predict([png(pixels)])
    assert type(answer).from_json(answer.to_json()) == answer


def test_a_turned_photo_gets_an_upright_mask(trained):
    pixels, classes = scene(202)
    exif, content = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6  # the stored image is rotated left
    image = Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90)
    image.save(content, "PNG", exif=exif)
    [answer] = Predictor(trained.model).predict([content.getvalue()])
    mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer.mask))))
    assert mask.shape == (HEIGHT, WIDTH)
    assert (mask == classes).mean() > 0.85


@pytest.mark.parametrize("strategy", ["partial_finetune", "full_finetune"])
def test_fine_tuning_adds_decoder_and_meets_champion(folder, tmp_path, registry, trained, strategy):
    config = configured(
        folder, f"plan.strategy={strategy}", "train.epochs=3", "train.learning_rates=[0.003]"
    )
    paths = go(config, tmp_path, registry)
    comparison = read_json(paths.registration, made_by="register")["comparison"]
    assert comparison["metric"] == "mean_iou"
    assert comparison["gain_interval"]
    training = read_json(paths.training, made_by="train")
    assert training["finetuning"][0]["metrics"]["val_mean_iou"] > 0.4
    predictor = Predictor(paths.model)
    if not training["kept_head"]:
        assert predictor.bundle.facts.hidden > 0
    # The weights in PyTorch give the same result as ONNX
    sample = predictor.bundle.golden[0]
    prepared = predictor.prepare(predictor.bundle.golden_bytes(sample))
    import torch

    images = predictor.bundle.preprocess.normalise(prepared)
    with torch.inference_mode():
        outputs = load_network(predictor.bundle)(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(outputs, predictor.outputs(images), atol=1e-3)


def test_twenty_masks_are_enough_to_train(folder, tmp_path):
    lines = ["path,mask,split"]
    for number in range(32):
        split = "train" if number < 20 else "val" if number < 26 else "test"
        lines.append(f"images/{number}.png,masks/{number}.png,{split}")
    (folder / "few.csv").write_text("\n".join(lines))
    paths = go(
        configured(folder / "few.csv", "plan.strategy=linear_probe"),
        tmp_path,
        FolderRegistry(tmp_path / "registry"),
    )
    assert read_json(paths.metrics, made_by="evaluate")["mean_iou"] > 0.4
    row = Manifest.read(paths.manifest).rows()[0]
    assert read_names(row.target) == tuple(NAMES)
    assert read_grid(row.target).shape == (112, 112)
