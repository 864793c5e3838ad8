"""Measure how similar the data are to the pretraining set, without images of that set.

A BatchNorm layer stores mean and variance of each channel over the pretraining images. The
divergence of a layer is the median over channels of KL(N(data) || N(pretraining)), after Lee et
al. 2021 (arXiv 2107.00191). For a backbone without BatchNorm, the same is computed at its taps
against a reference file shipped with the weights; without one, the score is the confidence of
the original classifier.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from rootstock.assess.profile import LayerDivergence, Similarity
from rootstock.backbones.card import SimilarityScale
from rootstock.backbones.load import LAST, Backbone
from rootstock.system.files import write_atomic

DEFAULT_SCALE = SimilarityScale(in_domain=0.012, scale=0.0346)
"""With MobileNetV2 on ImageNet, mean of the quarters: insects .010, flowers .022, brain scans .059,
hand signs .118. A mean divergence of .036 scores one half; .012 or less scores one."""
_MIN_VARIANCE = 1e-5
Moments = dict[str, tuple[np.ndarray, np.ndarray]]
"""Mean and variance, float64[C] each, by layer."""


class ChannelMoments:
    """Mean and variance of each channel, accumulated over batches in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.sum: Tensor | None = None
        self.squares: Tensor | None = None

    def add(self, maps: Tensor) -> None:
        """Add activations [N,C,H,W] or [N,C]."""
        maps = maps.detach().flatten(2) if maps.dim() > 2 else maps.detach().unsqueeze(2)
        # Per image, in float32: torch.var_mean over the batch takes ten times as long.
        means = maps.mean(2).double()
        squares = torch.linalg.vector_norm(maps, dim=2).double().square()
        total, squares = maps.shape[2] * means.sum(0), squares.sum(0)
        count = maps.shape[0] * maps.shape[2]
        self.count += count
        self.sum = total if self.sum is None else self.sum + total
        self.squares = squares if self.squares is None else self.squares + squares

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and variance, float64[C] each."""
        assert self.sum is not None
        assert self.squares is not None
        mean = self.sum / self.count
        variance = (self.squares / self.count - mean.square()).clamp(min=0)
        return mean.cpu().numpy(), variance.cpu().numpy()


def gaussian_divergence(
    mean: np.ndarray, variance: np.ndarray, reference_mean: np.ndarray, reference_var: np.ndarray
) -> float:
    """Return the median over channels of KL(N(mean, variance) || N(reference)), in nats."""
    data = variance + _MIN_VARIANCE
    reference = reference_var + _MIN_VARIANCE
    ratio = data / reference
    shift = np.square(mean - reference_mean) / reference
    return float(np.median(0.5 * (ratio + shift - 1.0 - np.log(ratio))))


def measure_similarity(
    backbone: Backbone,
    batches: Iterable[np.ndarray],
    *,
    threshold: float,
    forwarded: bool = False,
) -> Similarity:
    """Return the similarity of prepared images float32[N,3,S,S] to the backbone's pretraining set.

    Uses BatchNorm if there is any, otherwise the shipped reference, otherwise the confidence.
    ``forwarded``: the backbone's module has already computed features of each batch when it is
    yielded, so BatchNorm layers need no extra forward pass.
    """
    layers = _batchnorms(backbone.module)
    reference = reference_path(backbone)
    if layers:
        return _by_batchnorm(backbone, layers, batches, threshold, forwarded)
    if reference is not None and reference.is_file():
        return _by_reference(backbone, load_file(reference), batches, threshold)
    if backbone.card.num_classes > 1:
        return _by_confidence(backbone, batches, threshold)
    return Similarity(score=0.0, similar=False, threshold=threshold, method="none")


def write_reference(backbone: Backbone, batches: Iterable[np.ndarray], path: Path) -> None:
    """Measure pretraining images at every tap, for `measure_similarity` without BatchNorm.

    ``path`` is NAME.reference.safetensors next to the weights.
    """
    moments, _ = _tap_moments(backbone, batches)
    tensors = {}
    for tap, (mean, variance) in moments.items():
        tensors[f"{tap}.mean"], tensors[f"{tap}.var"] = mean, variance
    with write_atomic(path) as temporary:
        save_file(tensors, temporary)


def reference_path(backbone: Backbone) -> Path | None:
    """Return the path of the reference of a backbone from a file; None for other weights."""
    weights = backbone.card.weights
    if not weights.endswith(".safetensors"):
        return None
    return Path(weights).with_suffix(".reference.safetensors")


def score_divergence(divergence: float, scale: SimilarityScale) -> float:
    """Return exp(-(D - in-domain) / scale), at most 1."""
    return math.exp(-max(0.0, divergence - scale.in_domain) / scale.scale)


def quarter_medians(layers: Iterable[LayerDivergence]) -> tuple[float, ...]:
    """Return the median divergence per quarter of depth, early to late, without empty quarters."""
    quarters: list[list[float]] = [[], [], [], []]
    for layer in layers:
        quarters[min(3, int(layer.depth * 4))].append(layer.divergence)
    return tuple(round(float(np.median(values)), 4) for values in quarters if values)


def _by_batchnorm(
    backbone: Backbone,
    layers: dict[str, Any],
    batches: Iterable[np.ndarray],
    threshold: float,
    forwarded: bool,
) -> Similarity:
    if forwarded:
        layers = _reached(backbone, layers)
    moments = {name: ChannelMoments() for name in layers}
    count = 0
    if forwarded:
        with _watching(layers, moments):
            count = sum(len(batch) for batch in batches)
    else:
        for batch in batches:
            count += len(batch)
            with _watching(layers, moments), torch.inference_mode():
                backbone.module.forward_features(torch.from_numpy(batch).to(backbone.device))
    finished = {name: moment.finish() for name, moment in moments.items() if moment.count}
    pretraining = {
        name: [
            buffer.double().cpu().numpy()
            for buffer in (layers[name].running_mean, layers[name].running_var)
        ]
        for name in finished
    }
    return _compare(backbone, finished, pretraining, threshold, "batchnorm", count)


def _by_reference(
    backbone: Backbone,
    reference: dict[str, np.ndarray],
    batches: Iterable[np.ndarray],
    threshold: float,
) -> Similarity:
    moments, count = _tap_moments(backbone, batches)
    pretraining = {tap: [reference[f"{tap}.mean"], reference[f"{tap}.var"]] for tap in moments}
    return _compare(backbone, moments, pretraining, threshold, "reference", count)


def _by_confidence(
    backbone: Backbone, batches: Iterable[np.ndarray], threshold: float
) -> Similarity:
    """Return a coarse score from the mean maximum softmax probability (Hendrycks, Gimpel 2017)."""
    confidences: list[float] = []
    with torch.inference_mode():
        for batch in batches:
            logits = backbone.module(torch.from_numpy(batch).to(backbone.device))
            confidences += logits.softmax(dim=1).amax(dim=1).cpu().tolist()
    score = round(float(np.mean(confidences)), 4)
    return Similarity(
        score=score,
        similar=score >= threshold,
        threshold=threshold,
        method="confidence",
        n_images=len(confidences),
    )


def _compare(
    backbone: Backbone,
    moments: Moments,
    pretraining: dict[str, list[np.ndarray]],
    threshold: float,
    method: Literal["batchnorm", "reference"],
    count: int,
) -> Similarity:
    """Return the similarity of layer moments, input to output, to those of pretraining."""
    layers = tuple(
        LayerDivergence(
            name=name,
            depth=round(position / max(1, len(moments) - 1), 4),
            divergence=round(gaussian_divergence(*moments[name], *pretraining[name]), 4),
        )
        for position, name in enumerate(moments)
    )
    quarters = quarter_medians(layers)
    scale = backbone.card.similarity or DEFAULT_SCALE
    score = round(score_divergence(float(np.mean(quarters)), scale), 4)
    return Similarity(
        score=score,
        similar=score >= threshold,
        threshold=threshold,
        method=method,
        quarters=quarters,
        layers=layers,
        n_images=count,
    )


def _batchnorms(module: nn.Module) -> dict[str, Any]:
    return {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None
    }


def _reached(backbone: Backbone, layers: dict[str, Any]) -> dict[str, Any]:
    """Return the layers up to the last map, without those of the head."""
    moments = {name: ChannelMoments() for name in layers}
    with _watching(layers, moments), torch.inference_mode():
        image = torch.zeros(1, *backbone.card.input_size, device=backbone.device)
        backbone.module.forward_features(image)
    return {name: layer for name, layer in layers.items() if moments[name].count}


@contextmanager
def _watching(layers: dict[str, Any], moments: dict[str, ChannelMoments]) -> Iterator[None]:
    """Accumulate the moments of each layer's input, in the order of the forward pass."""
    handles = [
        layer.register_forward_pre_hook(
            lambda _, inputs, moment=moments[name]: moment.add(inputs[0])
        )
        for name, layer in layers.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tap_moments(backbone: Backbone, batches: Iterable[np.ndarray]) -> tuple[Moments, int]:
    moments = {tap: ChannelMoments() for tap in backbone.tap_names if tap != LAST}
    count = 0
    with torch.inference_mode():
        for batch in batches:
            count += len(batch)
            images = torch.from_numpy(batch).to(backbone.device)
            maps = backbone.module.forward_intermediates(images, intermediates_only=True)
            for moment, part in zip(moments.values(), maps, strict=True):
                moment.add(part)
    return {tap: moment.finish() for tap, moment in moments.items()}, count
