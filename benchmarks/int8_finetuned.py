"""What int8 costs a network that was fine-tuned: accuracy, log-loss, and the judgement of its twin.

    python benchmarks/int8_finetuned.py --data-dir ../shared/data --sets sign_digits flowers12

The default backbone is fine-tuned for --epochs on --train images of each set, with the rate and
the other values of the strategies `full_finetune` and `partial_finetune`, from a fitted head. The
exported network is quantised as in training, on training images, and judged on validation images.
Both are then measured on test images. A cell of the results that exists is not measured again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file
from sets import find_sets, list_images
from stamp import describe_run

from rootstock.backbones.load import LAST, load_backbone
from rootstock.backbones.packaged import DEFAULT_NAME
from rootstock.config.choices import Strategy
from rootstock.config.schema import ExportConfig
from rootstock.data.manifest import ImageRow, Manifest
from rootstock.features.reader import FeatureReader
from rootstock.features.store.store import FeatureStore
from rootstock.model.twin import judge_twin
from rootstock.plan.rules import RECIPES, finetune_input_size, freeze_through, mirror_is_safe
from rootstock.runtimes.int8 import write_int8
from rootstock.runtimes.onnx import onnx_session
from rootstock.system.files import write_json
from rootstock.tasks import get_task
from rootstock.tasks.targets import Targets
from rootstock.training.export import export_onnx
from rootstock.training.finetune import BEST, finetune
from rootstock.training.images import ImageSet, prepare_images, training_preprocess
from rootstock.training.network import TransferNet
from rootstock.training.optim import FinetuneSettings
from rootstock.workflow.calibration import calibration_images

ROOT = Path(__file__).parents[1]
COMMAND = "python benchmarks/int8_finetuned.py --data-dir ../shared/data"
STRATEGIES: tuple[Strategy, ...] = ("full_finetune", "partial_finetune")
HEAD_L2 = 0.01
TASK = get_task("single_label")


def main() -> None:
    """Measure every set with both strategies, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sets", nargs="+", default=["sign_digits", "flowers12"])
    parser.add_argument("--strategies", nargs="+", default=STRATEGIES, choices=sorted(RECIPES))
    parser.add_argument("--train", type=int, default=240, help="training images")
    parser.add_argument("--val", type=int, default=180, help="validation images")
    parser.add_argument("--test", type=int, default=700, help="test images")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/int8_finetuned.json")
    options = parser.parse_args()
    facts = {"backbone": DEFAULT_NAME, "epochs": options.epochs}
    cells: list[dict[str, Any]] = []
    if options.out.exists():
        cells = json.loads(options.out.read_text())["cells"]
    with tempfile.TemporaryDirectory() as scratch:
        for name, folder in find_sets(options.data_dir, options.sets, Path(scratch)):
            manifest = list_images(folder, seed=0)
            counts = {"train": options.train, "val": options.val, "test": options.test}
            rows = {split: take_evenly(manifest, split, n) for split, n in counts.items()}
            for strategy in options.strategies:
                key = {"set": name, "strategy": strategy}
                if any(key.items() <= cell.items() for cell in cells):
                    continue
                with tempfile.TemporaryDirectory() as work:
                    found = measure(strategy, manifest, rows, folder, Path(work), options.epochs)
                cells.append(key | found)
                print(json.dumps(cells[-1], indent=1), flush=True)
                write_json(options.out, {**describe_run(COMMAND), **facts, "cells": cells})


def take_evenly(manifest: Manifest, split: str, count: int) -> list[ImageRow]:
    """Return about ``count`` images of a split, the same number of each class."""
    rows = sorted(manifest.rows(split), key=lambda row: row.sha256)
    classes = sorted({row.target for row in rows})
    each = count // len(classes)
    return [row for name in classes for row in [r for r in rows if r.target == name][:each]]


