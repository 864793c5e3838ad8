"""Measure a GPU in at most ten minutes: extraction, fine-tuning, and serving, from JPEG files.

    python benchmarks/gpu.py --images ../shared/data/ants_bees

The photos are multiplied to --count by cutting off a border and encoding them again. Each row has
images per second and the share of the time in which the GPU was busy, as `nvidia-smi` samples it.
Extraction is all of `FeatureReader.extract`; fine-tuning is the second epoch of `finetune`, from
images that were decoded before; serving is `/v1/predict` with the bytes of a JPEG per request. The
model is fine-tuned on two invented classes: only its speed is measured.

Without a GPU the script says so and ends with code 2. `--device cpu --quick` runs the same steps on
a processor with a few images, to test the script.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import uvloop
from extraction import enlarge
from serving import ROOT, fire, request_bytes, served
from stamp import describe_run

from rootstock.backbones.load import LAST, Backbone, load_backbone
from rootstock.backbones.packaged import DEFAULT_NAME
from rootstock.data.manifest import ImageRow
from rootstock.features.reader import FeatureReader
from rootstock.features.store.store import FeatureStore
from rootstock.heads.linear import LinearHead
from rootstock.model.bundle_writer import write_bundle
from rootstock.system.files import write_json
from rootstock.tasks import get_task
from rootstock.tasks.targets import Targets
from rootstock.training.finetune import finetune
from rootstock.training.images import prepare_images, training_preprocess
from rootstock.training.network import TransferNet
from rootstock.training.optim import FinetuneSettings

COMMAND = "python benchmarks/gpu.py --images PHOTOS"
NO_GPU = 2
"""The exit code without a GPU."""
LIMIT_SECONDS = 540.0
"""No part begins after this time; the longest one takes less than a minute."""
CLASSES = ("even", "odd")
SAMPLE_MS = 100
VAL_IMAGES, EPOCHS = 32, 2
Row = dict[str, Any]


class Busy:
    """The share of time in which the GPU was busy; None if `nvidia-smi` could not sample it."""

    share: float | None = None


@contextmanager
def sample_gpu(device: torch.device) -> Iterator[Busy]:
    """Yield what has the busy share of the GPU at the end of the block."""
    busy = Busy()
    if device.type != "cuda" or shutil.which("nvidia-smi") is None:
        yield busy
        return
    uuid = str(torch.cuda.get_device_properties(device).uuid).removeprefix("GPU-")
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    command += [f"--loop-ms={SAMPLE_MS}", f"--id=GPU-{uuid}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield busy
    finally:
        process.terminate()
        text, _ = process.communicate()
        busy.share = mean_share(text)


def mean_share(text: str) -> float | None:
    """Return the mean of the percentages in the lines of ``text``, as a share; None without any."""
    percentages = [int(line) for line in text.split("\n") if line.strip().isdigit()]
    return round(float(np.mean(percentages)) / 100, 3) if percentages else None


def main() -> int:
    """Measure every part, print the table, and write the result file."""
    options = parse_options()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print(
            "there is no GPU that torch can use; to test the script: --device cpu --quick",
            file=sys.stderr,
        )
        return NO_GPU
    started = time.monotonic()
    count = 24 if options.quick else options.count
    backbone = load_backbone(options.weights, DEFAULT_NAME, device=options.device)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        photos = enlarge(options.images, scratch / "photos", count)
        network = make_network(backbone)
        model = scratch / "model"

        def train() -> list[Row]:
            row = measure_tuning(network, backbone, photos, scratch, quick=options.quick)
            write_model(model, network, backbone, photos, scratch / "photos")
            return row

        parts: dict[str, Callable[[], list[Row]]] = {
            "extraction": lambda: measure_extraction(backbone, photos, scratch),
            "fine-tuning": train,
            "serving": lambda: measure_service(
                model, scratch / "photos", backbone.device, quick=options.quick
            ),
        }
        print("| part | images/s | p50 ms | p99 ms | GPU busy |\n| --- | --- | --- | --- | --- |")
        for name, measure in parts.items():
            if time.monotonic() - started > LIMIT_SECONDS:
                print(f"{name} is left out: there is no time", file=sys.stderr)
                break
            for row in measure():
                rows.append(row)
                print_row(row)
    gpu = torch.cuda.get_device_name(backbone.device) if backbone.device.type == "cuda" else None
    facts = {"gpu": gpu, "backbone": backbone.card.name, "photos": count, "rows": rows}
    facts["seconds"] = round(time.monotonic() - started, 1)
    if options.out:
        write_json(options.out, {**describe_run(COMMAND), **facts})
    return 0


def parse_options() -> argparse.Namespace:
    """Return the command line options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="a folder with photos")
    parser.add_argument("--count", type=int, default=6000)
    parser.add_argument("--weights", default="packaged")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="a few images, to test the script")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/gpu.json on a GPU")
    options = parser.parse_args()
    if options.out is None and not options.quick:
        options.out = ROOT / "benchmarks/results/gpu.json"
    return options


