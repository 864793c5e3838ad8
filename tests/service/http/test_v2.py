"""The Open Inference Protocol: health, metadata, inference, and errors in its form."""

import base64
import json
import struct
import time

import numpy as np
import pytest

from tests.bundles import CLASSES, SIZE, jpeg
from tests.service.conftest import make_client
from tests.service.requests import base64_text, check_problem


def body(*contents, **changes):
    data = [base64.b64encode(content).decode() for content in contents]
    tensor = {"name": "images", "datatype": "BYTES", "shape": [len(data)], "data": data} | changes
    return {"id": "7", "inputs": [tensor]}


def infer(client, request, path="/v2/models/tiny/infer"):
    return client.post(path, json=request)


def test_the_server_is_live_and_ready(client):
    assert client.get("/v2").json()["name"] == "rootstock"
    assert client.get("/v2/").json() == client.get("/v2").json()
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2/models/tiny/ready").json() == {"name": "tiny", "ready": True}


def test_an_empty_server_is_live_but_not_ready(empty_client):
    assert empty_client.get("/v2/health/live").status_code == 200
    for path in ("/v2/health/ready", "/v2/models/tiny/ready"):
        response = empty_client.get(path)
        assert response.json()["error"] == check_problem(response, 503, "no-model")


def test_metadata_names_the_tensors(client, predictor):
    metadata = client.get("/v2/models/tiny").json()
    assert metadata["versions"] == [predictor.info["version"]]
    assert metadata["inputs"] == [
        {"name": "images", "datatype": "BYTES", "shape": [-1]},
        {"name": "tensor", "datatype": "FP32", "shape": [-1, 3, SIZE, SIZE]},
    ]
    assert [output["shape"] for output in metadata["outputs"]] == [[-1], [-1, 3]]


def test_inference_answers_as_the_predictor(client, predictor):
    version = predictor.info["version"]
    contents = [jpeg(0), jpeg(1)]
    path = f"/v2/models/tiny/versions/{version}/infer"
    answer = infer(client, body(*contents), path=path).json()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("tiny", version, "7")
    label, probabilities = answer["outputs"]
    expected = predictor.predict(contents, top_k=3)
    assert label["data"] == [one.label for one in expected]
    assert probabilities["shape"] == [2, 3]
    shares = [{one.label: one.probability for one in answer.top} for answer in expected]
    flat = [share[name] for share in shares for name in CLASSES]
    assert probabilities["data"] == pytest.approx(flat)


def test_only_the_outputs_asked_for_are_given(client):
    answer = infer(client, body(jpeg(0)) | {"outputs": [{"name": "label"}]}).json()
    assert [output["name"] for output in answer["outputs"]] == ["label"]


def test_output_may_be_asked_for_again_and_again(client):
    """The task decides how many there are."""
    answer = infer(client, body(jpeg(0)) | {"outputs": [{"name": "label"}] * 3}).json()
    assert [output["name"] for output in answer["outputs"]] == ["label"]


def test_another_model_or_version_is_a_404(client):
    for path in ("/v2/models/other", "/v2/models/tiny/versions/9"):
        assert "'tiny'" in check_problem(client.get(path), 404, "not-found")


def test_an_unusable_image_is_named_by_its_number(client):
    response = infer(client, body(jpeg(0), b"no image at all"))
    assert check_problem(response, 422, "unusable-image").startswith("images[1]: ")
    assert response.json()["error"]


def test_a_nested_tensor_is_none_of_them(client):
    rows = np.zeros((2, 3, SIZE, SIZE)).tolist()
    tensor = {"name": "tensor", "datatype": "FP32", "shape": [2, 3, SIZE, SIZE], "data": rows}
    assert infer(client, {"inputs": [tensor]}).status_code == 200


@pytest.mark.parametrize("path", ["/v2/models/tiny/infer", "/invocations"])
@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"content-type": "text/csv"}, "Send application/json; Content-Type is 'text/csv'"),
        ({}, "Content-Type is missing"),
        ({"content-type": "application/json", "content-encoding": "gzip"}, "Content-Encoding"),
    ],
)  # fmt: skip
def test_body_that_is_not_json_is_415(client, path, headers, says):
    response = client.post(path, content=b"image\nabc", headers=headers)
    assert says in check_problem(response, 415, "unsupported-media-type")


