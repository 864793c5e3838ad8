"""A real process on a real socket: start, answer, and SIGTERM during a request."""

import collections
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.bundles import jpeg, tiny_bundle

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]


def fails(**environment):
    """Return the output of a service that does not start."""
    arguments = () if "ROOTSTOCK_MODEL" in environment else ("--model", str(tiny_bundle()))
    process = start(*arguments, **environment)
    try:
        output = process.communicate(timeout=60)[0]
    finally:
        process.kill()
    assert process.returncode == 1, output
    return output


def start(*arguments, module="services.inference", **environment):
    port = () if "ROOTSTOCK_PORT" in environment else ("--port", "0")
    return subprocess.Popen(
        [sys.executable, "-m", module, *port, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"src{os.pathsep}."} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=hear_terminals,  # noqa: PLW1509 - it touches no lock
    )


def hear_terminals():
    """Undo a nohup around the tests: the service must notice a closing terminal."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def address_of(process):
    for line in process.stdout:
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            return found[0]
    raise AssertionError("the service ended before it listened")


def drain(process):
    """Read the logs: a full pipe would block the service."""
    threading.Thread(target=process.stdout.read, daemon=True).start()


@contextlib.contextmanager
def running(*arguments, **environment):
    """(address, process) of a service that is stopped afterwards."""
    process = start(*arguments, **environment)
    try:
        address = address_of(process)
        drain(process)
        yield address, process
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
        process.stdout.close()


@contextlib.contextmanager
def serving_command(command, *, folder, variables):
    """The address of a command that serves, which has to end within 30 seconds afterwards."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        address = address_of(process)
        drain(process)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)
        process.stdout.close()


def test_process_answers_and_finishes_its_requests_on_sigterm():
    process = start("--model", str(tiny_bundle()))
    try:
        base = address_of(process)
        assert httpx.get(f"{base}/readyz").status_code == 200
        answers = []

        def slow_body():
            yield jpeg(0)[:100]
            time.sleep(1.0)
            yield jpeg(0)[100:]

        def send():
            headers = {"content-type": "image/jpeg"}
            answers.append(
                httpx.post(f"{base}/v1/predict", content=slow_body(), headers=headers, timeout=20)
            )

        sender = threading.Thread(target=send)
        sender.start()
        time.sleep(0.4)
        process.send_signal(signal.SIGTERM)
        sender.join()
        assert answers[0].status_code == 200
        assert process.wait(timeout=15) == 0
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def test_a_long_upload_hears_why_it_is_rejected():
    process = start("--model", str(tiny_bundle()), ROOTSTOCK_MAX_BODY_BYTES="100000")
    try:
        base = address_of(process)
        for content in (b"x" * 5_000_000, (b"x" * 100_000 for _ in range(50))):
            answer = httpx.post(
                f"{base}/v1/predict", content=content, headers={"content-type": "image/jpeg"}
            )
            assert answer.status_code == 413
            assert answer.json()["type"] == "urn:rootstock:problem:too-large"
        assert httpx.get(f"{base}/healthz").status_code == 200
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


@pytest.mark.parametrize("module", ["services.inference", "rootstock.service"])
def test_directory_that_is_not_model_ends_start(module):
    process = start("--model", "no/such/model", module=module)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "error: there is no model directory no/such/model" in output
    assert "Traceback" not in output


def test_a_folder_above_the_model_is_reported(tmp_path):
    shutil.copytree(tiny_bundle(), tmp_path / "run/artifacts/model")
    output = fails(ROOTSTOCK_MODEL=str(tmp_path / "run"))
    assert f"{tmp_path}/run is not a model" in output
    assert f"did you mean {tmp_path}/run/artifacts/model?" in output


def test_port_in_use_ends_start_at_once():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        output = fails(ROOTSTOCK_MODEL="no/such/model", ROOTSTOCK_PORT=str(port))
    assert f"cannot listen on 127.0.0.1, port {port}: address already in use" in output
    assert "--port 8001" in output


def test_service_with_nothing_trained_says_what_to_do(tmp_path):
    process = start(ROOTSTOCK_ROOT=str(tmp_path))
    try:
        lines = iter(process.stdout.readline, "")
        line = next(line for line in lines if "no model yet" in line)
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
    assert "rootstock train" in line
    assert "--model" in line


def test_a_wrong_setting_ends_the_start():
    process = start(ROOTSTOCK_DECODERS="none")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "decoders: Input should be a valid integer" in output


