"""int8 against float32: accuracy, log-loss and time of the same model, in turns, in one run.

    rootstock train data/ants_bees --out runs/ants_bees
    python benchmarks/int8.py runs/ants_bees=data/ants_bees runs/flowers12=data/flowers12

Each RUN=DATA is the folder that `rootstock train` wrote and the images it was given. Accuracy and
log-loss are those of the test images, which neither network was fitted to or judged by. Times are
processor time in this process (one thread), float32 and int8 in turns on the same image, so that
other work on the machine hits both: the engine, and the serving path from the bytes of a JPEG to
the answer. `service` is processor time of a whole service per request, with 8 clients.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import uvloop
from serving import ROOT, fire, request_bytes, served
from stamp import describe_run

from rootstock.data.manifest import Manifest
from rootstock.model.predictor import Predictor
from rootstock.system.files import write_json
from rootstock.tasks.dataset import read_targets

PRECISIONS = ("float32", "int8")
TIMED_IMAGES = 150
SERVICE_SECONDS, SERVICE_ROUNDS, CLIENTS = 5.0, 3, 8
TICKS = 100
"""Per second: the unit of the processor times in /proc."""


def main() -> None:
    """Measure every run and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN=DATA")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/int8.json")
    options = parser.parse_args()
    results = {}
    for pair in options.runs:
        run, _, data = pair.partition("=")
        name = Path(run).name
        results[name] = measure(Path(run), Path(data))
        print(name, json.dumps(results[name], indent=1), flush=True)
    write_json(
        options.out,
        {
            **describe_run("python benchmarks/int8.py RUN=DATA ..."),
            "times": "median milliseconds of processor time, float32 and int8 in turns",
            "sets": results,
        },
    )


def measure(run: Path, data: Path) -> dict[str, Any]:
    """Return the figures of one model on its test images."""
    model = run / "artifacts/model"
    both = [Predictor(model, engine="onnx", precision=one, threads=1) for one in PRECISIONS]
    rows = Manifest.read(run / "artifacts/manifest.parquet").rows("test")
    contents = [(data / row.path).read_bytes() for row in rows]
    inputs = [both[0].bundle.preprocess.normalise(both[0].prepare(one)) for one in contents]
    facts = both[0].bundle.facts
    assert facts.int8 is not None
    targets = read_targets(both[0].task, rows, both[0].names)
    outputs = [np.concatenate([one.outputs(each) for each in inputs]) for one in both]
    task, calibration = both[0].task, facts.calibration
    decisions = [task.decide(each, calibration) for each in outputs]
    losses = [task.losses(each, targets, calibration) for each in outputs]
    said = [task.decided(each, both[0].names) for each in decisions]
    unknown = [
        one.are_unknown(one.infer_normalised(np.concatenate(inputs), "one").features).mean()
        for one in both
    ]
    timed = range(min(len(rows), TIMED_IMAGES))
    rise = losses[1] - losses[0]
    return {
        "test_images": len(rows),
        "score": [round(task.metrics(each, targets)[task.score], 4) for each in decisions],
        "loss": [round(float(each.mean()), 4) for each in losses],
        "loss_rise_95": [
            round(float(rise.mean() + side * 1.96 * rise.std() / len(rise) ** 0.5), 4)
            for side in (-1, 1)
        ],
        "agreement": round(float(np.mean([a == b for a, b in zip(*said, strict=True)])), 4),
        "unknown": [round(float(each), 4) for each in unknown],
        "validation": facts.int8.figures.model_dump() if facts.int8.figures else None,
        "engine": in_turns([lambda n, p=p: p.outputs(inputs[n]) for p in both], timed),
        "from_jpeg": in_turns([lambda n, p=p: p.predict([contents[n]]) for p in both], timed),
        "service": measure_service(model, contents),
    }


def in_turns(ways: list[Callable[[int], object]], images: range) -> dict[str, float]:
    """Return the median milliseconds of each precision, and how many times as fast int8 is."""
    times: list[list[float]] = [[] for _ in ways]
    for number in images:
        for run, laps in zip(ways, times, strict=True):
            begun = time.process_time()
            run(number)
            laps.append(1000 * (time.process_time() - begun))
    return compare(*(median(laps) for laps in times))


def compare(exact: float, rounded: float) -> dict[str, float]:
    """Return both times and their ratio."""
    return {
        "float32_ms": round(exact, 3),
        "int8_ms": round(rounded, 3),
        "ratio": round(exact / rounded, 3),
    }


def measure_service(model: Path, contents: list[bytes]) -> dict[str, float]:
    """Return the processor milliseconds of a service and its decoders per request, in turns."""
    requests = [request_bytes("/v1/predict", "image/jpeg", content) for content in contents]
    spent: dict[str, list[float]] = {one: [] for one in PRECISIONS}
    command = ["python", "-m", "services.inference", "--port", "PORT", "--model", str(model)]
    for _ in range(SERVICE_ROUNDS):
        for precision in PRECISIONS:
            environment = {
                "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
                "ROOTSTOCK_ENGINE": "onnx",
                "ROOTSTOCK_PRECISION": precision,
            }
            with served(command, environment, ready="/readyz") as (port, process):
                uvloop.run(fire(port, requests, clients=CLIENTS, seconds=1))
                before = processor_seconds(process.pid)
                load = uvloop.run(fire(port, requests, clients=CLIENTS, seconds=SERVICE_SECONDS))
                used = processor_seconds(process.pid) - before
            spent[precision].append(1000 * used / load.statuses[200])
    return compare(*(median(spent[one]) for one in PRECISIONS))


def processor_seconds(group: int) -> float:
    """Return the processor time of all processes of a group that are alive."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


if __name__ == "__main__":
    main()
