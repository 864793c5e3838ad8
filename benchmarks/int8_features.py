"""Features in int8 against float32: images per second, and the accuracy of a head on each.

    rootstock train data/ants_bees --out runs/ants_bees
    python benchmarks/int8_features.py runs/ants_bees=data/ants_bees runs/flowers12=data/flowers12

Each RUN=DATA is the folder that `rootstock train` wrote and the images it was given. Both extract
the features of all its images at the depth of its model: hashing, decoding, network, and storing.
They take turns, and the networks are translated and calibrated before. The accuracy is that of a
head in five-fold cross-validation on all images, with the penalty that gives the lowest log-loss.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from stamp import describe_run

from rootstock.config.schema import TrainConfig
from rootstock.data.manifest import ImageRow, Manifest
from rootstock.features.reader import FeatureReader
from rootstock.features.store.store import FeatureStore
from rootstock.model.bundle import read_bundle
from rootstock.plan.transfer_plan import TransferPlan
from rootstock.system.files import write_json
from rootstock.tasks.dataset import Dataset
from rootstock.workflow.calibration import calibration_images
from rootstock.workflow.planned_backbone import load_planned_backbone

ROOT = Path(__file__).parents[1]
COMMAND = "python benchmarks/int8_features.py RUN=DATA ..."
MAX_IMAGES, ROUNDS, FOLDS = 1_000, 3, 5
"""At most this many images are extracted in each round, evenly drawn."""


def main() -> None:
    """Measure every run and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN=DATA")
    parser.add_argument("--max-images", type=int, default=MAX_IMAGES)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/int8_features.json")
    options = parser.parse_args()
    results = {}
    for pair in options.runs:
        run, _, data = pair.partition("=")
        results[Path(run).name] = measure(Path(run), Path(data), options.max_images)
        print(Path(run).name, json.dumps(results[Path(run).name], indent=1), flush=True)
    write_json(
        options.out,
        {
            **describe_run(COMMAND),
            "rates": "images per second, and per second of processor time; the best round counts",
            "sets": results,
        },
    )


def measure(run: Path, data: Path, max_images: int) -> dict[str, Any]:
    """Return rates and quality of both precisions on the images of a run."""
    manifest = Manifest.read(run / "artifacts/manifest.parquet")
    plan = TransferPlan.read(run / "artifacts/plan.json")
    tap = read_bundle(run / "artifacts/model").facts.tap
    backbone = load_planned_backbone(plan, device="cpu")
    preprocess = backbone.card.preprocess(plan.input_size, manifest.rendering, plan.geometry)
    calibration = calibration_images(manifest.rows("train"))
    rows = [row for row in manifest.rows() if not row.quarantine]
    rows = rows[:: -(-len(rows) // max_images)]
    with tempfile.TemporaryDirectory() as scratch:
        readers = {
            name: FeatureReader(
                data, backbone, preprocess, FeatureStore(Path(scratch) / name), calibration=images
            )
            for name, images in (("float32", ()), ("int8", calibration))
        }
        rates = time_readers(readers, rows, tap)
        scores = {
            name: score(reader.read(rows, tap), rows, manifest) for name, reader in readers.items()
        }
    rise = scores["int8"].pop("losses") - scores["float32"].pop("losses")
    noise = 1.96 * rise.std() / len(rise) ** 0.5
    return {
        "images": len(rows),
        "tap": tap,
        "rates": rates,
        "ratio": round(rates["int8"]["images_per_s"] / rates["float32"]["images_per_s"], 3),
        "processor_ratio": round(
            rates["int8"]["images_per_processor_s"] / rates["float32"]["images_per_processor_s"], 3
        ),
        "quality": scores,
        "loss_rise_95": [round(float(rise.mean() + side * noise), 4) for side in (-1, 1)],
    }


def time_readers(
    readers: Mapping[str, FeatureReader], rows: list[ImageRow], tap: str
) -> dict[str, dict[str, float]]:
    """Return the rates of each reader over all rows; its store is full afterwards."""
    prepared = {name: spend(reader, rows[:60], tap)[1] for name, reader in readers.items()}
    laps: dict[str, list[tuple[float, float]]] = {name: [] for name in readers}
    for _ in range(ROUNDS):
        for name, reader in readers.items():
            shutil.rmtree(reader.space.folder)
            laps[name].append(spend(reader, rows, tap))
    return {
        name: {
            "images_per_s": round(len(rows) / min(wall for wall, _ in each), 1),
            "images_per_processor_s": round(len(rows) / min(used for _, used in each), 1),
            "preparation_processor_s": round(prepared[name], 1),
        }
        for name, each in laps.items()
    }


def spend(reader: FeatureReader, rows: list[ImageRow], tap: str) -> tuple[float, float]:
    """Return the seconds and the processor seconds of an extraction."""
    begun, used = time.perf_counter(), time.process_time()
    report = reader.extract(rows, [tap])
    assert report.computed
    return time.perf_counter() - begun, time.process_time() - used


def score(features: np.ndarray, rows: list[ImageRow], manifest: Manifest) -> dict[str, Any]:
    """Return accuracy and losses of a head on images that its fold has not seen."""
    dataset = Dataset.of(manifest)
    path = dataset.task.head().cross_validate(
        features,
        dataset.targets_of(rows),
        folds=FOLDS,
        strengths=TrainConfig().l2_grid,
        seed=0,
    )
    best = int(path.losses.mean(axis=1).argmin())
    return {
        "score": round(float(path.scores[best]), 4),
        "loss": round(float(path.losses[best].mean()), 4),
        "losses": path.losses[best],
    }


if __name__ == "__main__":
    main()