def print_row(row: Row) -> None:
    """Print one row; a dash is for a number that was not measured."""
    cells = [row["part"], f"{row['images_per_s']:.1f}"]
    cells += [f"{row[key]:.1f}" if row.get(key) else "–" for key in ("p50_ms", "p99_ms")]
    cells.append("–" if row["gpu_busy"] is None else f"{row['gpu_busy']:.0%}")
    print(f"| {' | '.join(cells)} |", flush=True)


def make_network(backbone: Backbone) -> TransferNet:
    """Return the backbone with a head of zeros for the invented classes."""
    width = backbone.taps[-1].channels
    head = LinearHead(
        np.zeros((len(CLASSES), width), np.float32), np.zeros(len(CLASSES), np.float32)
    )
    return TransferNet.build(backbone, tap=LAST, head=head)


def measure_extraction(backbone: Backbone, photos: list[ImageRow], scratch: Path) -> list[Row]:
    """Extract all photos twice; the second time the fastest variant is known."""
    for turn in ("first", "second"):
        store = FeatureStore(scratch / turn)
        if turn == "second" and (scratch / "first/.engines").exists():
            shutil.copytree(scratch / "first/.engines", store.root / ".engines")
        reader = FeatureReader(scratch / "photos", backbone, backbone.card.preprocess(), store)
        with sample_gpu(backbone.device) as busy:
            report = reader.extract(photos, [LAST], measure=True)
    rate = round(report.computed / report.seconds, 1)
    return [{"part": f"extraction, {report.engine}", "images_per_s": rate, "gpu_busy": busy.share}]


def measure_tuning(
    network: TransferNet,
    backbone: Backbone,
    photos: list[ImageRow],
    scratch: Path,
    *,
    quick: bool,
) -> list[Row]:
    """Fine-tune the whole network for two epochs, and measure the second."""
    preprocess, root = backbone.card.preprocess(), scratch / "photos"
    n_train = 16 if quick else 2048
    splits = {"train": photos[:n_train], "val": photos[-VAL_IMAGES:]}
    train, val = (
        prepare_images(
            rows,
            invent_targets(rows),
            root=root,
            preprocess=prepared,
            cache=scratch / f"{name}.npy",
        )
        for (name, rows), prepared in zip(
            splits.items(), (training_preprocess(preprocess), preprocess), strict=True
        )
    )
    settings = FinetuneSettings(
        learning_rate=1e-4,
        epochs=EPOCHS,
        batch_size=8 if quick else 64,
        freeze_through=None,
        batchnorm="train",
        layer_decay=0.8,
        head_multiplier=1.0,
        weight_decay=0.01,
        label_smoothing=0.0,
        patience=EPOCHS,
        augmentation="medium",
        flip=True,
        seed=0,
    )
    ends: list[float] = []
    with sample_gpu(backbone.device) as busy:
        finetune(
            network,
            train,
            val,
            task=get_task("single_label"),
            settings=settings,
            directory=scratch / "trial",
            report=lambda *_: ends.append(time.perf_counter()),
        )
    rate = round((len(train) + len(val)) / (ends[-1] - ends[-2]), 1)
    return [{"part": "fine-tuning", "images_per_s": rate, "gpu_busy": busy.share}]


def invent_targets(rows: list[ImageRow]) -> Targets:
    """Return targets that alternate between the classes."""
    labels = np.arange(len(rows)) % len(CLASSES)
    return Targets(labels, CLASSES, labels)


def write_model(
    folder: Path, network: TransferNet, backbone: Backbone, photos: list[ImageRow], root: Path
) -> None:
    """Write a bundle that a service can serve."""
    golden = [(row.path, (root / row.path).read_bytes(), CLASSES[0]) for row in photos[:4]]
    write_bundle(
        folder,
        network=network,
        card=backbone.card,
        preprocess=backbone.card.preprocess(),
        task="single_label",
        names=CLASSES,
        strategy="full_finetune",
        calibration={"temperature": 1.0},
        metrics={},
        lineage={},
        golden=golden,
    )


def measure_service(model: Path, photos: Path, device: torch.device, *, quick: bool) -> list[Row]:
    """Load a service with the bytes of photos from more and more clients."""
    contents = [path.read_bytes() for path in sorted(photos.glob("*.jpg"))[:200]]
    requests = [request_bytes("/v1/predict", "image/jpeg", content) for content in contents]
    command = [sys.executable, "-m", "services.inference", "--port", "PORT", "--model", str(model)]
    environment = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    if device.type == "cuda":
        environment["ROOTSTOCK_LANES"] = "2"
    rows = []
    with served(command, environment, ready="/readyz") as (port, _):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/model", timeout=30) as answer:
            engine = json.load(answer)["engine"]
        for clients in (2,) if quick else (1, 16, 64, 256):
            uvloop.run(fire(port, requests, clients=clients, seconds=1 if quick else 3))
            with sample_gpu(device) as busy:
                load = uvloop.run(fire(port, requests, clients=clients, seconds=1 if quick else 10))
            rows.append(
                {
                    "part": f"serving, {engine}, {clients} clients",
                    "images_per_s": round(load.rate, 1),
                    "p50_ms": round(load.percentile(50), 2),
                    "p99_ms": round(load.percentile(99), 2),
                    "errors": sum(load.statuses.values()) - load.statuses[200],
                    "gpu_busy": busy.share,
                }
            )
    return rows


if __name__ == "__main__":
    sys.exit(main())
