"""How long a new head takes: fitted to many images, and from a corrected label to a new answer.

    python benchmarks/refit.py --count 10000
    python benchmarks/refit.py --data photos/       # also the whole way, over HTTP

The first part trains on 200 small pictures of 20 classes with the packaged backbone, adds pictures
up to the count, and stores random features of 1,280 numbers for all of them, so that the fit reads
them from the store. The second part trains on a folder of images, starts a service that follows the
registry and a studio, corrects a label, and waits until the service answers with the new head: the
first time and twice more. Before the first label it looks at the image for some seconds, as a
person does: the studio loads PyTorch and MLflow then.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from stamp import describe_run

from rootstock.config.load import load_config
from rootstock.config.paths import Paths
from rootstock.features.store.store import FeatureStore
from rootstock.ports.runs import NullRunLogger
from rootstock.ports.search import SequentialSearcher
from rootstock.ports.spread import InProcess
from rootstock.system.files import read_json, write_json
from rootstock.workflow.features import cache_features
from rootstock.workflow.index import index_images
from rootstock.workflow.prepare import prepare_plan
from rootstock.workflow.refit import refit_head
from rootstock.workflow.train import train_model

GOAL_FIT_SECONDS, GOAL_WAY_SECONDS = 3.0, 10.0
CLASSES, FIRST_IMAGES, WIDTH = 20, 200, 1280
ROUNDS = 3
LOOK_SECONDS = 5.0
"""How long a person looks at the first image before giving its label."""
PLAN = ["plan.strategy=linear_probe", "plan.race=never", "quality=fast"]


def main() -> None:
    """Measure both parts; write benchmarks/results/refit.json if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--data", type=Path, help="a folder of images for the whole way")
    parser.add_argument("--project", type=Path, help="a project that was trained on it already")
    parser.add_argument("--many", type=Path, help="a folder that keeps the pictures of the fit")
    parser.add_argument("--write", action="store_true", help="write the result file")
    options = parser.parse_args()
    results = describe_run(f"python benchmarks/refit.py --count {options.count} --data photos/")
    with tempfile.TemporaryDirectory() as scratch:
        if options.count:
            results["fit"] = measure_fit(options.many or Path(scratch) / "many", options.count)
        if options.data:
            project = options.project or train_project(Path(scratch) / "project", options.data)
            results["way"] = measure_way(project, options.data)
    print(json.dumps(results, indent=2))
    if options.write:
        write_json(Path(__file__).parent / "results/refit.json", results)


def measure_fit(root: Path, count: int) -> dict[str, Any]:
    """Return the seconds of a fit to stored features, first and later, and where they go."""
    data = root / "images"
    config, paths = load_config(None, overrides=[f"data.root={data}", *PLAN]), Paths(root)
    if not paths.training.is_file():
        write_pictures(data, 0, FIRST_IMAGES)
        prepare_plan(config, paths, searcher=SequentialSearcher())
        cache_features(config, paths, spreader=InProcess())
        train_model(config, paths, runs=NullRunLogger(), searcher=SequentialSearcher())
        write_pictures(data, FIRST_IMAGES, count)
        store_features(paths, config.features.store, index_images(config, paths).rows())
    manifest = index_images(config, paths)
    rounds = []
    for _ in range(ROUNDS):
        processor = time.process_time()
        refit = refit_head(config, paths)
        rounds.append(
            {
                "seconds": round(refit.seconds, 2),
                "processor_seconds": round(time.process_time() - processor, 2),
            }
        )
        print(rounds[-1])
    return {
        "images": len(manifest.rows()),
        "classes": CLASSES,
        "width": WIDTH,
        "rounds": rounds,
        "goal_seconds": GOAL_FIT_SECONDS,
    }


def write_pictures(folder: Path, first: int, end: int) -> None:
    """Write pictures of smooth blobs, each another one, into the folders of their classes."""
    for number in range(first, end):
        coarse = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        path = folder / f"class-{number % CLASSES:02}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((48, 48), Image.Resampling.BICUBIC).save(path)


def store_features(paths: Paths, store: Path, rows: Any) -> None:
    """Store random features, one cluster per class, in place of those of the backbone."""
    index = read_json(paths.features, made_by="features")
    space = FeatureStore(paths.lasting(store)).space(
        weights_sha256=index["weights_sha256"], preprocess_hash=index["preprocess_hash"]
    )
    shutil.rmtree(space.folder)
    random = np.random.default_rng(0)
    centres = random.normal(size=(CLASSES, WIDTH)).astype(np.float32)
    classes = np.array([int(row.target[-2:]) for row in rows])
    noise = random.normal(size=(len(rows), WIDTH)).astype(np.float32)
    values = (centres[classes] / 4 + noise).astype(np.float16)
    space.append([row.sha256 for row in rows], dict.fromkeys(index["taps"], values))


