"""The Open Inference Protocol over gRPC: keys, limits, statuses, swaps and the end."""

import shutil
import signal
import threading
import time

import grpc
import numpy as np
import pytest

from rootstock.service.rpc.messages import MESSAGES, SERVICE, count_fields
from tests.bundles import CLASSES, SIZE, jpeg, tiny_bundle, write_tiny_bundle
from tests.service.conftest import make_client
from tests.service.requests import post_files, wait_for
from tests.service.test_serve import running


def call(channel, method, message=None, metadata=(), timeout=20):
    """Return the answer to a message, or to bytes in its place."""
    raw = message if isinstance(message, bytes) else None
    message = message if message is not None else MESSAGES[f"{method}Request"]()
    stub = channel.unary_unary(
        f"/{SERVICE}/{method}",
        request_serializer=None if raw is not None else type(message).SerializeToString,
        response_deserializer=MESSAGES[f"{method}Response"].FromString,
    )
    return stub(message, metadata=metadata, timeout=timeout)


def images(*contents, model="tiny", raw=False):
    request = MESSAGES["ModelInferRequest"](model_name=model)
    tensor = request.inputs.add(name="images", datatype="BYTES", shape=[len(contents)])
    if raw:
        parts = [len(content).to_bytes(4, "little") + content for content in contents]
        request.raw_input_contents.append(b"".join(parts))
    else:
        tensor.contents.bytes_contents.extend(contents)
    return request


def status_of(channel, *arguments, **options):
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, *arguments, **options)
    return caught.value.code().name


@pytest.fixture(scope="module")
def client():
    with make_client(grpc_port=0, max_images=4, max_body_bytes=500_000) as client:
        yield client


def open_channel(client):
    return grpc.insecure_channel(f"127.0.0.1:{client.app.state.rpc.port}")


@pytest.fixture(scope="module")
def channel(client):
    with open_channel(client) as channel:
        yield channel


@pytest.mark.parametrize("raw", [False, True])
def test_images_are_answered_as_over_http(client, channel, raw):
    expected = post_files(client, ("a", jpeg(0)), ("b", jpeg(1))).json()["predictions"]
    answer = call(channel, "ModelInfer", images(jpeg(0), jpeg(1), raw=raw))
    label, probabilities = answer.outputs
    assert (answer.model_name, list(label.shape), list(probabilities.shape)) == (
        "tiny", [2], [2, len(CLASSES)]
    )  # fmt: skip
    if raw:
        assert not label.contents.ByteSize()
        rows = np.frombuffer(answer.raw_output_contents[1], "<f4").reshape(2, -1)
    else:
        labels = [text.decode() for text in label.contents.bytes_contents]
        assert labels == [one["top"][0]["label"] for one in expected]
        rows = np.reshape(probabilities.contents.fp32_contents, (2, -1))
    assert rows.max(axis=1) == pytest.approx(
        [one["top"][0]["probability"] for one in expected], abs=1e-5
    )


def test_tensors_and_chosen_outputs_are_answered(channel):
    request = MESSAGES["ModelInferRequest"](model_name="tiny", id="7")
    tensor = request.inputs.add(name="tensor", datatype="FP32", shape=[1, 3, SIZE, SIZE])
    tensor.contents.fp32_contents.extend([0.0] * (3 * SIZE * SIZE))
    request.outputs.add(name="probabilities").parameters["classification"].int64_param = 2
    answer = call(channel, "ModelInfer", request)
    [output] = answer.outputs
    assert (answer.id, output.datatype, list(output.shape)) == ("7", "BYTES", [1, 2])
    assert output.contents.bytes_contents[0].decode().split(":")[2] in CLASSES


def test_the_calls_about_server_and_model_work(channel):
    assert call(channel, "ServerLive").live
    assert call(channel, "ServerReady").ready
    assert call(channel, "ServerMetadata").name == "rootstock"
    ask = MESSAGES["ModelReadyRequest"]
    assert call(channel, "ModelReady", ask(name="tiny")).ready
    assert not call(channel, "ModelReady", ask(name="other")).ready
    metadata = call(channel, "ModelMetadata", MESSAGES["ModelMetadataRequest"](name="tiny"))
    assert [list(one.shape) for one in metadata.inputs] == [[-1], [-1, 3, SIZE, SIZE]]


def change(**fields):
    request = images(jpeg(0))
    for name, value in fields.items():
        setattr(request.inputs[0], name, value)
    return request


def with_two_contents():
    request = images(jpeg(0), raw=True)
    request.inputs[0].contents.bytes_contents.append(jpeg(0))
    return request


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (lambda: images(b"not an image"), "INVALID_ARGUMENT"),
        (lambda: change(datatype="FP32"), "INVALID_ARGUMENT"),
        (lambda: change(datatype="INT8"), "INVALID_ARGUMENT"),
        (lambda: change(name="pictures"), "INVALID_ARGUMENT"),
        (lambda: images(*[jpeg(0)] * 5), "INVALID_ARGUMENT"),
        (with_two_contents, "INVALID_ARGUMENT"),
        (lambda: MESSAGES["ModelInferRequest"](model_name="tiny"), "INVALID_ARGUMENT"),
        (lambda: images(jpeg(0), model="other"), "NOT_FOUND"),
        (lambda: images(b"x" * 600_000), "RESOURCE_EXHAUSTED"),
        (lambda: b"\xff\xff\xff", "INVALID_ARGUMENT"),
        (lambda: b"\x2a\x00" * 100_000, "INVALID_ARGUMENT"),
    ],
)
def test_what_cannot_be_answered_has_a_status(channel, message, status):
    assert status_of(channel, "ModelInfer", message()) == status
    assert call(channel, "ModelInfer", images(jpeg(0))).outputs


