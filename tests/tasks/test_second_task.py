"""A task of another kind, from a table to an HTTP answer; only its registration is new."""

import csv
import io

import numpy as np
import pytest
from PIL import Image

from rootstock import tasks
from rootstock.config.load import load_config
from rootstock.config.paths import Paths
from rootstock.data.manifest import Manifest
from rootstock.errors import ConfigError, DataError
from rootstock.system.files import read_json
from rootstock.tasks import Place
from rootstock.workflow.evaluate import evaluate_folder
from rootstock.workflow.index import index_images
from tests.folder_registry import FolderRegistry
from tests.service.conftest import make_client
from tests.tasks import whole_way
from tests.tasks.whole_way import go


@pytest.fixture(scope="module", autouse=True)
def _registered():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "_TASKS", dict(tasks._TASKS))
        tasks.register_task(
            "brightness",
            task=Place("tests.tasks.brightness", "Brightness"),
            answer=Place("tests.tasks.brightness", "NumberAnswer"),
        )
        yield


def picture(brightness, seed):
    random = np.random.default_rng(seed)
    pixels = np.clip(random.normal(255 * brightness, 12, (48, 48, 3)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Sixty grey pictures and their brightness."""
    folder = tmp_path_factory.mktemp("brightness")
    values = np.random.default_rng(0).uniform(0.1, 0.9, 60).round(3)
    lines = ["path,target"]
    for number, value in enumerate(values):
        (folder / f"{number}.png").write_bytes(picture(value, number))
        lines.append(f"{number}.png,{value}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder / "labels.csv"


def configure(table, *more):
    return whole_way.configure(table, "task.name=brightness", *more)


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    return FolderRegistry(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def trained(table, tmp_path_factory, registry):
    config = configure(table, "plan.strategy=linear_probe")
    return go(config, tmp_path_factory.mktemp("trained"), registry)


def test_the_numbers_are_learnt_and_written(trained):
    metrics = read_json(trained.metrics, made_by="evaluate")
    assert list(metrics)[0] == "r2"
    assert metrics["r2"] > 0.8
    assert Manifest.read(trained.manifest).task == "brightness"
    assert Manifest.read(trained.manifest).strata == ["bin 0", "bin 1", "bin 2"]
    rows = list(csv.DictReader((trained.reports / "predictions.csv").open()))
    assert float(rows[0]["actual"]) == pytest.approx(float(rows[0]["predicted"]), abs=0.2)
    assert f"The R² is {metrics['r2']:.4g} on" in trained.model_card.read_text()
    assert "first model" in read_json(trained.registration, made_by="register")["reason"]


def test_model_is_measured_on_labels_of_its_task(trained, table, tmp_path):
    """Settings name the task that is trained, not the task of other models."""
    config = load_config(None, overrides=[f"data.root={table}", "train.class_weight=balanced"])
    assert config.task.name == "auto"
    metrics = evaluate_folder(config, Paths(tmp_path), model=trained.model).metrics
    assert list(metrics)[0] == "r2"
    assert metrics["n_test"] == 60


def test_the_service_answers_with_the_number(trained):
    with make_client(model=str(trained.model)) as client:
        files = [("files", ("grey.png", picture(0.7, 99))), ("files", ("bad.png", b"no"))]
        body = client.post("/v1/predict", files=files).json()
        good, bad = body["predictions"]
        assert body["model"]["task"] == "brightness"
        assert good["value"] == pytest.approx(0.7, abs=0.2)
        assert bad["error"]["reason"] == "not-an-image"
        [output] = client.get(f"/v2/models/{body['model']['name']}").json()["outputs"]
        assert output == {"name": "answer", "datatype": "BYTES", "shape": [-1]}
        schemas = client.get("/openapi.json").json()["components"]["schemas"]
        assert "value" in schemas["Prediction"]["properties"]


def test_fine_tuning_learns_number_and_meets_champion(table, tmp_path, registry, trained):
    config = configure(
        table, "plan.strategy=partial_finetune", "train.epochs=1", "train.learning_rates=[0.001]"
    )
    paths = go(config, tmp_path, registry)
    comparison = read_json(paths.registration, made_by="register")["comparison"]
    assert comparison["metric"] == "r2"
    assert comparison["n"] == read_json(paths.metrics, made_by="evaluate")["n_test"]


def test_what_task_cannot_read_is_rejected_before_work(tmp_path, table):
    (tmp_path / "odd.csv").write_text("path,target\na.png,seven\n")
    (tmp_path / "a.png").write_bytes(picture(0.5, 0))
    with pytest.raises(DataError, match="'seven' is not a number"):
        index_images(configure(tmp_path / "odd.csv"), Paths(tmp_path / "out"))
    with pytest.raises(DataError, match="folders cannot give target"):
        index_images(configure(tmp_path), Paths(tmp_path / "out"))
    for setting in ("train.class_weight=balanced", "registry.gate.metric=accuracy"):
        with pytest.raises(ConfigError, match="but the task `brightness` does not support it"):
            index_images(configure(table, setting), Paths(tmp_path / "out"))