def request_bytes(parts, **changes):
    """Return a request with image files as bytes after the JSON, and its headers."""
    binary = b"".join(struct.pack("<I", len(part)) + part for part in parts)
    tensor = {"name": "images", "datatype": "BYTES", "shape": [len(parts)],
              "parameters": {"binary_data_size": len(binary)}} | changes  # fmt: skip
    head = json.dumps({"inputs": [tensor]}).encode()
    return head + binary, {"inference-header-content-length": str(len(head))}


def test_images_as_bytes_are_answered_like_base64(client):
    contents = [jpeg(0), jpeg(1)]
    expected = infer(client, body(*contents)).json()["outputs"]
    for parts in (contents, [base64_text(one).encode() for one in contents]):
        content, headers = request_bytes(parts)
        answer = client.post("/v2/models/tiny/infer", content=content, headers=headers)
        assert answer.json()["outputs"] == expected


def test_column_of_images_is_read_like_list(client):
    expected = infer(client, body(jpeg(0))).json()["outputs"]
    text = base64_text(jpeg(0))
    for data in ([text], [[text]]):
        assert infer(client, body(jpeg(0), shape=[1, 1], data=data)).json()["outputs"] == expected


def test_outputs_come_as_bytes_if_asked(client):
    expected = infer(client, body(jpeg(0), jpeg(1))).json()["outputs"]
    answers = [
        infer(client, body(jpeg(0), jpeg(1)) | {"parameters": {"binary_data_output": True}}),
        infer(client, body(jpeg(0), jpeg(1)) | {"outputs": [
            {"name": "label"}, {"name": "probabilities", "parameters": {"binary_data": True}}]}),
    ]  # fmt: skip
    for answer in answers:
        length = int(answer.headers["inference-header-content-length"])
        label, probabilities = json.loads(answer.content[:length])["outputs"]
        rest = answer.content[length:]
        if "data" not in label:
            size = label["parameters"]["binary_data_size"]
            labels, rest = rest[:size], rest[size:]
            assert labels[4:].startswith(expected[0]["data"][0].encode())
        assert probabilities["parameters"]["binary_data_size"] == len(rest)
        assert np.frombuffer(rest, "<f4") == pytest.approx(expected[1]["data"], rel=1e-6)


def test_the_best_classes_are_given_in_order(client, predictor):
    outputs = [{"name": "probabilities", "parameters": {"classification": 2}}]
    [output] = infer(client, body(jpeg(0), jpeg(1)) | {"outputs": outputs}).json()["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 2])
    [first, _] = predictor.predict([jpeg(0), jpeg(1)], top_k=2)
    for text, one in zip(output["data"][:2], first.top, strict=True):
        value, index, label = text.split(":")
        assert (CLASSES[int(index)], label) == (one.label, one.label)
        assert float(value) == pytest.approx(one.probability, abs=1e-5)
    refused = infer(client, body(jpeg(0)) | {"outputs": [
        {"name": "label", "parameters": {"classification": 2}}]})  # fmt: skip
    assert "does not list classes" in check_problem(refused, 422, "invalid-request")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda content, headers: (content[:-1], headers), "`binary_data_size`"),
        (lambda content, headers: (content, {"inference-header-content-length": "x"}), "a length"),
        (lambda content, headers: (b"{}", headers), "a length of at most 2 bytes"),
    ],
)
def test_bytes_that_do_not_fit_are_rejected(client, spoil, says):
    content, headers = spoil(*request_bytes([jpeg(0)]))
    answer = client.post("/v2/models/tiny/infer", content=content, headers=headers)
    assert says in check_problem(answer, 422, "invalid-request")


@pytest.mark.parametrize(
    "changes",
    [{"shape": [2]}, {"data": ["aGFsbG8="]}, {"parameters": {}}, {"name": "tensor"},
     {"name": "tensor", "datatype": "FP32"}],
)  # fmt: skip
def test_a_wrong_binary_tensor_is_rejected(client, changes):
    content, headers = request_bytes([jpeg(0)], **changes)
    answer = client.post("/v2/models/tiny/infer", content=content, headers=headers)
    check_problem(answer, 422, "invalid-request")


