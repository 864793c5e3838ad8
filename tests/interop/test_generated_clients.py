"""Clients generated from the OpenAPI document."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.integration

USE_OPENAPI_PYTHON_CLIENT = """
import io, sys
from made import Client
from made.api.prediction import predict, model
from made.models import ImageForm, PredictAnswer
from made.types import File

address, *paths = sys.argv[1:]
client = Client(base_url=address)
files = [File(payload=open(path, "rb"), file_name=path) for path in paths]
answer = predict.sync(client=client, body=ImageForm(files=files), top_k=1)
assert isinstance(answer, PredictAnswer), answer
one = predict.sync(client=client, body=File(payload=open(paths[0], "rb")))
assert one.predictions[0].top[0].label == answer.predictions[0].top[0].label
problem = predict.sync(client=client, body=File(payload=io.BytesIO(b"x")))
assert problem.status == 422 and problem.reason == "not-an-image"
assert model.sync(client=client).name == "flowers"
print(*(prediction.top[0].label for prediction in answer.predictions))
"""

USE_OPENAPI_GENERATOR = """
import sys
import made

address, *paths = sys.argv[1:]
api = made.PredictionApi(made.ApiClient(made.Configuration(host=address)))
answer = api.predict(files=paths, top_k=1)
try:
    api.predict(files=[("x", b"x")])
except made.ApiException as error:
    assert error.status == 422
assert api.model().name == "flowers"
print(*(prediction.top[0].label for prediction in answer.predictions))
"""


@pytest.fixture
def document(served, tmp_path):
    path = tmp_path / "openapi.json"
    path.write_bytes(httpx.get(f"{served.address}/openapi.json").content)
    return path


@pytest.fixture
def use(served, tmp_path):
    """Run a script with the client in a folder `made` on its path; return its output."""
    paths = [tmp_path / f"{number}.jpg" for number in range(len(served.images))]
    for path, image in zip(paths, served.images, strict=True):
        path.write_bytes(image)

    def run(script):
        variables = os.environ | {"PYTHONPATH": str(tmp_path)}
        command = [sys.executable, "-c", script, served.address, *paths]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    return run


def program(name):
    found = Path(sys.executable).with_name(name)
    if not found.is_file():
        pytest.skip(f"the extra `interop` is not installed ({name})")
    return found


def generate(*command, cwd):
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_openapi_python_clients_client_classifies(served, document, use, tmp_path):
    (tmp_path / "config.yml").write_text("post_hooks: []\n")
    output = generate(
        program("openapi-python-client"), "generate", "--path", document, "--meta", "none",
        "--output-path", tmp_path / "made", "--config", tmp_path / "config.yml", cwd=tmp_path,
    )  # fmt: skip
    # It has no pictures: for the route that answers with one, the client has only errors.
    warnings = [part for part in output.split("WARNING")[1:] if "image/png" not in part]
    assert not warnings
    assert len(list((tmp_path / "made/models").iterdir())) < 75
    assert use(USE_OPENAPI_PYTHON_CLIENT) == served.labels


def test_openapi_generators_client_classifies(served, document, use, tmp_path):
    if shutil.which("java") is None:
        pytest.skip("openapi-generator needs Java, which is not installed")
    generate(
        program("openapi-generator-cli"), "generate", "-g", "python", "-i", document,
        "-o", tmp_path, "--package-name", "made", cwd=tmp_path,
    )  # fmt: skip
    assert len(list((tmp_path / "made/models").iterdir())) < 75
    assert use(USE_OPENAPI_GENERATOR) == served.labels
