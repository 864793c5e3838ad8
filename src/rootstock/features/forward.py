"""The forward pass of feature extraction: PyTorch, ONNX Runtime or OpenVINO.

On a processor the latter two are several times as fast as eager PyTorch (docs/benchmarks.md), but
need a translation that takes a moment, so it is made where there is much to do. Which of them is
faster depends on network and machine. What the plan is made from takes the preferred one that is
installed, by counting the work and no stopwatch, so that the same data give the same plan bit for
bit; the stage `features` measures once (`rootstock.features.fastest`).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from rootstock.backbones.cost import forward_gflop
from rootstock.backbones.load import Backbone
from rootstock.backbones.to_onnx import write_onnx
from rootstock.cores import usable_cores
from rootstock.data.files import write_atomic
from rootstock.data.preprocess import Preprocess
from rootstock.errors import RootstockError
from rootstock.runtimes import Engine, installed_engines, open_features

_log = logging.getLogger(__name__)
HALF_MAX = 65_504.0
TRANSLATE_FROM_GFLOP = 50.0
"""Of all images together; eager PyTorch takes about as long for it as the translation does."""
TOLERANCE = 1e-3
"""Of the largest feature: how far the two engines may differ. Half precision rounds to as much."""

Features = dict[str, np.ndarray]
"""Per tap float16[N,C]."""


@dataclass(frozen=True)
class Forward:
    """Prepared pixels uint8[N,S,S,3] in, features out.

    ``concurrent``: it takes one core and may be called from several threads at once.
    """

    engine: Engine
    concurrent: bool
    run: Callable[[np.ndarray], Features]


@dataclass(frozen=True)
class Ways:
    """Forward passes with the same answers, the preferred one first; ``name`` tells the network."""

    forwards: tuple[Forward, ...]
    name: str = ""


def open_forwards(
    backbone: Backbone,
    preprocess: Preprocess,
    taps: Sequence[str],
    *,
    n_images: int,
    probe: np.ndarray,
    folder: Path,
    every: bool,
) -> Ways:
    """The ways to compute ``n_images`` at single ``taps``, PyTorch the last; it alone on a GPU.

    ``every`` engine that is installed, else the preferred one and PyTorch.
    A translated network is kept in ``folder``. An engine counts only if it gives PyTorch's features
    of ``probe``, some prepared images uint8[N,S,S,3], within `TOLERANCE`.
    """
    eager = _eager(backbone, preprocess, taps)
    engines = [engine for engine in installed_engines() if engine != "torch"]
    engines = engines if every else engines[:1]
    work = n_images * forward_gflop(backbone, preprocess.input_size)
    if backbone.device.type != "cpu" or work < TRANSLATE_FROM_GFLOP or not engines:
        return Ways((eager,))
    ordered = sorted(taps, key=backbone.tap_index)
    try:
        path = _translate(backbone, ordered, preprocess.input_size, folder)
    except RootstockError as error:
        _log.warning("features are computed by PyTorch, several times slower: %s", error.message)
        return Ways((eager,))
    edges = np.cumsum([backbone.width(tap) for tap in ordered])[:-1]
    expected, proved = eager.run(probe), []
    for engine in engines:
        try:
            forward = _translated(engine, path, preprocess, ordered, edges)
            difference = _difference(expected, forward.run(probe))
        except RootstockError as error:
            _log.warning("features are not computed by %s: %s", engine, error.message)
            continue
        if difference > TOLERANCE:
            _log.warning(
                "features are not computed by %s: its differ by %.2g of the largest",
                engine,
                difference,
            )
            continue
        proved.append(forward)
    return Ways((*proved, eager), path.stem)


def _eager(backbone: Backbone, preprocess: Preprocess, taps: Sequence[str]) -> Forward:
    def run(images: np.ndarray) -> Features:
        found = backbone.features(_normalised(images, preprocess, backbone.device), taps)
        return {
            tap: value.clamp(-HALF_MAX, HALF_MAX).half().cpu().numpy()
            for tap, value in found.items()
        }

    return Forward("torch", concurrent=False, run=run)


def _normalised(images: np.ndarray, preprocess: Preprocess, device: torch.device) -> torch.Tensor:
    """Prepared pixels uint8[N,S,S,3] -> float32[N,3,S,S] on the device."""
    if device.type == "cpu":
        return torch.from_numpy(preprocess.normalise(images))
    # Bytes travel, a quarter of the floats; the same table gives the same bits.
    levels = torch.from_numpy(preprocess.levels).to(device)
    pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).int()
    return torch.stack([levels[channel][pixels[:, channel]] for channel in range(3)], dim=1)


def _translate(backbone: Backbone, ordered: Sequence[str], size: int, folder: Path) -> Path:
    """Raises: BackboneError: torch cannot translate it."""
    facts = [backbone.card.weights_sha256, ordered, size, torch.__version__]
    path = folder / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:20]}.onnx"
    if not path.exists():
        module = backbone.feature_module("+".join(ordered))
        with write_atomic(path) as temporary:
            write_onnx(module, temporary, input_size=size, outputs=["features"])
    return path


def _translated(
    engine: Engine, path: Path, preprocess: Preprocess, ordered: Sequence[str], edges: np.ndarray
) -> Forward:
    """Raises: BundleError: the engine cannot read the file."""
    features = open_features(engine, path, cores=usable_cores())

    def run(images: np.ndarray) -> Features:
        joined = features(preprocess.normalise(images))
        half = np.clip(joined, -HALF_MAX, HALF_MAX).astype(np.float16)
        return dict(zip(ordered, np.split(half, edges, axis=1), strict=True))

    return Forward(engine, concurrent=True, run=run)


def _difference(one: Features, other: Features) -> float:
    """The largest difference at any tap, as a share of the tap's largest feature."""
    shares = [
        np.abs(values.astype(np.float32) - other[tap]).max()
        / max(np.abs(values.astype(np.float32)).max(), 1e-6)
        for tap, values in one.items()
    ]
    return float(max(shares))
