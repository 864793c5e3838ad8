"""The int8 twin of a model: the same network in whole numbers, kept only if it loses nothing.

It is measured on the validation images, by the outputs of a head that has not learnt from them.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict

from rootstock.tasks.metric_words import name_metric
from rootstock.tasks.targets import Targets
from rootstock.tasks.task import Calibration, Task

KNOWN_RISE = 0.02
"""The rise of the mean loss that the validation images must exclude.

Chosen on fine-tuned networks of sign_digits (docs/decisions/int8-fine-tuned.md).
"""
_NORMAL_95 = 1.96


class TwinFigures(BaseModel):
    """The results of float32 and int8 on the same ``n_images`` validation images.

    ``score`` is the task's, ``loss`` the mean loss; ``score_interval`` (None in older models) and
    ``loss_interval`` are the 95 % intervals of their increase, ``agreement`` is the share of images
    with the same decision (None: decisions are not names).
    """

    model_config = ConfigDict(frozen=True)

    n_images: int
    metric: str
    score: float
    score_float32: float
    score_interval: tuple[float, float] | None = None
    loss: float
    loss_float32: float
    loss_interval: tuple[float, float]
    agreement: float | None = None


class TwinFacts(BaseModel):
    """Whether a model has an int8 twin, why, and measurements; no figures: it was not made.

    ``native``: the head was trained on features of the int8 network, which is then the model;
    float32 is that head on the other network.
    """

    model_config = ConfigDict(frozen=True)

    kept: bool
    reason: str
    figures: TwinFigures | None = None
    native: bool = False


class Twin(NamedTuple):
    """A written twin; ``features`` float32[V,D] are its features of validation images."""

    facts: TwinFacts
    features: np.ndarray | None = None


class TwinMaker(Protocol):
    """Makes the int8 twin of an exported network."""

    def __call__(self, source: Path, target: Path) -> Twin:
        """Write the int8 twin of the ONNX file ``source`` to ``target`` if it may be kept."""


def judge_twin(
    exact: np.ndarray,
    twin: np.ndarray,
    task: Task,
    targets: Targets,
    calibration: Calibration,
    *,
    max_loss: float,
) -> TwinFacts:
    """Decide by the outputs float32[V,K] of both, on the same images, whether the twin may be kept.

    It is refused if its score falls, or its mean loss rises, by more than ``max_loss`` beyond
    chance. The score is compared as the gate compares champion and challenger: by the images whose
    answers differ. Each is one vote, and most come from images that float32 was unsure of; a limit
    on the fall itself, below one image, would be decided by one of them. The loss of every image
    counts, so it is measured more exactly: a log-loss that rises by .003 is a probability of the
    truth that falls by .3 % in the (geometric) mean.

    Few images explain any difference by chance. So the loss must also be known: the 95 % interval
    of its rise must end below ``KNOWN_RISE`` (or ``max_loss``, if that is more).
    """
    n = len(targets)
    if not np.isfinite(twin).all():
        return TwinFacts(kept=False, reason="its outputs are not finite numbers")
    score_of = [
        task.describe_calibration(one, targets, calibration)[task.val_score]
        for one in (exact, twin)
    ]
    comparison = task.compare(
        task.decide(exact, calibration),
        task.decide(twin, calibration),
        targets,
        metric=task.score,
        rule="not_worse",
        min_gain=-max_loss,
    )
    losses = [task.losses(one, targets, calibration) for one in (exact, twin)]
    increase = losses[1] - losses[0]
    mean, noise = float(increase.mean()), _NORMAL_95 * float(increase.std()) / n**0.5
    figures = TwinFigures(
        n_images=n,
        metric=task.score,
        score=round(score_of[1], 6),
        score_float32=round(score_of[0], 6),
        score_interval=comparison.gain_interval,
        loss=round(float(losses[1].mean()), 6),
        loss_float32=round(float(losses[0].mean()), 6),
        loss_interval=(round(mean - noise, 6), round(mean + noise, 6)),
        agreement=_agreement(exact, twin, task, targets, calibration),
    )
    name, known = task.score_name, max(KNOWN_RISE, max_loss)
    if not comparison.promote:
        lost = score_of[0] - score_of[1]
        reason = f"{name} falls by {lost:.4f}, beyond chance by more than {max_loss:.4f}"
    elif mean - noise > max_loss:
        reason = f"the loss rises by {mean:.4f}, beyond chance by more than {max_loss:.4f}"
    elif mean + noise > known:
        reason = (
            f"the loss may rise by {mean + noise:.4f}; {n} validation images do not exclude a rise "
            f"of more than {known:.4f}"
        )
    else:
        reason = f"{name} {score_of[1]:.4f} against {score_of[0]:.4f} on {n} validation images"
        return TwinFacts(kept=True, reason=reason, figures=figures)
    return TwinFacts(kept=False, reason=reason, figures=figures)


def describe_twin(facts: TwinFacts | None) -> str:
    """Return a sentence about the twin; empty if no twin was requested."""
    if facts is None:
        return ""
    if facts.figures is None:
        return f"The model has no int8 twin: {facts.reason}."
    figures = facts.figures
    agreement = ""
    if figures.agreement is not None:
        agreement = f", the same decision on {figures.agreement:.1%} of them"
    name = name_metric(figures.metric)
    measured = (
        f"{name} {figures.score:.4f} in int8 and {figures.score_float32:.4f} in float32 on the "
        f"{figures.n_images} validation images{agreement}"
    )
    if facts.native:
        return f"The model runs in int8, because its head was trained on int8 features: {measured}."
    if not facts.kept:
        return f"An int8 twin was made and refused: {facts.reason} ({measured})."
    return f"The model has an int8 twin, about twice as fast on many processors: {measured}."


def _agreement(
    exact: np.ndarray, twin: np.ndarray, task: Task, targets: Targets, calibration: Calibration
) -> float | None:
    if not task.discrete:
        return None
    said = [
        task.decided(task.decide(outputs, calibration), targets.names) for outputs in (exact, twin)
    ]
    return round(float(np.mean([a == b for a, b in zip(*said, strict=True)])), 4)
