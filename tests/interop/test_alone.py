"""KServe's client, MLServer's codecs, and the protocol's published OpenAPI document."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.service.requests import base64_text

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def answers(served, alone, tmp_path_factory):
    """The answers that the clients in alone_clients.py read."""
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{number}.jpg" for number in range(len(served.images))]
    for path, image in zip(paths, served.images, strict=True):
        path.write_bytes(image)
    script = Path(__file__).with_name("alone_clients.py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script, alone, served.address, served.name, *paths],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("codec", ["base64", "str"])
def test_mlservers_codecs_send_images_and_read_answers(answers, served, codec):
    answer = answers["mlserver"][codec]
    assert answer["shape"] == [2, 1]
    assert answer["labels"] == served.labels
    assert [len(shares) for shares in answer["shares"]] == [3, 3]


@pytest.mark.parametrize("binary", [False, True])
def test_kserves_client_sends_bytes_and_reads_both_kinds(answers, served, binary):
    answer = answers["kserve"][f"binary output {binary}"]
    assert answer["labels"] == served.labels
    assert max(answer["shares"][0]) == pytest.approx(served.tops[0][0]["probability"], abs=1e-5)


def test_kserves_client_knows_what_is_ready(answers):
    assert answers["kserve"]["ready"] == [True, True, True, False]


@pytest.fixture(scope="module")
def published(alone, served):
    """The protocol's document as MLServer publishes it, without its other routes."""
    import schemathesis

    path = alone / "mlserver/rest/openapi/dataplane.json"
    # `bytes` is not a JSON Schema type; in JSON, such data is text.
    text = path.read_text(encoding="utf-8").replace('"type": "bytes"', '"type": "string"')
    document = json.loads(text)
    document["paths"] = {
        path: entry
        for path, entry in document["paths"].items()
        if not path.endswith(("infer_stream", "generate", "generate_stream"))
    }
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=served.address)
    return schema


def ask(operation, parameters):
    """Return the statuses of generated requests; half of them name the model in use."""
    from hypothesis import HealthCheck, given, settings
    from hypothesis.strategies import booleans

    seen = set()

    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(), is_known=booleans())
    def ask_once(case, is_known):
        if is_known:
            case.path_parameters = {name: parameters[name] for name in case.path_parameters or {}}
        response = case.call(timeout=30)
        assert response.status_code < 500, response.text
        seen.add(response.status_code)
        if response.status_code == 200 and response.content:
            operation.validate_response(response)

    ask_once()
    return seen


def test_generated_requests_get_conforming_answers(published, served):
    version = httpx.get(f"{served.address}/v1/model").json()["version"]
    parameters = {"model_name": served.name, "model_version": version}
    operations = [found.ok() for found in published.get_all_operations()]
    seen = {operation.label: ask(operation, parameters) for operation in operations}
    for label, statuses in seen.items():
        assert (200 in statuses) == (not label.startswith("POST")), (label, statuses)


def test_an_inference_answer_fits_the_published_document(published, served):
    tensor = {"name": "images", "datatype": "BYTES", "shape": [1],
              "data": [base64_text(served.images[0])]}  # fmt: skip
    operation = published["/v2/models/{model_name}/infer"]["POST"]
    case = operation.Case(
        path_parameters={"model_name": served.name},
        body={"inputs": [tensor]},
        media_type="application/json",
    )
    response = case.call(timeout=30)
    assert response.status_code == 200
    operation.validate_response(response)
