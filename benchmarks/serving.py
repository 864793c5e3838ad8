"""Compare the service with its bound and its peers: throughput, latency, errors, memory, overload.

    python benchmarks/serving.py --model artifacts/model --images photos/

All sides use one model, the same images, and one machine, whose cores the load generator shares.
Every side is started, warmed up, loaded by 1, 8, and 64 clients, and ended. The bound is decoding
and the engine in a loop, one process per core. `mlflow models serve` and LitServe run in a separate
environment, created by --peers (needs a package index); without it they are left out.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import itertools
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import uvloop
from environments import peers_python

HERE = Path(__file__).parent
ROOT = HERE.parent
CLIENTS = (1, 8, 64)
PEERS = ["litserve==0.2.19", "mlflow==3.17.2", "onnxruntime", "onnx", "pillow", "numpy", "pandas"]


@dataclass
class Load:
    """The result of a run of requests."""

    seconds: float = 0.0
    cores: float = 0.0
    """Cores that the load generator used."""
    statuses: Counter = field(default_factory=Counter)
    times: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    advised: int = 0
    """Rejections that include a time to retry."""

    @property
    def rate(self) -> float:
        """Answers with 200 per second."""
        return self.statuses[200] / self.seconds

    def percentile(self, q: float) -> float:
        """Milliseconds of answers with 200."""
        return percentile(self.times, q)


def percentile(seconds: list[float], q: float) -> float:
    """Return a percentile in milliseconds."""
    return float(np.percentile(seconds, q)) * 1000 if seconds else float("nan")


def main() -> int:
    """Measure every side, and print the tables."""
    options = parse_options()
    contents = [path.read_bytes() for path in sorted(options.images.rglob("*.jpg"))[:200]]
    if not contents:
        print(
            f"{options.images} has no .jpg file; set --images to a folder of JPEG files",
            file=sys.stderr,
        )
        return 1
    print(
        f"{len(contents)} images of {np.mean([len(c) for c in contents]) / 1000:.0f} kB on average"
    )
    cores = len(os.sched_getaffinity(0))
    bound = measure_bound(options.model, contents, options.seconds, cores)
    print(f"\nbound: decoding and engine on {cores} cores: {bound:.0f} images/s\n")
    if options.layouts:
        compare_layouts(options, contents, bound, cores)
        return 0
    heads = ["side", "clients", "requests/s", "of the bound", "per core left", "p50 ms", "p99 ms"]
    print(f"| {' | '.join([*heads, 'errors', 'memory MB'])} |")
    print("| --- " * 9 + "|")
    best: dict[str, float] = {}
    for name, command, environment, path, bodies in sides(options, contents):
        with served(command, environment, ready=path[1]) as (port, process):
            peak = 0.0
            for clients in CLIENTS:
                requests = [request_bytes(path[0], *body) for body in bodies]
                uvloop.run(fire(port, requests, clients=clients, seconds=2))
                load = uvloop.run(fire(port, requests, clients=clients, seconds=options.seconds))
                peak = max(peak, load.rate)
                errors = sum(load.statuses.values()) - load.statuses[200]
                print(
                    f"| {name} | {clients} | {load.rate:.0f} | {load.rate / bound:.2f} "
                    f"| {load.rate / bound * cores / (cores - load.cores):.2f} "
                    f"| {load.percentile(50):.1f} | {load.percentile(99):.1f} | {errors} "
                    f"| {memory_of(process.pid):.0f} |",
                    flush=True,
                )
            best[name] = peak
            if name == "rootstock":
                half_load(port, requests, peak, options.seconds)
                overload(port, requests, peak, options, process.pid)
    again = measure_bound(options.model, contents, options.seconds, cores)
    print(f"the bound again, at the end: {again:.0f} images/s")
    for name, rate in best.items():
        if name != "rootstock":
            print(f"rootstock / {name}: {best['rootstock'] / rate:.2f}")
    return 0


def parse_options() -> argparse.Namespace:
    """Return the command line options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=ROOT / "artifacts/model")
    parser.add_argument("--images", type=Path, required=True, help="folder of JPEG files")
    parser.add_argument("--seconds", type=float, default=10, help="duration of each measurement")
    parser.add_argument("--overload-seconds", type=float, default=60)
    parser.add_argument("--peers", type=Path, help="environment of the peers, created if missing")
    parser.add_argument(
        "--layouts",
        action="store_true",
        help="vary our decoders and lanes instead, from 1 to the number of cores",
    )
    return parser.parse_args()