def decoders_of(process):
    """Return the process ids of a service's decoders."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_text().rpartition(")")[2].split()[1]) == process.pid:
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_killed_decoders_lose_only_their_images():
    process = start("--model", str(tiny_bundle()), ROOTSTOCK_DECODERS="2")
    try:
        base = address_of(process)
        drain(process)
        answers, stop = [], threading.Event()

        def ask():
            with httpx.Client(base_url=base, timeout=30) as client:
                while not stop.is_set():
                    answer = client.post(
                        "/v1/predict", content=jpeg(0), headers={"content-type": "image/jpeg"}
                    )
                    answers.append((answer.status_code, answer.headers.get("retry-after")))

        askers = [threading.Thread(target=ask) for _ in range(4)]
        for thread in askers:
            thread.start()
        killed = 0
        for _ in range(5):
            time.sleep(0.5)
            before = len(answers)
            os.kill(decoders_of(process)[0], signal.SIGKILL)
            killed += 1
        time.sleep(1.5)
        assert len(decoders_of(process)) == 2
        stop.set()
        for thread in askers:
            thread.join()
        assert set(answers) <= {(200, None), (503, "1")}
        assert sum(status == 503 for status, _ in answers) <= killed
        assert (200, None) in answers[before + 10 :]
    finally:
        process.kill()
        process.wait()


def test_a_lingering_service_is_not_ready_but_answers():
    process = start("--model", str(tiny_bundle()), ROOTSTOCK_LINGER_SECONDS="2")
    try:
        base = address_of(process)
        drain(process)
        assert httpx.get(f"{base}/readyz").status_code == 200
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert httpx.get(f"{base}/readyz").status_code == 503
        assert httpx.get(f"{base}/healthz").status_code == 200
        answer = httpx.post(
            f"{base}/v1/predict", content=jpeg(0), headers={"content-type": "image/jpeg"}
        )
        assert answer.status_code == 200
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def wire(address):
    """Open a raw connection."""
    host, _, port = address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        yield connection


def read_all(connection):
    """Return everything that arrives until the other side closes."""
    return b"".join(iter(lambda: connection.recv(65_536), b""))


HEAD = b"POST /v1/predict HTTP/1.1\r\nhost: a\r\ncontent-type: image/jpeg\r\n"


@pytest.mark.parametrize("held", ["body", "decoder"])
def test_request_that_outlasts_shutdown_gets_503(held):
    """During a body, or its processing: a clean 503 when the service stops waiting."""
    process = start("--model", str(tiny_bundle()), ROOTSTOCK_DRAIN_SECONDS="1",
                    ROOTSTOCK_DECODERS="1", ROOTSTOCK_DECODE_SECONDS="60")  # fmt: skip
    try:
        address = address_of(process)
        drain(process)
        if held == "decoder":
            os.kill(decoders_of(process)[0], signal.SIGSTOP)
        with wire(address) as connection:
            body = jpeg(0)
            whole = body if held == "decoder" else body[:100]
            connection.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(body) + whole)
            time.sleep(0.3)
            process.terminate()
            answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"urn:rootstock:problem:lost" in answer
        assert b"retry-after: 1" in answer.lower()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def test_silent_connections_are_closed_and_others_are_not():
    with running("--model", str(tiny_bundle()), ROOTSTOCK_HEADER_SECONDS="1") as (address, _):
        began = time.monotonic()
        with wire(address) as silent, wire(address) as slow, wire(address) as again:
            slow.sendall(HEAD)
            for pause in (1.5, 0):
                again.sendall(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
                answer = b""
                while not answer.endswith(b'"ok"}'):
                    answer += again.recv(65_536)
                # Between two requests the keep-alive limit holds, within one the header's.
                time.sleep(pause)
            again.sendall(b"GET /healthz HTTP/1.1\r\n")
            assert (read_all(silent), read_all(slow), read_all(again)) == (b"", b"", b"")
        assert time.monotonic() - began < 15

        def slow_body():
            yield jpeg(0)[:100]
            time.sleep(2)
            yield jpeg(0)[100:]

        headers = {"content-type": "image/jpeg"}
        answer = httpx.post(f"{address}/v1/predict", content=slow_body(), headers=headers)
        assert answer.status_code == 200


def test_a_header_without_end_is_cut_off():
    with running("--model", str(tiny_bundle())) as (address, _), wire(address) as connection:
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                connection.sendall(b"GET /" + b"a" * 100_000)
        with contextlib.suppress(ConnectionError):
            assert read_all(connection) == b""
        assert httpx.get(f"{address}/healthz").status_code == 200


def test_rest_of_rejected_body_is_not_header():
    """The rest arrives after the rejection, and the connection serves the next request."""
    body, good = b"x" * 500_000, jpeg(0)
    patience = {"ROOTSTOCK_HEADER_SECONDS": "1"}
    with (
        running("--model", str(tiny_bundle()), **patience) as (address, _),
        wire(address) as connection,
    ):

        def hear(word):
            answer = b""
            while word not in answer:
                part = connection.recv(65_536)
                assert part, "the connection was closed"
                answer += part

        for _ in range(3):
            wrong = b"POST /none HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(body)
            connection.sendall(wrong + body[:1000])
            hear(b"not-found")
            for begin in range(1000, len(body), 50_000):
                connection.sendall(body[begin : begin + 50_000])
                time.sleep(0.01)
            time.sleep(1.2)
        connection.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(good) + good)
        hear(b"predictions")


def test_a_terminal_that_closes_costs_no_request():
    process = start("--model", str(tiny_bundle()))
    try:
        address = address_of(process)
        drain(process)
        with wire(address) as connection:
            connection.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(jpeg(0)))
            time.sleep(0.2)
            process.send_signal(signal.SIGHUP)
            time.sleep(0.5)
            connection.sendall(jpeg(0))
            assert read_all(connection).startswith(b"HTTP/1.1 200")
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def test_hanging_registry_does_not_delay_shutdown(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = start(ROOTSTOCK_ROOT=str(tmp_path), MLFLOW_TRACKING_URI=address)
        try:
            address_of(process)
            drain(process)
            silent.settimeout(60)
            with silent.accept()[0]:  # it has sent its request, and waits
                process.terminate()
                # requests would retry for minutes
                assert process.wait(15) == 0
        finally:
            process.kill()
            process.wait()


def test_slow_body_and_client_that_left_hold_nothing():
    with running(
        "--model", str(tiny_bundle()), ROOTSTOCK_BODY_SECONDS="1", ROOTSTOCK_DECODERS="1"
    ) as (address, process):
        with wire(address) as connection:
            connection.sendall(HEAD + b"content-length: 5000\r\n\r\nxx")
            answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"too-slow" in answer
        [decoder] = decoders_of(process)
        os.kill(decoder, signal.SIGSTOP)
        try:
            with contextlib.ExitStack() as leaving:
                for _ in range(3):
                    connection = leaving.enter_context(wire(address))
                    head = b"content-length: %d\r\n\r\n" % len(jpeg(0))
                    connection.sendall(HEAD + head + jpeg(0))
                wait_until(lambda: "rootstock_queue_images 3.0" in metrics_of(address))
            wait_until(lambda: "rootstock_queue_images 0.0" in metrics_of(address))
        finally:
            os.kill(decoder, signal.SIGCONT)
        answer = httpx.post(
            f"{address}/v1/predict", content=jpeg(0), headers={"content-type": "image/jpeg"}
        )
        assert answer.status_code == 200
        # No image was started: only the first was already in the decoder.
        assert count_of(address, 'rootstock_stage_duration_seconds_count{stage="infer"}') <= 2


def metrics_of(address):
    return httpx.get(f"{address}/metrics").text


def count_of(address, name):
    [line] = [line for line in metrics_of(address).splitlines() if line.startswith(name)]
    return float(line.rsplit(" ", 1)[1])


def wait_until(found, seconds=20):
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_traces_are_sent_to_the_configured_address():
    process = start("--model", str(tiny_bundle()), OTEL_TRACES_EXPORTER="console")
    try:
        base = address_of(process)
        answer = httpx.post(
            f"{base}/v1/predict",
            content=jpeg(0),
            headers={"content-type": "image/jpeg", "traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"},
        )
        assert answer.status_code == 200
        process.terminate()
        output = process.stdout.read()
    finally:
        process.kill()
        process.wait()
    for name in ("decode", "infer", "POST /v1/predict"):
        assert f'"name": "{name}"' in output
    # All in the caller's trace
    assert set(re.findall(r'"trace_id": "0x(\w+)"', output)) == {"ab" * 16}


def test_tracer_that_is_not_installed_ends_start():
    process = start(OTEL_TRACES_EXPORTER="zipkin")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "supported are otlp, console" in output


FORM = {"content-type": "multipart/form-data; boundary=x"}
CHUNKED = {"transfer-encoding": "chunked"}
PART = b'--x\r\ncontent-disposition: form-data; name="files"; filename="a"\r\n\r\n'


def test_a_refusal_is_not_lost_with_its_connection():
    """A proxy sends everything before it reads; a reset would look like a broken service."""
    content = b"x" * 20_000_000
    cases = [
        ("/v1/predict", {}, content + content, 413),
        ("/v1/predict", CHUNKED, b"%x\r\n%b\r\n0\r\n\r\n" % (40_000_000, content + content), 413),
        ("/v1/explain", FORM, PART * 10 + content, 400),
        ("/admin/pin", {}, content, 403),
        ("/v1/nowhere", {}, content, 404),
    ]
    settings = {"ROOTSTOCK_MAX_BODY_BYTES": "30000000"}
    with running("--model", str(tiny_bundle()), **settings) as (address, _):
        host, _, port = address.removeprefix("http://").partition(":")
        for path, headers, body, status in cases * 3:
            length = {} if headers is CHUNKED else {"content-length": len(body)}
            head = {"host": "x", "content-type": "image/jpeg", "connection": "close"}
            lines = [f"{name}: {value}" for name, value in (head | length | headers).items()]
            start = "\r\n".join([f"POST {path} HTTP/1.1", *lines, "", ""])
            with socket.create_connection((host, int(port)), timeout=20) as wire:
                wire.sendall(start.encode() + body)
                answer = b"".join(iter(lambda: wire.recv(65_536), b""))  # noqa: B023
            assert answer.startswith(b"HTTP/1.1 %d" % status)


def test_ending_service_answers_or_refuses_connections():
    """A refused connection is retried elsewhere; one that closes unanswered is an error."""
    process = start("--model", str(tiny_bundle()), ROOTSTOCK_LINGER_SECONDS="0.3")
    address = address_of(process)
    drain(process)
    seen, lock = collections.Counter(), threading.Lock()

    def ask():
        while process.poll() is None:
            try:
                answer = httpx.post(f"{address}/v1/predict", content=jpeg(0),
                                    headers={"content-type": "image/jpeg"}, timeout=20)  # fmt: skip
                what = answer.status_code
            except httpx.ConnectError:
                what = "refused"
            except httpx.HTTPError as error:
                what = repr(error)
            with lock:
                seen[what] += 1

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    time.sleep(0.5)
    process.terminate()
    for asker in askers:
        asker.join(30)
    assert process.wait(20) == 0
    assert seen[200]
    assert set(seen) <= {200, "refused"}, seen


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("ROOTSTOCK_KEY", "keys.txt", "did you mean ROOTSTOCK_KEYS?"),
        ("ROOTSTOCK_KEYS", "", "ROOTSTOCK_KEYS is empty"),
        ("ROOTSTOCK_API_KEY__FILE", "keys.txt", "did you mean ROOTSTOCK_KEYS?"),
        ("ROOTSTOCK_MAXQUEUE", "5", "did you mean ROOTSTOCK_MAX_QUEUE?"),
        ("ROOTSTOCK_MAX_BODY", "1000", "did you mean ROOTSTOCK_MAX_BODY_BYTES?"),
        ("ROOTSTOCK_RATE", "1", "did you mean ROOTSTOCK_RATE_PER_SECOND?"),
        ("ROOTSTOCK_MODEL_DIR", "m", "did you mean ROOTSTOCK_MODEL?"),
        ("ROOTSTOCK_MODEL", "rootstock@champion", "did you mean models:/rootstock@champion"),
        ("ROOTSTOCK_RETRY_SECONDS", "inf", "retry_seconds: Input should be a finite number"),
        ("ROOTSTOCK_JOURNAL", "/proc/journal", "cannot write the journal to /proc/journal"),
    ],
)
def test_wrong_setting_ends_start_with_its_name(variable, value, says):
    output = fails(**{variable: value})
    assert says in output
    assert "Traceback" not in output


def test_an_unknown_variable_is_logged():
    process = start("--model", str(tiny_bundle()), ROOTSTOCK_TIMEOUT="1", ROOTSTOCK_CORES="1")
    try:
        lines = [process.stdout.readline() for _ in range(3)]
    finally:
        process.kill()
        process.wait()
    assert any("unknown setting ROOTSTOCK_TIMEOUT is ignored" in line for line in lines)
    assert not any("CORES" in line for line in lines)


def test_killed_idle_decoders_are_replaced_early():
    process = start("--model", str(tiny_bundle()), ROOTSTOCK_DECODERS="2")
    address = address_of(process)
    drain(process)
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGKILL)
        end = time.monotonic() + 30
        while "rootstock_decoder_restarts_total 2.0" not in httpx.get(f"{address}/metrics").text:
            assert time.monotonic() < end
            time.sleep(0.2)
        asked = httpx.post(f"{address}/v1/predict", content=jpeg(0),
                           headers={"content-type": "image/jpeg"}, timeout=20)  # fmt: skip
        assert asked.status_code == 200
        assert httpx.get(f"{address}/readyz").status_code == 200
    finally:
        process.terminate()
        process.wait(20)
