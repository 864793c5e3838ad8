"""Measure the cost of rejecting images that are made to be expensive.

    python benchmarks/bombs.py

Each file is sent over HTTP to a real process with a small model, five times. The table shows the
slowest answer, and how much the memory of the process and its decoder grew at most. For comparison,
it includes a good photo, and files with many frames, of which only the first is read.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.bundles import jpeg, tiny_bundle
from tests.data.test_headers import BOMBS as HEADER_BOMBS
from tests.service.http.test_fuzz import BOMBS, FRAMES, forget_peak, many_frames, resident
from tests.service.test_serve import running

TIMES = 5


def main() -> None:
    """Print one row per file."""
    good = {"a good photo": jpeg(0)}
    bodies = good | {name: make() for name, (make, _) in BOMBS.items()}
    bodies |= {name: make() for name, (make, _) in HEADER_BOMBS.items()}
    bodies |= {f"{kind} of {n:,} frames": many_frames(kind) for kind, n in FRAMES.items()}
    print("| file | bytes | answer | slowest ms | growth MB |\n| --- | --- | --- | --- | --- |")
    with (
        tempfile.TemporaryDirectory() as root,
        running("--model", str(tiny_bundle()), ROOTSTOCK_DECODERS="1", ROOTSTOCK_ROOT=root) as (
            address,
            process,
        ),
        httpx.Client(base_url=address) as client,
    ):
        for _ in range(TIMES):
            send(client, good["a good photo"])
        for name, body in bodies.items():
            before = resident(process)
            forget_peak(process)
            answers = [send(client, body) for _ in range(TIMES)]
            growth = (resident(process, "VmHWM:") - before) / 1000
            status, reason = answers[0][0]
            slowest = max(seconds for _, seconds in answers) * 1000
            print(f"| {name} | {len(body)} | {status} {reason} | {slowest:.0f} | {growth:.1f} |")


def send(client: httpx.Client, body: bytes) -> tuple[tuple[int, str], float]:
    """Return status and reason, and the seconds until the answer."""
    started = time.perf_counter()
    answer = client.post("/v1/predict", content=body, headers={"content-type": "image/png"})
    seconds = time.perf_counter() - started
    return (answer.status_code, answer.json().get("reason", "")), seconds


if __name__ == "__main__":
    main()
