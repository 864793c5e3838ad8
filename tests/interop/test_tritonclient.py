"""NVIDIA's client for Triton, over HTTP."""

import base64

import numpy as np
import pytest

pytestmark = pytest.mark.integration
httpclient = pytest.importorskip(
    "tritonclient.http", reason="the extra `interop` is not installed (tritonclient)"
)
InferenceServerException = httpclient.InferenceServerException


@pytest.fixture(scope="module")
def client(served):
    with httpclient.InferenceServerClient(served.address.removeprefix("http://")) as client:
        yield client


def image_input(values, *, binary, shape=None):
    array = np.array(values, dtype=object)
    tensor = httpclient.InferInput("images", shape or list(array.shape), "BYTES")
    tensor.set_data_from_numpy(array.reshape(shape or array.shape), binary_data=binary)
    return tensor


def base64_of(served):
    return [base64.b64encode(image) for image in served.images]


@pytest.mark.parametrize("kind", ["bytes", "column", "base64 in bytes", "base64 in JSON"])
@pytest.mark.parametrize("binary_output", [True, False])
def test_images_are_classified_however_they_are_sent(client, served, kind, binary_output):
    tensor = {
        "bytes": lambda: image_input(served.images, binary=True),
        "column": lambda: image_input(served.images, binary=True, shape=[2, 1]),
        "base64 in bytes": lambda: image_input(base64_of(served), binary=True),
        "base64 in JSON": lambda: image_input(base64_of(served), binary=False),
    }[kind]()
    outputs = [
        httpclient.InferRequestedOutput(name, binary_data=binary_output)
        for name in ("label", "probabilities")
    ]
    result = client.infer(served.name, [tensor], outputs=outputs, request_id="7")
    labels = [label if isinstance(label, str) else label.decode()
              for label in result.as_numpy("label")]  # fmt: skip
    assert labels == served.labels
    assert result.as_numpy("probabilities").shape == (2, 3)
    assert result.as_numpy("probabilities").max(axis=1) == pytest.approx(
        [top[0]["probability"] for top in served.tops], abs=1e-5
    )
    assert result.get_response()["id"] == "7"


def test_outputs_that_are_not_named_all_come(client, served):
    result = client.infer(served.name, [image_input(served.images, binary=True)])
    assert result.as_numpy("label").tolist() == [label.encode() for label in served.labels]
    assert result.as_numpy("probabilities").dtype == np.float32


def test_class_count_gives_the_best_classes(client, served):
    output = httpclient.InferRequestedOutput("probabilities", class_count=2)
    result = client.infer(
        served.name, [image_input(served.images, binary=True)], outputs=[output]
    ).as_numpy("probabilities")
    assert result.shape == (2, 2)
    assert [text.decode().split(":")[2] for text in result[:, 0]] == served.labels


def test_prepared_tensors_may_be_bytes(client, served):
    metadata = client.get_model_metadata(served.name)
    shape = [2, *metadata["inputs"][1]["shape"][1:]]
    tensor = httpclient.InferInput("tensor", shape, "FP32")
    tensor.set_data_from_numpy(np.zeros(shape, np.float32))
    first, second = client.infer(served.name, [tensor]).as_numpy("probabilities")
    assert first == pytest.approx(second)


def test_the_calls_about_server_and_model_work(client, served):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(served.name)
    assert not client.is_model_ready("another")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    version = client.get_model_metadata(served.name)["versions"][0]
    assert client.get_model_config(served.name, version)["max_batch_size"] == 64
    assert client.get_model_repository_index()[0]["name"] == served.name
    [statistics] = client.get_inference_statistics(served.name)["model_stats"]
    assert statistics["inference_count"] > 0


def test_an_error_is_read_by_the_client(client, served):
    tensor = image_input([b"not an image"], binary=True)
    with pytest.raises(InferenceServerException, match="images.0.: "):
        client.infer(served.name, [tensor])