def test_configuration_statistics_and_index_name_the_model(client):
    infer(client, body(jpeg(0)))
    config = client.get("/v2/models/tiny/config").json()
    assert (config["name"], config["max_batch_size"]) == ("tiny", 4)
    assert [tensor["dims"] for tensor in config["input"]] == [[1], [3, SIZE, SIZE]]
    assert config["output"][1]["data_type"] == "TYPE_FP32"
    for path in ("/v2/models/stats", "/v2/models/tiny/stats"):
        [entry] = client.get(path).json()["model_stats"]
        assert entry["inference_count"] >= 1
        assert entry["inference_stats"]["compute_infer"]["ns"] > 0
    [entry] = client.post("/v2/repository/index").json()
    assert (entry["name"], entry["state"]) == ("tiny", "READY")
    assert client.get("/v2/models/other/config").status_code == 404


def test_model_from_directory_has_name_of_setting():
    with make_client(model_name="flowers 12") as client:
        assert client.get("/v2/models/flowers%2012").json()["name"] == "flowers 12"
        assert client.get("/v1/model").json()["name"] == "flowers 12"


def test_a_tensor_has_a_deadline_too(monkeypatch):
    request = {"inputs": [{"name": "tensor", "datatype": "FP32", "shape": [1, 3, SIZE, SIZE],
                           "data": [0.0] * (3 * SIZE * SIZE)}]}  # fmt: skip
    with make_client(deadline_seconds=0.2) as client:
        assert infer(client, request).status_code == 200
        monkeypatch.setattr(
            client.app.state.service.holder.predictor,
            "infer_normalised",
            lambda *_: time.sleep(1),
        )
        response = infer(client, request)
    check_problem(response, 503, "too-late")
    assert response.headers["retry-after"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"shape": [2]}, "shape [2] does not fit 1 elements"),
        ({"data": ["!!"]}, "not base64"),
        ({"datatype": "FP32"}, "BYTES"),
        ({"data": ["aGFsbG8="] * 5, "shape": [5]}, "5 images; at most 4"),
    ],
)
def test_a_wrong_tensor_is_rejected(client, changes, says):
    response = infer(client, body(jpeg(0), **changes))
    assert says in check_problem(response, 422, "invalid-request")
    assert "error" in response.json()


def tensor_request(images, **changes):
    tensor = {
        "name": "tensor",
        "datatype": "FP32",
        "shape": list(images.shape),
        "data": images.ravel().tolist(),
    }
    return {"inputs": [tensor | changes]}


def test_a_prepared_tensor_is_answered_like_its_image(client, predictor):
    prepared = predictor.bundle.preprocess.normalise(predictor.prepare(jpeg(0)))
    answer = client.post("/v2/models/tiny/infer", json=tensor_request(prepared)).json()
    [expected] = predictor.predict([jpeg(0)], top_k=3)
    found = dict(zip(CLASSES, answer["outputs"][1]["data"], strict=True))
    shares = {one.label: one.probability for one in expected.top}
    assert found == pytest.approx(shares, abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"shape": [1, 3, 2, 2]}, f"is not [N, 3, {SIZE}, {SIZE}]"),
        ({"shape": [2, 3, SIZE, SIZE]}, "does not fit shape"),
        ({"datatype": "BYTES"}, "`tensor` is FP32"),
        ({"data": ["x"]}, "does not fit shape"),
        ({"data": [None] * (3 * SIZE * SIZE)}, "beyond 1e+06"),
    ],
)
def test_a_tensor_of_another_shape_is_rejected(client, changes, says):
    images = np.zeros((1, 3, SIZE, SIZE), np.float32)
    response = client.post("/v2/models/tiny/infer", json=tensor_request(images, **changes))
    assert says in check_problem(response, 422, "invalid-request")


@pytest.mark.parametrize(
    "change",
    [
        {"id": "\ud800"},
        {"inputs": [{"name": "tensor", "datatype": "FP32", "shape": [1], "data": [10**400]}]},
    ],
)
def test_what_cannot_be_answered_is_rejected(client, predictor, change):
    images = {"name": "images", "datatype": "BYTES", "shape": [1], "data": [base64_text(jpeg(0))]}
    body = {"inputs": [images]} | change
    if "inputs" in change:
        side = predictor.bundle.preprocess.input_size
        body["inputs"][0] |= {
            "shape": [1, 3, side, side],
            "data": [10**400] + [0] * (3 * side**2 - 1),
        }
    content = json.dumps(body)
    path = f"/v2/models/{client.get('/v1/model').json()['name']}/infer"
    answer = client.post(path, content=content, headers={"Content-Type": "application/json"})
    check_problem(answer, 422, "invalid-request")