def test_compressed_messages_are_not_unpacked(client):
    target = f"127.0.0.1:{client.app.state.rpc.port}"
    with grpc.insecure_channel(target, compression=grpc.Compression.Gzip) as channel:
        assert status_of(channel, "ModelInfer", images(bytes(10_000))) == "UNIMPLEMENTED"


def test_keys_are_asked_for_as_over_http(keys):
    path, (key, _, _) = keys
    with make_client(grpc_port=0, keys=path) as client, open_channel(client) as channel:
        assert call(channel, "ServerLive").live
        assert call(channel, "ServerReady").ready
        for method in ("ModelInfer", "ModelReady", "ModelMetadata", "ServerMetadata"):
            assert status_of(channel, method) == "UNAUTHENTICATED"
        assert status_of(channel, "ModelInfer", metadata=[("x-api-key", "no")]) == "UNAUTHENTICATED"
        for metadata in (("x-api-key", key), ("authorization", f"Bearer {key}")):
            assert call(channel, "ModelInfer", images(jpeg(0)), [metadata]).outputs


def test_rate_queue_and_deadline_are_those_of_http(monkeypatch):
    with make_client(grpc_port=0, max_queue=2) as client, open_channel(client) as channel:
        client.app.state.service.in_flight = 2
        assert status_of(channel, "ModelInfer", images(jpeg(0))) == "UNAVAILABLE"
        client.app.state.service.in_flight = 0
        assert call(channel, "ModelInfer", images(jpeg(0))).outputs
        text = client.get("/metrics").text
        route = f"/{SERVICE}/ModelInfer"
        requests = "rootstock_http_requests_total"
        assert f'{requests}{{method="GRPC",route="{route}",status="503"}} 1.0' in text
        assert f'{requests}{{method="GRPC",route="{route}",status="200"}} 1.0' in text
        assert 'rootstock_problems_total{type="overloaded"} 1.0' in text
    with (
        make_client(grpc_port=0, rate_per_second=0.01, rate_burst=1) as client,
        open_channel(client) as channel,
    ):
        # An empty request names no model, and counts all the same.
        seen = [status_of(channel, "ModelInfer", b"") for _ in range(3)]
        assert seen == ["NOT_FOUND", "RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED"]


def test_a_client_that_leaves_takes_its_images_along(monkeypatch):
    started, end = threading.Event(), threading.Event()

    with make_client(grpc_port=0) as client, open_channel(client) as channel:
        service = client.app.state.service
        infer = service.holder.predictor.infer

        def wait(prepared):
            started.set()
            end.wait(20)
            return infer(prepared)

        monkeypatch.setattr(service.holder.predictor, "infer", wait)
        stub = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        future = stub.future(images(jpeg(0)).SerializeToString())
        assert started.wait(20)
        assert service.in_flight == 1
        future.cancel()
        wait_for(lambda: service.in_flight == 0)
        end.set()


def test_a_caller_who_sends_nothing_keeps_no_other_waiting(keys):
    path, (slow, other, _) = keys
    chosen = {"keys": path, "body_seconds": 3, "max_buffered_bytes": 4_000_000}
    with (
        make_client(grpc_port=0, max_body_bytes=1_000_000, **chosen) as client,
        open_channel(client) as channel,
    ):
        end = threading.Event()

        def send_nothing():
            end.wait(20)
            yield from ()

        stub = channel.stream_unary(f"/{SERVICE}/ModelInfer")
        waiting = [stub.future(send_nothing(), metadata=[("x-api-key", slow)]) for _ in range(8)]
        time.sleep(0.3)
        assert call(channel, "ModelInfer", images(jpeg(0)), [("x-api-key", other)], 2).outputs
        assert {one.exception(20).code().name for one in waiting} == {"DEADLINE_EXCEEDED"}
        end.set()


@pytest.mark.integration
def test_no_call_is_lost_while_models_are_swapped(tmp_path):
    shutil.copytree(tiny_bundle(), tmp_path / "tiny")
    with make_client(model=str(tmp_path / "tiny"), grpc_port=0) as client:
        failures, versions, over = [], set(), threading.Event()

        def send():
            with open_channel(client) as channel:
                while not over.is_set():
                    try:
                        answer = call(channel, "ModelInfer", images(jpeg(0)))
                        versions.add(answer.model_version)
                    except grpc.RpcError as error:
                        failures.append(error.details())

        threads = [threading.Thread(target=send) for _ in range(8)]
        for thread in threads:
            thread.start()
        holder = client.app.state.service.holder
        for temperature in (2.0, 3.0):
            shutil.rmtree(tmp_path / "tiny")
            write_tiny_bundle(tmp_path / "tiny", calibration={"temperature": temperature})
            holder.refresh(again=True)
        time.sleep(0.5)
        over.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert len(versions) == 3


@pytest.mark.integration
def test_a_running_call_is_answered_after_sigterm():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with running("--model", str(tiny_bundle()), "--grpc-port", str(port)) as (_, process):
        channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        request = images(*[jpeg(seed) for seed in range(60)])
        call(channel, "ModelInfer", images(jpeg(0)))
        stub = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        futures = [stub.future(request.SerializeToString()) for _ in range(2)]
        time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert all(future.result(timeout=20) for future in futures)
        assert process.wait(timeout=20) == 0


def test_fields_are_counted_in_lists_of_messages():
    request = images(*[b""] * 100)
    assert count_fields(memoryview(request.SerializeToString()), 1000) == 1 + 1 + 4 + 100
    assert count_fields(memoryview(b"\x2a\x00" * 10_000), 50) == 51
    assert count_fields(memoryview(b"\x2a\xff\xff\xff\xff"), 50) == 1
