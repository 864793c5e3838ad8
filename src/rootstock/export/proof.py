"""Measure how far an exported model is from the original, on the same images."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from rootstock.errors import BundleError
from rootstock.model.bundle import largest_difference
from rootstock.model.predictor import GOLDEN_TOLERANCE, Predictor

ROUNDS = 15
Logits = Callable[[np.ndarray], np.ndarray]
"""Maps images float32[N,3,S,S] to outputs float32[N,K] before calibration."""


@dataclass(frozen=True)
class Proof:
    """The answers of an exported model to the golden images and to further ones.

    ``largest_difference`` of an output on the golden images is relative to the allowed rounding.
    ``agreement`` is the share of ``n_images`` with the same decision, None if decisions are
    numbers. Milliseconds are per image, measured in turns on this machine.
    """

    largest_difference: float
    agreement: float | None
    n_images: int
    milliseconds: float
    milliseconds_before: float

    def to_dict(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return asdict(self)


def prove(predictor: Predictor, exported: Logits, images: np.ndarray, *, exact: bool) -> Proof:
    """Compare ``exported`` with the model on golden images and on prepared ones [N,3,S,S].

    Raises:
        BundleError: ``exact`` is set, but the golden outputs differ from the recorded ones.
    """
    bundle = predictor.bundle
    worst = 0.0
    for (_, pixels), sample in zip(predictor.golden_pixels, bundle.golden, strict=True):
        found = exported(bundle.preprocess.normalise(pixels[None]))[0]
        sizes = np.asarray(sample.sizes)
        worst = max(worst, largest_difference(found, np.asarray(sample.logits), sizes))
    if exact and not worst <= GOLDEN_TOLERANCE:
        raise BundleError(
            f"the exported model differs by {worst:.2g} on the golden images; the limit is "
            f"{GOLDEN_TOLERANCE:g}: nothing was written",
            hint="choose another format",
        )
    expected = np.concatenate([predictor.outputs(image[None]) for image in images])
    found = np.concatenate([exported(image[None]) for image in images])
    one = images[:1]
    pairs = [(_seconds(predictor.outputs, one), _seconds(exported, one)) for _ in range(ROUNDS)]
    before, after = (1000 * median(times) for times in zip(*pairs, strict=True))
    return Proof(
        largest_difference=round(worst, 6),
        agreement=_agreement(predictor, expected, found),
        n_images=len(images),
        milliseconds=round(after, 3),
        milliseconds_before=round(before, 3),
    )


def _agreement(predictor: Predictor, expected: np.ndarray, found: np.ndarray) -> float | None:
    task, calibration = predictor.task, predictor.bundle.facts.calibration
    if not task.discrete:
        return None
    said = [
        task.decided(task.decide(outputs, calibration), predictor.names)
        for outputs in (expected, found)
    ]
    return round(float(np.mean([a == b for a, b in zip(*said, strict=True)])), 4)


def _seconds(run: Logits, images: np.ndarray) -> float:
    started = time.perf_counter()
    run(images)
    return time.perf_counter() - started
