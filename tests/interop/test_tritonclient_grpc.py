"""NVIDIA's client for Triton, over gRPC."""

import socket

import numpy as np
import pytest

from tests.bundles import jpeg, tiny_bundle
from tests.service.test_serve import running

pytestmark = pytest.mark.integration
grpcclient = pytest.importorskip(
    "tritonclient.grpc", reason="the extra `interop` is not installed (tritonclient)"
)
IMAGES = [jpeg(0), jpeg(1)]


@pytest.fixture(scope="module")
def client():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (
        running("--model", str(tiny_bundle()), "--grpc-port", str(port)),
        grpcclient.InferenceServerClient(f"127.0.0.1:{port}") as client,
    ):
        yield client


def image_input(values, shape=None):
    array = np.array(values, dtype=object)
    tensor = grpcclient.InferInput("images", shape or list(array.shape), "BYTES")
    tensor.set_data_from_numpy(array.reshape(shape or array.shape))
    return tensor


@pytest.mark.parametrize("shape", [[2], [2, 1]])
def test_images_are_classified(client, shape):
    result = client.infer("tiny", [image_input(IMAGES, shape)], request_id="7")
    probabilities = result.as_numpy("probabilities")
    assert probabilities.shape == (2, 3)
    assert probabilities.sum(axis=1) == pytest.approx([1, 1], abs=1e-5)
    assert result.as_numpy("label").shape == (2,)
    assert result.get_response().id == "7"


def test_class_count_gives_the_best_classes(client):
    output = grpcclient.InferRequestedOutput("probabilities", class_count=2)
    ranked = client.infer("tiny", [image_input(IMAGES)], outputs=[output])
    labels = client.infer("tiny", [image_input(IMAGES)]).as_numpy("label")
    best = [text.decode().split(":")[2] for text in ranked.as_numpy("probabilities")[:, 0]]
    assert best == [label.decode() for label in labels]


def test_prepared_tensors_are_classified(client):
    shape = [2, *client.get_model_metadata("tiny").inputs[1].shape[1:]]
    tensor = grpcclient.InferInput("tensor", shape, "FP32")
    tensor.set_data_from_numpy(np.zeros(shape, np.float32))
    first, second = client.infer("tiny", [tensor]).as_numpy("probabilities")
    assert first == pytest.approx(second)


def test_the_calls_about_server_and_model_work(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert not client.is_model_ready("another")
    assert client.get_server_metadata().name == "rootstock"


def test_an_error_is_read_by_the_client(client):
    with pytest.raises(grpcclient.InferenceServerException, match="images.0.: "):
        client.infer("tiny", [image_input([b"not an image"])])


def test_our_messages_have_numbers_of_published_ones():
    from tritonclient.grpc import service_pb2

    from rootstock.service.rpc.messages import MESSAGES

    for name, ours in MESSAGES.items():
        place = service_pb2.DESCRIPTOR.message_types_by_name
        for part in name.split("."):
            published = place[part]
            place = published.nested_types_by_name
        fields = [
            {(one.name, one.number, one.type, one.is_repeated) for one in described.fields}
            for described in (ours.DESCRIPTOR, published)
        ]
        assert fields[0] == fields[1], name
