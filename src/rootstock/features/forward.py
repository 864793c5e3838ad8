"""The forward pass of feature extraction: PyTorch, ONNX Runtime or OpenVINO.

On a processor the latter two are several times as fast as eager PyTorch (docs/benchmarks.md), but
need a translation that takes a moment, so it is made where there is much to do. On a GPU it is
PyTorch in one of several ways (`rootstock.features.variants`). Which is the fastest depends on
network and machine. What the plan is made from takes the preferred one, by counting the work and no
stopwatch, so that the same data give the same plan bit for bit; the stage `features` measures once
(`rootstock.features.fastest`).
"""

from __future__ import annotations

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
from rootstock.data.preprocess import Preprocess
from rootstock.errors import RootstockError
from rootstock.features.variants import GpuWay, gpu_ways
from rootstock.runtimes.engines import Engine, installed_engines, open_features
from rootstock.system.cpu import usable_cores
from rootstock.system.digest import digest_json
from rootstock.system.files import write_atomic

_log = logging.getLogger(__name__)
HALF_MAX = 65_504.0
TRANSLATE_FROM_GFLOP = 50.0
"""Of all images together; eager PyTorch takes about as long for it as the translation does."""
TOLERANCE = 1e-3
"""Of the largest feature: how far two ways may differ. Half precision rounds to as much."""

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
    how: str = ""
    """Which of the engine's ways, where it has several."""
    tolerance: float = TOLERANCE

    @property
    def name(self) -> str:
        """Engine and way, for people and for what was measured."""
        return f"{self.engine} ({self.how})" if self.how else self.engine


@dataclass(frozen=True)
class Ways:
    """Forward passes with the same answers, the preferred one first; ``name`` tells the network.

    ``open``: only a measurement can tell which of them is the fastest.
    """

    forwards: tuple[Forward, ...]
    name: str = ""
    open: bool = False


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
    """The ways to compute ``n_images`` at single ``taps``; plain PyTorch is always among them.

    ``every`` one there is, else the preferred one and plain PyTorch.
    A translated network is kept in ``folder``. A way counts only if it gives plain PyTorch's
    features of ``probe``, some prepared images uint8[N,S,S,3], within its tolerance.
    """
    eager = _eager(backbone, preprocess, taps)
    if _is_gpu(backbone.device):
        ways = _proved(_on_gpu(backbone, preprocess, taps), eager, probe) if every else []
        return Ways((eager, *ways), _name_on_gpu(backbone, preprocess, taps), open=bool(ways))
    engines = [engine for engine in installed_engines() if engine != "torch"]
    engines = engines if every else engines[:1]
    work = n_images * forward_gflop(backbone, preprocess.input_size)
    if work < TRANSLATE_FROM_GFLOP or not engines:
        return Ways((eager,))
    ordered = sorted(taps, key=backbone.tap_index)
    try:
        path = _translate(backbone, ordered, preprocess.input_size, folder)
    except RootstockError as error:
        _log.warning("features are computed by PyTorch, several times slower: %s", error.message)
        return Ways((eager,))
    apart = _splitter(backbone, ordered)
    translated = []
    for engine in engines:
        try:
            translated.append(_translated(engine, path, preprocess, apart))
        except RootstockError as error:
            _log.warning("features are not computed by %s: %s", engine, error.message)
    found = (*_proved(translated, eager, probe), eager)
    return Ways(found, path.stem, open="openvino" in [forward.engine for forward in found])


def _is_gpu(device: torch.device) -> bool:
    return device.type != "cpu"


def _proved(ways: Sequence[Forward], plain: Forward, probe: np.ndarray) -> list[Forward]:
    """Those that give the ``plain`` way's features of ``probe``, and end at all."""
    if not ways:
        return []
    expected, proved = plain.run(probe), []
    for forward in ways:
        try:
            difference = _difference(expected, forward.run(probe))
        except Exception as error:  # noqa: BLE001 - an operation that has no half precision, say
            why = (str(error) or type(error).__name__).splitlines()[0]
        else:
            if difference <= forward.tolerance:
                proved.append(forward)
                continue
            why = f"its differ by {difference:.2g} of the largest"
        _log.warning("features are not computed by %s: %s", forward.name, why)
    return proved


def _on_gpu(backbone: Backbone, preprocess: Preprocess, taps: Sequence[str]) -> list[Forward]:
    ordered = sorted(taps, key=backbone.tap_index)
    apart = _splitter(backbone, ordered)

    def forward(way: GpuWay) -> Forward:
        def run(images: np.ndarray) -> Features:
            joined = way.network(_normalised(images, preprocess, backbone.device))
            return apart(joined.clamp(-HALF_MAX, HALF_MAX).half().cpu().numpy())

        return Forward("torch", False, run, way.name, way.tolerance or TOLERANCE)

    return [forward(way) for way in gpu_ways(backbone, ordered)]


def _name_on_gpu(backbone: Backbone, preprocess: Preprocess, taps: Sequence[str]) -> str:
    """The network, its images and the card: cards of one machine need not be alike."""
    device = backbone.device
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return json.dumps([backbone.card.weights_sha256, sorted(taps), preprocess.input_size, card])


def _splitter(backbone: Backbone, ordered: Sequence[str]) -> Callable[[np.ndarray], Features]:
    """Takes the features of several taps, which stand side by side, apart."""
    edges = np.cumsum([backbone.width(tap) for tap in ordered])[:-1]
    return lambda joined: dict(zip(ordered, np.split(joined, edges, axis=1), strict=True))


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
    identity = [backbone.card.weights_sha256, ordered, size, torch.__version__]
    path = folder / f"{digest_json(identity, digits=20)}.onnx"
    if not path.exists():
        module = backbone.feature_module("+".join(ordered))
        with write_atomic(path) as temporary:
            write_onnx(module, temporary, input_size=size, outputs=["features"])
    return path


def _translated(
    engine: Engine,
    path: Path,
    preprocess: Preprocess,
    apart: Callable[[np.ndarray], Features],
) -> Forward:
    """Raises: BundleError: the engine cannot read the file."""
    features = open_features(engine, path, cores=usable_cores())

    def run(images: np.ndarray) -> Features:
        joined = features(preprocess.normalise(images))
        return apart(np.clip(joined, -HALF_MAX, HALF_MAX).astype(np.float16))

    return Forward(engine, concurrent=True, run=run)


def _difference(one: Features, other: Features) -> float:
    """The largest difference at any tap, as a share of the tap's largest feature."""
    shares = [
        np.abs(values.astype(np.float32) - other[tap]).max()
        / max(np.abs(values.astype(np.float32)).max(), 1e-6)
        for tap, values in one.items()
    ]
    return float(np.max(shares))  # Python's max passes over what is not a number
