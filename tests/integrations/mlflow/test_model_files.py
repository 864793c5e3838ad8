"""A registered version is an MLflow model: MLflow's tools use it without Rootstock."""

import json
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from rootstock.errors import TrackingError
from rootstock.integrations.mlflow.model_files import write_model_files
from rootstock.integrations.mlflow.registry import MlflowRegistry
from rootstock.integrations.mlflow.tracking import MlflowRunLogger
from rootstock.model.bundle import read_bundle
from rootstock.model.predictor import Predictor
from rootstock.model.python_function import PythonFunction
from tests.bundles import CLASSES, jpeg, tiny_bundle, write_tiny_bundle

pytestmark = pytest.mark.integration

TOOLS = """
import base64, json, sys
sys.modules["rootstock"] = None  # any import of it fails
import mlflow, pandas as pd
from fastapi.testclient import TestClient
from mlflow.pyfunc import scoring_server

uri, model_uri, work = sys.argv[1:]
mlflow.set_tracking_uri(uri)
images = [open(f"{work}/{n}.jpg", "rb").read() for n in range(6)]
model = mlflow.pyfunc.load_model(model_uri)
assert not {"torch", "timm", "safetensors"} & set(sys.modules)
table = pd.DataFrame({"image": [*images, b"no image"]})
labels = model.predict(table)
details = model.predict(table, params={"details": True})
app = TestClient(scoring_server.init(model))
body = {
    "dataframe_split": {
        "columns": ["image"], "data": [[base64.b64encode(one).decode()] for one in images]
    },
    "params": {"details": True},
}
served = app.post("/invocations", json=body)
example = open(sys.argv[3] + "/model/serving_input_example.json").read()
own = app.post("/invocations", content=example, headers={"Content-Type": "application/json"})
data = pd.DataFrame({"image": images, "truth": list(labels[:5]) + ["another"]})
result = mlflow.models.evaluate(
    model_uri, data, targets="truth", model_type="classifier", evaluators="default",
    evaluator_config={"log_explainer": False},
)
onnx = mlflow.onnx.load_model(model_uri)
print(json.dumps({
    "labels": list(labels),
    "details": json.loads(details.to_json(orient="records")),
    "served": served.json(),
    "own": own.json(),
    "accuracy": result.metrics["accuracy_score"],
    "onnx": [one.name for one in onnx.graph.output],
}))
"""


@pytest.fixture
def entry(mlflow_uri, request):
    """The tiny bundle, registered."""
    with MlflowRunLogger(mlflow_uri, "models").run("train") as run:
        return MlflowRegistry(mlflow_uri).register(
            request.node.name, tiny_bundle(), run_id=run.id, tags={}, description="d"
        )


def test_mlflow_uses_a_version_without_rootstock(mlflow_uri, entry, tmp_path):
    contents = [jpeg(seed) for seed in range(6)]
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.jpg").write_bytes(content)
    MlflowRegistry(mlflow_uri).download(entry, tmp_path / "model")
    arguments = [mlflow_uri, f"models:/{entry.name}/1", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", TOOLS, *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    expected = Predictor(tiny_bundle(), engine="onnx").predict(contents)
    assert found["labels"] == [*(one.label for one in expected), None]
    assert [row["label"] for row in found["served"]["predictions"]] == found["labels"][:6]
    for row, answer in zip(found["details"], expected, strict=False):
        assert row["probability"] == pytest.approx(answer.probability, abs=1e-5)
        assert row["unknown"] == answer.unknown
        assert row["error"] is None
    assert "not an image" in found["details"][6]["error"]
    assert found["details"][6]["label"] is None
    assert found["own"]["predictions"][0] in CLASSES
    assert found["accuracy"] == pytest.approx(5 / 6)
    assert found["onnx"] == ["logits", "features", "map0"]


def test_a_version_comes_back_as_a_whole_bundle(mlflow_uri, entry, tmp_path):
    folder = MlflowRegistry(mlflow_uri).download(entry, tmp_path / "model")
    bundle = read_bundle(folder)
    listed = json.loads((folder / "checksums.json").read_text())
    files = {one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file()}
    assert files == {*listed, "checksums.json"}
    assert {"MLmodel", "code.zip", "requirements.txt", "model.onnx"} < set(listed)
    assert Predictor(bundle).predict([jpeg(0)])[0].label in CLASSES


def test_signature_and_requirements_are_those_of_images(mlflow_uri, entry, tmp_path):
    from mlflow.models import Model

    folder = MlflowRegistry(mlflow_uri).download(entry, tmp_path / "model")
    model = Model.load(str(folder))
    assert set(model.flavors) == {"python_function", "onnx"}
    assert model.signature.inputs.input_names() == ["image"]
    assert model.run_id == entry.run_id
    assert model.load_input_example(str(folder)).columns.tolist() == ["image"]


def test_requirements_name_public_packages(tmp_path):
    write_model_files(read_bundle(tiny_bundle()), tmp_path, run_id="r", folder="model")
    names = [line.partition("==")[0] for line in (tmp_path / "requirements.txt").open()]
    assert names == ["mlflow", "numpy", "onnx", "onnxruntime", "pillow"]


def test_same_code_is_the_same_archive(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_model_files(read_bundle(tiny_bundle()), tmp_path / folder, run_id="r", folder="m")
    assert (tmp_path / "a/code.zip").read_bytes() == (tmp_path / "b/code.zip").read_bytes()


def test_folder_that_is_not_bundle_is_not_fetched(mlflow_uri, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/notes.txt").write_text("n")
    with MlflowRunLogger(mlflow_uri, "models").run("train") as run:
        registry = MlflowRegistry(mlflow_uri)
        entry = registry.register(
            "plain", tmp_path / "model", run_id=run.id, tags={}, description=""
        )
    with pytest.raises(TrackingError, match=r"no bundle\.json"):
        registry.download(entry, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_base64_text_and_bytes_are_the_same_image():
    import base64

    function = PythonFunction(tiny_bundle())
    content = jpeg(3)
    text = base64.encodebytes(content).decode()
    assert list(function.predict([content, text])) == [function.predict(content)[0]] * 2


def test_index_of_a_table_is_kept():
    function = PythonFunction(tiny_bundle())
    table = pd.DataFrame({"other": [1, 2], "image": [jpeg(0), jpeg(1)]}, index=["a", "b"])
    assert list(function.predict(table, {"details": True}).index) == ["a", "b"]


def test_damaged_golden_image_stops_the_python_function(tmp_path):
    from rootstock.errors import BundleError
    from tests.model.test_bundle import change

    write_tiny_bundle(tmp_path / "fresh")
    folder = shutil.copytree(tmp_path / "fresh", tmp_path / "model")
    change(folder, "golden/golden.json", lambda tree: tree["samples"][0]["logits"].reverse())
    with pytest.raises(BundleError, match="golden image 0"):
        PythonFunction(folder)