def compare_layouts(
    options: argparse.Namespace, contents: list[bytes], bound: float, cores: int
) -> None:
    """Measure the service at 16 clients with fewer decoders and lanes than cores."""
    print("| decoders | lanes | requests/s | of the bound | p99 ms | memory MB |")
    print("| --- " * 6 + "|")
    _, command, environment, path, bodies = next(sides(options, contents))
    requests = [request_bytes(path[0], *body) for body in bodies]
    counts = sorted({1, cores // 2 or 1, cores})
    for decoders, lanes in itertools.product(counts, counts):
        layout = {"ROOTSTOCK_DECODERS": str(decoders), "ROOTSTOCK_LANES": str(lanes)}
        with served(command, environment | layout, ready=path[1]) as (port, process):
            uvloop.run(fire(port, requests, clients=16, seconds=2))
            load = uvloop.run(fire(port, requests, clients=16, seconds=options.seconds))
            print(
                f"| {decoders} | {lanes} | {load.rate:.0f} | {load.rate / bound:.2f} "
                f"| {load.percentile(99):.0f} | {memory_of(process.pid):.0f} |",
                flush=True,
            )


def sides(options: argparse.Namespace, contents: list[bytes]) -> Iterator[tuple]:
    """Yield name, command (with PORT), environment, (path, path of readiness), and bodies."""
    model = str(options.model.resolve())
    raw = [("image/jpeg", content) for content in contents]
    ours = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "ROOTSTOCK_LOG_FORMAT": "json"}
    command = [sys.executable, "-m", "services.inference", "--port", "PORT", "--model", model]
    yield "rootstock", command, ours, ("/v1/predict", "/readyz"), raw
    naive = [sys.executable, "-m", "uvicorn", "serving_peers:naive", "--port", "PORT"]
    peer = {"PYTHONPATH": f"{ROOT / 'src'}:{HERE}", "MODEL": model, "NAIVE": "1"}
    yield "naive FastAPI", naive, peer, ("/predict", "/health"), raw
    if options.peers is None:
        return
    python = peers_python(options.peers, PEERS)
    # The commands of packages in both environments are next to this Python.
    folders = (options.peers.resolve() / "bin", Path(sys.executable).parent)
    path = ":".join([*map(str, folders), os.environ["PATH"]])
    bare = {"PYTHONPATH": str(HERE), "MODEL": model, "PATH": path}
    bare |= {"MLFLOW_DISABLE_TELEMETRY": "true"}
    packed = [json.dumps({"image": base64.b64encode(c).decode()}).encode() for c in contents]
    for title, engine in (("LitServe, ONNX Runtime", "onnx"), ("LitServe, PyTorch", "torch")):
        yield (
            title,
            [str(python), "-m", "serving_peers", "litserve", "PORT"],
            bare | {"ENGINE": engine, "PYTHONPATH": f"{ROOT / 'src'}:{HERE}"},
            ("/predict", "/health"),
            [("application/json", body) for body in packed],
        )
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [python, "-m", "serving_peers", "pack", f"{folder}/model"],
            env=os.environ | bare,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        serve = [str(python), "-m", "mlflow", "models", "serve", "-m", f"{folder}/model"]
        serve += ["--env-manager", "local", "-h", "127.0.0.1", "-p", "PORT", "-w", "2"]
        side = json.loads((options.model / "bundle.json").read_text())["preprocess"]["input_size"]
        tensor = np.random.default_rng(0).normal(size=(1, 3, side, side)).astype(np.float32)
        body = json.dumps({"inputs": {"images": tensor.tolist()}}).encode()
        bodies = [("application/json", body)]
        yield "mlflow models serve", serve, bare, ("/invocations", "/ping"), bodies


@contextlib.contextmanager
def served(
    command: list[str], environment: dict[str, str], *, ready: str
) -> Iterator[tuple[int, subprocess.Popen]]:
    """Run a server in a separate process group until it is ready; yield its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [word.replace("PORT", str(port)) for word in command],
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + 120
        while not asyncio.run(is_ready(port, ready)):
            if time.monotonic() > until or process.poll() is not None:
                raise RuntimeError(f"{' '.join(command)} did not start")
            time.sleep(0.2)
        yield port, process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


async def is_ready(port: int, path: str) -> bool:
    """Return whether a GET is answered with 200."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    line = await reader.readline()
    writer.close()
    return b" 200" in line


def request_bytes(path: str, kind: str, body: bytes) -> bytes:
    """Return one POST as bytes."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Connection(asyncio.Protocol):
    """A client's connection, one request at a time; leaner than streams because it shares cores."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        self.transport = cast(asyncio.Transport, transport)

    def send(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Send a request; return its answer's status, and header in lower case."""
        if self.transport.is_closing():
            raise EOFError
        self._received.clear()
        self._answer = answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return answer

    def data_received(self, data: bytes) -> None:
        """Wait until the answer is complete."""
        self._received += data
        head, ended, body = self._received.partition(b"\r\n\r\n")
        head = head.lower()
        length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
        if ended and len(body) >= int(length or 0) and self._answer and not self._answer.done():
            self._answer.set_result((int(head.split(b" ", 2)[1]), head))

    def connection_lost(self, error: Exception | None) -> None:
        """End the wait for an answer."""
        if self._answer and not self._answer.done():
            self._answer.set_exception(error or EOFError())


async def fire(
    port: int,
    requests: list[bytes],
    *,
    clients: int,
    seconds: float,
    rate: float | None = None,
) -> Load:
    """Let clients send one request after another; with ``rate``, this many per second in total."""
    load, started, used = Load(), time.perf_counter(), time.process_time()
    turn = iter(range(10**9))
    loop = asyncio.get_running_loop()

    async def client() -> None:
        connection = None
        while (now := time.perf_counter()) < started + seconds:
            number = next(turn)
            if rate is not None and (wait := started + number / rate - now) > 0:
                await asyncio.sleep(wait)
            begun = time.perf_counter()
            try:
                if connection is None:
                    _, connection = await loop.create_connection(Connection, "127.0.0.1", port)
                async with asyncio.timeout(60):
                    status, head = await connection.send(requests[number % len(requests)])
            except (OSError, EOFError, TimeoutError):
                status, head = 0, b"connection: close"
            load.statuses[status] += 1
            if status == 200:
                load.times.append(time.perf_counter() - begun)
            elif status:
                load.refusals.append(time.perf_counter() - begun)
                load.advised += b"retry-after:" in head
            if b"connection: close" in head and connection:
                connection.transport.close()
                connection = None
        if connection:
            connection.transport.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    load.seconds = time.perf_counter() - started
    load.cores = (time.process_time() - used) / load.seconds
    return load


def half_load(port: int, requests: list[bytes], peak: float, seconds: float) -> None:
    """Print p99 at half the peak, relative to the latency of single requests."""
    single = uvloop.run(fire(port, requests, clients=1, seconds=seconds))
    half = uvloop.run(fire(port, requests, clients=64, seconds=seconds, rate=peak / 2))
    print(
        f"\nat half load ({half.rate:.0f}/s): p99 {half.percentile(99):.1f} ms, "
        f"{half.percentile(99) / single.percentile(50):.1f} times a single request's "
        f"{single.percentile(50):.1f} ms\n",
        flush=True,
    )


def overload(
    port: int, requests: list[bytes], peak: float, options: argparse.Namespace, pid: int
) -> None:
    """Load the service with five times its peak: how much is answered, how the rest is rejected.

    The result is compared with the rate for 64 clients just before and just after, because the
    machine's speed may change.
    """

    def full() -> Load:
        return uvloop.run(fire(port, requests, clients=64, seconds=options.seconds))

    memory, seconds = memory_of(pid), options.overload_seconds
    before = full()
    load = uvloop.run(fire(port, requests, clients=1_000, seconds=seconds, rate=5 * peak))
    after = full()
    cores = len(os.sched_getaffinity(0))
    rate, taken = (before.rate + after.rate) / 2, (before.cores + after.cores) / 2
    left = (load.rate / (cores - load.cores)) / (rate / (cores - taken))
    refused = dict(load.statuses - Counter({200: load.statuses[200]}))
    asked = sum(load.statuses.values())
    print(
        f"five times the peak for {seconds:.0f} s: asked {asked / load.seconds:.0f}/s, answered "
        f"{load.rate:.0f}/s = {load.rate / rate:.2f} of the {before.rate:.0f}/s before and "
        f"{after.rate:.0f}/s after ({left:.2f} for each core that the load generator left: it took "
        f"{load.cores:.2f}, before {taken:.2f}), p99 {load.percentile(99):.0f} ms; others "
        f"{refused}, "
        f"{load.advised} of them with Retry-After, p50 {percentile(load.refusals, 50):.0f} ms, "
        f"p99 {percentile(load.refusals, 99):.0f} ms; "
        f"memory {memory:.0f} -> {memory_of(pid):.0f} MB\n",
        flush=True,
    )


def measure_bound(model: Path, contents: list[bytes], seconds: float, cores: int) -> float:
    """Return images per second of decoding and engine only, one process per core."""
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        work = [(str(model), contents, seconds)] * cores
        return sum(pool.map(predict_alone, work, chunksize=1))


def predict_alone(work: tuple[str, list[bytes], float]) -> float:
    """Return images per second of one process."""
    from rootstock.model.predictor import Predictor

    model, contents, seconds = work
    predictor = Predictor(Path(model), engine="fastest", threads=1)
    for content in contents[:20]:
        predictor.predict([content])
    done, started = 0, time.perf_counter()
    while time.perf_counter() < started + seconds:
        predictor.predict([contents[done % len(contents)]])
        done += 1
    return done / (time.perf_counter() - started)


def memory_of(pid: int) -> float:
    """Return the proportional memory in MB of a process group."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            group = int(stat.read_text().rpartition(")")[2].split()[2])
            if group == pid:
                text = stat.with_name("smaps_rollup").read_text()
                total += int(text.partition("\nPss:")[2].split()[0])
        except OSError:
            continue
    return total / 1024


if __name__ == "__main__":
    sys.exit(main())
