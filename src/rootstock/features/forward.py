"""The forward pass of feature extraction: PyTorch, or ONNX Runtime where there is much to do.

On a processor ONNX Runtime is several times as fast as eager PyTorch (docs/benchmarks.md), but the
translation takes a moment. Which one runs is decided by counting the work, not by a stopwatch: the
same data must give the same features bit for bit.
"""

from __future__ import annotations

import hashlib
import importlib.util
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
from rootstock.data.files import write_atomic
from rootstock.data.preprocess import Preprocess
from rootstock.errors import RootstockError
from rootstock.onnx_session import onnx_session

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

    engine: str
    concurrent: bool
    run: Callable[[np.ndarray], Features]


def open_forward(
    backbone: Backbone,
    preprocess: Preprocess,
    taps: Sequence[str],
    *,
    n_images: int,
    probe: np.ndarray,
    folder: Path,
) -> Forward:
    """The forward pass for ``n_images`` at single ``taps``.

    A translated network is kept in ``folder``. It is used only if it gives PyTorch's features of
    ``probe``, some prepared images uint8[N,S,S,3], within `TOLERANCE`.
    """
    eager = _eager(backbone, preprocess, taps)
    work = n_images * forward_gflop(backbone, preprocess.input_size)
    if (
        backbone.device.type != "cpu"
        or work < TRANSLATE_FROM_GFLOP
        or not importlib.util.find_spec("onnxruntime")
    ):
        return eager
    try:
        translated = _translated(backbone, preprocess, taps, folder)
    except RootstockError as error:
        _log.warning("features are computed by PyTorch, several times slower: %s", error.message)
        return eager
    difference = _difference(eager.run(probe), translated.run(probe))
    if difference > TOLERANCE:
        _log.warning(
            "features are computed by PyTorch: ONNX Runtime's differ by %.2g of the largest",
            difference,
        )
        return eager
    return translated


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


def _translated(
    backbone: Backbone, preprocess: Preprocess, taps: Sequence[str], folder: Path
) -> Forward:
    """Raises: BackboneError: torch cannot translate it; BundleError: nobody can read it."""
    ordered = sorted(taps, key=backbone.tap_index)
    size = preprocess.input_size
    facts = [backbone.card.weights_sha256, ordered, size, torch.__version__]
    path = folder / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:20]}.onnx"
    if not path.exists():
        module = backbone.feature_module("+".join(ordered))
        with write_atomic(path) as temporary:
            write_onnx(module, temporary, input_size=size, outputs=["features"])
    session = onnx_session(path, threads=1)
    edges = np.cumsum([backbone.width(tap) for tap in ordered])[:-1]

    def run(images: np.ndarray) -> Features:
        (joined,) = session.run(["features"], {"images": preprocess.normalise(images)})
        half = np.clip(joined, -HALF_MAX, HALF_MAX).astype(np.float16)
        return dict(zip(ordered, np.split(half, edges, axis=1), strict=True))

    return Forward("onnx", concurrent=True, run=run)


def _difference(one: Features, other: Features) -> float:
    """The largest difference at any tap, as a share of the tap's largest feature."""
    shares = [
        np.abs(values.astype(np.float32) - other[tap]).max()
        / max(np.abs(values.astype(np.float32)).max(), 1e-6)
        for tap, values in one.items()
    ]
    return float(max(shares))