def measure(
    strategy: Strategy,
    manifest: Manifest,
    rows: dict[str, list[ImageRow]],
    root: Path,
    work: Path,
    epochs: int,
) -> dict[str, Any]:
    """Return the figures of one network before and after it is quantised."""
    names = sorted({row.target for row in rows["train"]})
    targets = {split: code(each, names) for split, each in rows.items()}
    backbone = load_backbone("packaged", DEFAULT_NAME)
    sides = [min(row.width, row.height) for row in rows["train"]]
    size = finetune_input_size(float(np.median(sides)), backbone.card.input_size[-1])
    preprocess = backbone.card.preprocess(size, manifest.rendering)
    reader = FeatureReader(root, backbone, preprocess, FeatureStore(work / "store"))
    reader.extract(rows["train"], [LAST])
    head = TASK.head().fit(reader.read(rows["train"], LAST), targets["train"], l2=HEAD_L2)
    network = TransferNet.build(backbone, tap=LAST, head=head)
    images = {
        split: prepare_images(
            rows[split],
            targets[split],
            root=root,
            preprocess=training_preprocess(preprocess) if split == "train" else preprocess,
            cache=work / f"{split}.npy",
        )
        for split in rows
    }
    recipe = RECIPES[strategy]
    history = finetune(
        network,
        images["train"],
        images["val"],
        task=TASK,
        settings=FinetuneSettings(
            learning_rate=recipe.learning_rates[0],
            epochs=epochs,
            batch_size=32,
            freeze_through=freeze_through(backbone.tap_names)
            if strategy == "partial_finetune"
            else None,
            batchnorm=recipe.batchnorm,
            layer_decay=recipe.layer_decay,
            head_multiplier=recipe.head_multiplier,
            weight_decay=0.01,
            label_smoothing=0.0,
            patience=epochs,
            augmentation="medium",
            flip=mirror_is_safe(names),
            seed=0,
            norm_only=recipe.norm_only,
        ),
        directory=work / "trial",
        report=lambda *_: None,
    )
    network.load_state_dict(load_file(work / "trial" / BEST))
    exact, rounded = work / "model.onnx", work / "model.int8.onnx"
    export_onnx(network.eval(), exact, prepared(images["val"])[:2])
    chosen = list(calibration_images(rows["train"]))
    sample = ImageSet(tuple(chosen), code(chosen, names), root, preprocess, None)
    write_int8(exact, rounded, list(prepared(sample)))
    outputs = {
        split: [run(path, prepared(images[split])) for path in (exact, rounded)]
        for split in ("val", "test")
    }
    calibration = TASK.calibrate(outputs["val"][0], targets["val"])
    facts = judge_twin(
        *outputs["val"],
        TASK,
        targets["val"],
        calibration,
        max_loss=ExportConfig().max_loss,
    )
    decisions = [TASK.decide(each, calibration) for each in outputs["test"]]
    losses = [TASK.losses(each, targets["test"], calibration) for each in outputs["test"]]
    rise = losses[1] - losses[0]
    noise = 1.96 * rise.std() / len(rise) ** 0.5
    said = [TASK.decided(each, tuple(names)) for each in decisions]
    return {
        "images": {split: len(each) for split, each in rows.items()},
        "input_pixels": size,
        "best_epoch": history["best_epoch"],
        "twin": facts.model_dump(mode="json", exclude={"native"}),
        "test": {
            "score": [
                round(TASK.metrics(each, targets["test"])[TASK.score], 4) for each in decisions
            ],
            "loss": [round(float(each.mean()), 4) for each in losses],
            "loss_rise_95": [round(float(rise.mean() + side * noise), 4) for side in (-1, 1)],
            "agreement": round(float(np.mean([a == b for a, b in zip(*said, strict=True)])), 4),
        },
    }


def code(rows: list[ImageRow], names: list[str]) -> Targets:
    """Return the classes of images as targets."""
    labels = np.array([names.index(row.target) for row in rows])
    return Targets(labels, tuple(names), labels)


def prepared(images: ImageSet) -> np.ndarray:
    """Return the inputs float32[N,3,S,S] of images."""
    return images.preprocess.normalise(images.pixels(range(len(images))))


def run(path: Path, inputs: np.ndarray) -> np.ndarray:
    """Return the outputs of an ONNX file, image by image."""
    session = onnx_session(path, threads=1)
    return np.concatenate([session.run(["logits"], {"images": one[None]})[0] for one in inputs])


if __name__ == "__main__":
    main()