def train_project(project: Path, data: Path) -> Path:
    """Train a linear head on a folder of images, and register it."""
    sets = [part for setting in PLAN for part in ("--set", setting)]
    command = [sys.executable, "-m", "rootstock", "train", str(data), "--out", str(project), *sets]
    subprocess.run(command, check=True)
    return project


def measure_way(project: Path, data: Path) -> dict[str, Any]:
    """Return the seconds from a corrected label to an answer of the new head."""
    ports = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            ports.append(probe.getsockname()[1])
    environment = os.environ | {"ROOTSTOCK_ROOT": str(project), "ROOTSTOCK_POLL_SECONDS": "1"}
    program = [sys.executable, "-m", "rootstock"]
    commands = [
        [*program, "serve", "--port", str(ports[0])],
        [*program, "studio", str(project), "--data", str(data), "--port", str(ports[1])],
    ]
    processes = [
        subprocess.Popen(command, cwd=project, env=environment, stderr=subprocess.DEVNULL)
        for command in commands
    ]
    picture = next(path for path in sorted(data.rglob("*")) if path.suffix in (".jpg", ".png"))
    rounds = []
    try:
        with (
            httpx.Client(base_url=f"http://127.0.0.1:{ports[0]}", timeout=60) as service,
            httpx.Client(base_url=f"http://127.0.0.1:{ports[1]}", timeout=60) as studio,
        ):
            wait_for(lambda: service.get("/readyz").status_code == 200)
            token = wait_for(lambda: studio.get("/api/session").json()["token"])
            studio.headers["X-Studio-Token"] = token
            first, *_ = studio.get("/api/images", params={"split": "train"}).json()["images"]
            studio.get(f"/api/images/{first['id']}/opinion").raise_for_status()
            time.sleep(LOOK_SECONDS)
            for number in range(ROUNDS):
                rounds.append(correct_one(studio, service, picture, number))
                print(rounds[-1])
    finally:
        for process in processes:
            process.terminate()
            process.wait()
    return {
        "data": data.name,
        "look_seconds": LOOK_SECONDS,
        "rounds": rounds,
        "goal_seconds": GOAL_WAY_SECONDS,
    }


def correct_one(
    studio: httpx.Client, service: httpx.Client, picture: Path, number: int
) -> dict[str, float]:
    """Correct a label, fit, register and promote; return the seconds up to each step."""
    image = studio.get("/api/images", params={"split": "train"}).json()["images"][number]
    names = studio.get("/api/session").json()["project"]["names"]
    other = next(name for name in names if name != image["text"])
    before = answer(service, picture)
    began = time.perf_counter()
    steps = {}

    def note(step: str) -> None:
        steps[step] = round(time.perf_counter() - began, 2)

    given = {"seen": image["text"], "who": "benchmark", "parts": {"labels": [other]}}
    studio.post(f"/api/images/{image['id']}/label", json=given).raise_for_status()
    note("written")
    studio.post("/api/refit").raise_for_status()
    settle(studio)
    note("fitted")
    studio.post("/api/champion/refit").raise_for_status()
    version = settle(studio)["outcome"]["version"]
    note("registered")
    champion = studio.get("/api/models").json()["compared"]["champion"]["version"]
    if champion != version:  # the gate said no: the measurement says yes
        body = {"version": version, "expect": champion, "why": "benchmark"}
        studio.post("/api/champion/promote", json=body).raise_for_status()
    wait_for(lambda: answer(service, picture) != before)
    note("answered")
    return steps


def settle(studio: httpx.Client) -> dict[str, Any]:
    """Return the state of the new head once no work is left.

    Raises:
        RuntimeError: the work failed.
    """
    state = wait_for(
        lambda: (found := studio.get("/api/refit").json()) and not found["work"] and found
    )
    if state["problem"]:
        raise RuntimeError(state["problem"])
    return dict(state)


def answer(service: httpx.Client, picture: Path) -> str:
    """Return the version that answers."""
    body = {"files": (picture.name, picture.read_bytes())}
    found = service.post("/v1/predict", files=body).raise_for_status().json()
    return str(found["model"]["version"])


def wait_for(found: Callable[[], Any], seconds: float = 300) -> Any:
    """Return the value of a call once it is true."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if value := found():
                return value
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise RuntimeError("it did not come in time")


if __name__ == "__main__":
    main()
