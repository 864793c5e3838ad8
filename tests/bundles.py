"""A real model bundle with random weights and three classes, made once per test run."""

from __future__ import annotations

import atexit
import functools
import io
import json
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from rootstock.backbones.load import Backbone, load_backbone
from rootstock.data.decode import decode_image
from rootstock.heads.linear import LinearHead
from rootstock.model.bundle import ModelBundle
from rootstock.model.bundle_writer import write_bundle
from rootstock.model.novelty import Reference
from rootstock.model.twin import Twin, TwinFacts, TwinFigures
from rootstock.runtimes.int8 import write_int8
from rootstock.runtimes.onnx import onnx_session
from rootstock.tasks.single_label.task import SingleLabel
from rootstock.tasks.targets import Targets
from rootstock.training.network import TransferNet

PREFIX = "rootstock-test-"
FORGOTTEN_SECONDS = 24 * 3600
"""Age of a folder from which on the process that made it was killed."""
_folders: list[Path] = []
CLASSES = ["iris", "rose", "tulip"]
SIZE = 64


def jpeg(seed: int, *, width: int = 90, height: int = 70) -> bytes:
    """Return a small JPEG of coloured blocks; each seed gives another image."""
    blocks = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC).save(
        buffer, "JPEG", quality=92
    )
    return buffer.getvalue()


def _make_folder(kind: str) -> Path:
    for old in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > FORGOTTEN_SECONDS:
                shutil.rmtree(old)
    _folders.append(Path(tempfile.mkdtemp(prefix=f"{PREFIX}{kind}-")))
    return _folders[-1]


@atexit.register
def remove_folders() -> None:
    """Remove the folders of this process; pytest calls it for xdist workers too."""
    for folder in _folders:
        shutil.rmtree(folder, ignore_errors=True)


@functools.cache
def tiny_backbone() -> Backbone:
    """Return timm's `test_efficientnet` with seeded random weights, from a file with a card."""
    folder = _make_folder("backbone")
    torch.manual_seed(0)
    model = timm.create_model("test_efficientnet", num_classes=10)
    save_file(model.state_dict(), folder / "tiny.safetensors")
    card = {
        "architecture": "test_efficientnet",
        "architecture_kwargs": {},
        "num_classes": 10,
        "input_size": [3, SIZE, SIZE],
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "interpolation": "bilinear",
        "crop_pct": 0.9,
        "pretrained_on": "nothing",
        "license": "Apache-2.0",
        "source": "random numbers",
    }
    (folder / "tiny.json").write_text(json.dumps(card))
    return load_backbone(str(folder / "tiny.safetensors"), "")


def tiny_network(tap: str = "last") -> TransferNet:
    """Return the tiny backbone up to a tap, with a seeded random head for three classes."""
    backbone = tiny_backbone()
    width = backbone.taps[backbone.tap_index(tap)].channels
    random = np.random.default_rng(0)
    # Features of random weights differ little between images; a large head separates them.
    head = LinearHead(
        random.normal(0, 3, (len(CLASSES), width)).astype(np.float32),
        np.zeros(len(CLASSES), np.float32),
    )
    return TransferNet.build(backbone, tap=tap, head=head)


def write_tiny_bundle(directory: Path, **changes: Any) -> ModelBundle:
    """Write the tiny bundle to ``directory``; ``changes`` replace arguments of write_bundle."""
    backbone = tiny_backbone()
    arguments: dict[str, Any] = {
        "card": backbone.card,
        "preprocess": backbone.card.preprocess(),
        "task": "single_label",
        "names": CLASSES,
        "strategy": "linear_probe",
        "calibration": {"temperature": 1.5},
        "metrics": {"accuracy": 0.5},
        "lineage": {"data_hash": "d"},
        "golden": [(f"val/{i}.JPG", jpeg(100 + i), CLASSES[i]) for i in range(3)],
    } | changes
    network = arguments.pop("network", None) or tiny_network()
    if arguments.pop("with_reference", False):
        arguments |= {"reference": tiny_reference(network), "unknown_share": 0.05}
    return write_bundle(directory, network=network, **arguments)


def tiny_reference(network: TransferNet) -> Reference:
    """Return the tiny network's reference of forty training and forty validation images."""
    preprocess = tiny_backbone().card.preprocess()
    pixels = [decode_image(jpeg(seed)).pixels for seed in range(200, 280)]
    with torch.inference_mode():
        features = network.features(
            torch.from_numpy(np.stack([preprocess.apply(one) for one in pixels]))
        )
        probabilities = network.head(features).softmax(dim=1)[40:].numpy()
    labels = np.arange(40) % len(CLASSES)
    remembered = SingleLabel().remember(probabilities, Targets(labels, tuple(CLASSES), labels))
    return Reference.measure(features[:40].numpy(), features[40:].numpy(), remembered)


@functools.cache
def tiny_bundle() -> Path:
    """Return the directory of the tiny bundle; tests that change it must copy it first."""
    folder = _make_folder("bundle")
    return write_tiny_bundle(folder / "tiny", with_reference=True).directory


def make_tiny_twin(source: Path, target: Path) -> Twin:
    """Write an int8 twin; the figures are invented."""
    preprocess = tiny_backbone().card.preprocess()
    write_int8(source, target, [preprocess.apply(decode_image(jpeg(n)).pixels) for n in range(9)])
    figures = TwinFigures(
        n_images=40,
        metric="accuracy",
        score=0.9,
        score_float32=0.9,
        loss=0.3,
        loss_float32=0.3,
        loss_interval=(-0.01, 0.01),
        agreement=1.0,
    )
    val = np.stack([preprocess.apply(decode_image(jpeg(n)).pixels) for n in range(240, 280)])
    features = onnx_session(target).run(["features"], {"images": val})[0]
    return Twin(TwinFacts(kept=True, reason="invented", figures=figures), features)


@functools.cache
def twin_bundle() -> Path:
    """The directory of the tiny bundle with an int8 twin."""
    folder = _make_folder("twin")
    return write_tiny_bundle(
        folder / "twin", with_reference=True, make_twin=make_tiny_twin
    ).directory
