"""The forward pass of feature extraction: PyTorch, ONNX Runtime or OpenVINO.

On a processor the latter two are several times as fast as eager PyTorch (docs/benchmarks.md), but
need a translation that takes a moment, so it is done only for many images. On a GPU it is PyTorch
in one of several variants (`rootstock.features.variants`). Which is the fastest depends on network
and machine. Features for the plan use the preferred way, chosen by the amount of work and without a
stopwatch, so that the same data give the same plan bit for bit; the stage `features` measures once
(`rootstock.features.fastest`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from rootstock.backbones.cost import forward_gflop
from rootstock.backbones.load import Backbone
from rootstock.backbones.to_onnx import EXPORT, write_onnx
from rootstock.data.preprocess import Preprocess
from rootstock.errors import RootstockError
from rootstock.features.variants import Network, gpu_variants
from rootstock.runtimes.engines import Engine, installed_engines, open_features
from rootstock.system.cpu import usable_cores
from rootstock.system.digest import digest_json
from rootstock.system.files import write_atomic

_log = logging.getLogger(__name__)
HALF_MAX = 65_504.0
TRANSLATE_FROM_GFLOP = 50.0
"""Work of all images together for which eager PyTorch takes about as long as a translation."""
TOLERANCE = 1e-3
"""Largest difference of two variants, relative to the largest feature, as of half precision."""

Features = dict[str, np.ndarray]
"""Features float16[N,C] by tap."""


@dataclass(frozen=True)
class ForwardPass:
    """Maps prepared pixels uint8[N,S,S,3] to features.

    ``concurrent``: it uses one core, and several threads may call it at once.
    """

    engine: Engine
    concurrent: bool
    run: Callable[[np.ndarray], Features]
    variant: str = ""
    """The variant of the engine, if there are several."""
    tolerance: float = TOLERANCE

    @property
    def name(self) -> str:
        """Engine and variant, for people and for measurements."""
        return f"{self.engine} ({self.variant})" if self.variant else self.engine


@dataclass(frozen=True)
class ForwardPasses:
    """Variants with the same answers, the preferred one first; ``name`` identifies the network.

    ``measurable``: only a measurement can decide which is the fastest.
    """

    variants: tuple[ForwardPass, ...]
    name: str = ""
    measurable: bool = False


def open_passes(
    backbone: Backbone,
    preprocess: Preprocess,
    taps: Sequence[str],
    *,
    n_images: int,
    probe: Callable[[], np.ndarray],
    folder: Path,
    every: bool,
) -> ForwardPasses:
    """Return the variants for ``n_images`` at single ``taps``; plain PyTorch is always included.

    ``every`` returns all of them, otherwise only the preferred one and plain PyTorch. A translated
    network is cached in ``folder``. A variant counts only if it gives plain PyTorch's features of
    the prepared images uint8[N,S,S,3] from ``probe``, within its tolerance.
    """
    ordered = sorted(taps, key=backbone.tap_index)
    plain = _plain(backbone, preprocess, taps)
    if _is_gpu(backbone.device):
        variants = _proved(_on_gpu(backbone, preprocess, ordered), plain, probe()) if every else []
        name = _name_on_gpu(backbone, preprocess, taps)
        return ForwardPasses((plain, *variants), name, measurable=bool(variants))
    engines = [engine for engine in installed_engines() if engine != "torch"]
    engines = engines if every else engines[:1]
    work = n_images * forward_gflop(backbone, preprocess.input_size)
    if work < TRANSLATE_FROM_GFLOP or not engines:
        return ForwardPasses((plain,))
    try:
        path = translate(backbone, ordered, preprocess.input_size, folder)
    except RootstockError as error:
        _log.warning(
            "features are computed with PyTorch, which is several times slower: %s", error.message
        )
        return ForwardPasses((plain,))
    split = make_splitter(backbone, ordered)
    translated = []
    for engine in engines:
        try:
            translated.append(open_translated(engine, path, preprocess, split))
        except RootstockError as error:
            _log.warning("features are not computed with %s: %s", engine, error.message)
    variants = [*_proved(translated, plain, probe()), plain]
    measurable = "openvino" in [variant.engine for variant in variants]
    return ForwardPasses(tuple(variants), path.stem, measurable=measurable)


def _is_gpu(device: torch.device) -> bool:
    return device.type != "cpu"


def _proved(
    variants: Sequence[ForwardPass], plain: ForwardPass, probe: np.ndarray
) -> list[ForwardPass]:
    """Return the variants that run and give the features of the ``plain`` one for ``probe``."""
    if not variants:
        return []
    expected, proved = plain.run(probe), []
    for variant in variants:
        try:
            difference = _difference(expected, variant.run(probe))
        except Exception as error:  # noqa: BLE001 - such as no half precision
            why = (str(error) or type(error).__name__).splitlines()[0]
        else:
            if difference <= variant.tolerance:
                proved.append(variant)
                continue
            why = f"its features differ by {difference:.2g} of the largest"
        _log.warning("features are not computed with %s: %s", variant.name, why)
    return proved


def _on_gpu(
    backbone: Backbone, preprocess: Preprocess, ordered: Sequence[str]
) -> list[ForwardPass]:
    split = make_splitter(backbone, ordered)

    def run(network: Network, images: np.ndarray) -> Features:
        return split(_to_half(network(_normalised(images, preprocess, backbone.device))))

    return [
        ForwardPass("torch", False, partial(run, one.network), one.name, one.tolerance or TOLERANCE)
        for one in gpu_variants(backbone, ordered)
    ]


def _name_on_gpu(backbone: Backbone, preprocess: Preprocess, taps: Sequence[str]) -> str:
    """Return a name of network, images and card: the cards of one machine may differ."""
    device = backbone.device
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return json.dumps([backbone.card.weights_sha256, sorted(taps), preprocess.input_size, card])


def make_splitter(backbone: Backbone, ordered: Sequence[str]) -> Callable[[np.ndarray], Features]:
    """Return a function that splits joined features [N,C] by tap."""
    edges = np.cumsum([backbone.width(tap) for tap in ordered])[:-1]
    return lambda joined: dict(zip(ordered, np.split(joined, edges, axis=1), strict=True))


def _plain(backbone: Backbone, preprocess: Preprocess, taps: Sequence[str]) -> ForwardPass:
    def run(images: np.ndarray) -> Features:
        features = backbone.features(_normalised(images, preprocess, backbone.device), taps)
        return {tap: _to_half(value) for tap, value in features.items()}

    return ForwardPass("torch", concurrent=False, run=run)


def _to_half(features: torch.Tensor) -> np.ndarray:
    return features.clamp(-HALF_MAX, HALF_MAX).half().cpu().numpy()


def _normalised(images: np.ndarray, preprocess: Preprocess, device: torch.device) -> torch.Tensor:
    """Return prepared pixels uint8[N,S,S,3] as float32[N,3,S,S] on the device."""
    if device.type == "cpu":
        return torch.from_numpy(preprocess.normalise(images))
    # Bytes are sent, a quarter of the size of floats; the same table gives the same bits.
    levels = torch.from_numpy(preprocess.levels).to(device)
    pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).int()
    return torch.stack([levels[channel][pixels[:, channel]] for channel in range(3)], dim=1)


def translate(backbone: Backbone, ordered: Sequence[str], size: int, folder: Path) -> Path:
    """Write the network as ONNX, once.

    Raises:
        BackboneError: torch cannot translate it.
    """
    identity = [backbone.card.weights_sha256, ordered, size, torch.__version__, EXPORT]
    path = folder / f"{digest_json(identity, digits=20)}.onnx"
    if not path.exists():
        module = backbone.feature_module("+".join(ordered)).cpu()
        with write_atomic(path) as temporary:
            write_onnx(module, temporary, input_size=size, outputs=["features"])
    return path


def open_translated(
    engine: Engine,
    path: Path,
    preprocess: Preprocess,
    split: Callable[[np.ndarray], Features],
) -> ForwardPass:
    """Open the network by an engine.

    Raises:
        BundleError: the engine cannot read the file.
    """
    features = open_features(engine, path, cores=usable_cores())

    def run(images: np.ndarray) -> Features:
        joined = features(preprocess.normalise(images))
        return split(np.clip(joined, -HALF_MAX, HALF_MAX).astype(np.float16))

    return ForwardPass(engine, concurrent=True, run=run)


def _difference(one: Features, other: Features) -> float:
    """Return the largest difference at any tap, as a share of the tap's largest feature."""
    exact = {tap: values.astype(np.float32) for tap, values in one.items()}
    shares = [
        np.abs(values - other[tap]).max() / max(np.abs(values).max(), 1e-6)
        for tap, values in exact.items()
    ]
    return float(np.max(shares))  # Python's max ignores NaN
