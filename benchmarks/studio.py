"""Measure the studio on many images: seconds per page, and memory of the process.

    python benchmarks/studio.py --count 100000

A synthetic manifest with ten classes, copies, quarantined files, and a column of metadata; random
features. Every request goes through the whole app over HTTP on this machine. There are few picture
files under many names, so thumbnails are measured with real decoding.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from rootstock.data.manifest import ImageRow, Manifest
from rootstock.data.splits import SPLITS
from rootstock.features.store.store import FeatureStore
from rootstock.system.files import write_json

GOAL_SECONDS = 0.2
PICTURES = 400
WIDTH = 1280
ROUNDS = 7
REQUESTS = {
    "first page": {},
    "page in the middle": {"offset": "middle"},
    "one class": {"term": "class-3"},
    "copies in two splits": {"flag": ["copies"], "split": ["train", "val"]},
    "metadata and size": {"fact": "camera=left", "min_side": 100},
    "text in the path": {"text": "99"},
    "inside a lasso": {"lasso": "0.2,0.2,0.8,0.2,0.8,0.8,0.2,0.8"},
}


def main() -> None:
    """Create a project, start the studio, and time its requests."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(scratch)
        began = time.perf_counter()
        make_project(project, options.count)
        print(f"project of {options.count:,} images: {time.perf_counter() - began:.0f} s\n")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        command = [sys.executable, "-m", "rootstock", "studio", str(project), "--port", str(port)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            measure(f"http://127.0.0.1:{port}", process.pid, options.count)
        finally:
            process.terminate()
            process.wait()


def measure(address: str, pid: int, count: int) -> None:
    """Print a table of the requests; fail if a page takes longer than the goal."""
    slow = []
    with httpx.Client(base_url=address, timeout=120) as client:
        wait_for(client)
        print("| request | first, ms | median, ms |\n| --- | --- | --- |")
        seconds = [time_request(client, "/api/session")]
        print(f"| opening the studio | {1000 * seconds[0]:.0f} | |")
        print(f"| the map, computed | {1000 * time_request(client, '/api/map'):.0f} | |")
        for name, filters in REQUESTS.items():
            given = {k: count // 2 if v == "middle" else v for k, v in filters.items()}
            for path in ("/api/images", "/api/facets"):
                times = [time_request(client, path, given | {"limit": 200}) for _ in range(ROUNDS)]
                median = float(np.median(times))
                print(f"| {name}: {path[5:]} | {1000 * times[0]:.0f} | {1000 * median:.0f} |")
                slow += [name] * (median > GOAL_SECONDS)
        times = [time_request(client, "/api/map/points") for _ in range(ROUNDS)]
        print(f"| points of the map | {1000 * times[0]:.0f} | {1000 * np.median(times):.0f} |")
        page = client.get("/api/images", params={"limit": 48}).json()["images"]
        for turn in ("made", "kept"):
            began = time.perf_counter()
            for image in page:
                client.get(f"/api/images/{image['id']}/thumbnail").raise_for_status()
            print(f"| 48 thumbnails, {turn} | {1000 * (time.perf_counter() - began):.0f} | |")
    load = os.getloadavg()[0]
    print(f"\npeak memory: {peak_megabytes(pid):.0f} MB; load of the machine: {load:.1f}")
    if slow:
        sys.exit(f"slower than {GOAL_SECONDS:g} s: {', '.join(sorted(set(slow)))}")


def make_project(project: Path, count: int) -> None:
    """Write pictures, a manifest of ``count`` images, and features."""
    random = np.random.default_rng(0)
    folder = project / "images"
    folder.mkdir()
    contents = []
    for number in range(PICTURES):
        blocks = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(blocks).resize((640, 480)).save(buffer, "JPEG", quality=88)
        (folder / f"{number:03}.jpg").write_bytes(buffer.getvalue())
        contents.append(buffer.getvalue())
    digests = [hashlib.sha256(content).hexdigest() for content in contents]
    rows = []
    for number in range(count):
        is_real = number < PICTURES
        digest = digests[number] if is_real else hashlib.sha256(str(number).encode()).hexdigest()
        path = f"{number:03}.jpg" if is_real else f"sub-{number % 97}/image-{number:07}.jpg"
        target = f"class-{number % 10}"
        rows.append(
            ImageRow(
                path=path,
                sha256=digest,
                bytes=len(contents[number]) if is_real else 50_000,
                width=640,
                height=480,
                mode="RGB",
                format="JPEG",
                target=target,
                stratum=target,
                split=SPLITS[(number // 10) % 3],
                group=number // 2 if number % 50 == 1 else number,
                quarantine="truncated" if number % 1000 == 999 else "",
                picture=number - 1 if number % 50 == 1 else number,
                metadata=json.dumps({"camera": ("left", "right")[number % 2]}),
            )
        )
    rows.sort()
    Manifest(tuple(rows)).write(project / "artifacts/manifest.parquet")
    (project / "params.yaml").write_text("data: {root: images}\n", encoding="utf-8")
    store = FeatureStore(project / ".rootstock/features")
    space = store.space(weights_sha256="0" * 64, preprocess_hash="0" * 64)
    usable = [row.sha256 for row in rows if not row.quarantine]
    centres = random.normal(size=(10, WIDTH)).astype(np.float32)
    for start in range(0, len(usable), 20_000):
        keys = usable[start : start + 20_000]
        noise = random.normal(size=(len(keys), WIDTH)).astype(np.float32)
        space.append(
            keys, {"last": (centres[np.arange(len(keys)) % 10] + noise).astype(np.float16)}
        )
    index = {"weights_sha256": "0" * 64, "preprocess_hash": "0" * 64, "taps": {"last": ""}}
    write_json(project / "artifacts/features.json", index)


def time_request(client: httpx.Client, path: str, parameters: dict | None = None) -> float:
    """Return the seconds that one request takes."""
    began = time.perf_counter()
    client.get(path, params=parameters).raise_for_status()
    return time.perf_counter() - began


def wait_for(client: httpx.Client) -> None:
    """Wait until the studio listens."""
    for _ in range(600):
        try:
            client.get("/static/icon.svg")
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return


def peak_megabytes(pid: int) -> float:
    """Return the peak memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
