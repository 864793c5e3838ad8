"""Decisions after a search: whether the head stays, how many views a prediction averages."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from rootstock.data.views import FORWARD_PASSES, Views
from rootstock.metrics import lead
from rootstock.plan.rules import SURE_ERRORS
from rootstock.ports.search import Trial
from rootstock.training.trials import FinetunedTrial, HeadTrial, best_trial


def is_sure_gain(ahead: float, noise: float) -> bool:
    """Return whether a lead in loss is beyond chance, for its standard error ``noise``."""
    return ahead > SURE_ERRORS * noise


def is_spoilt(
    head: Trial, tuned: Trial, *, score: str, head_losses: np.ndarray, tuned_losses: np.ndarray
) -> bool:
    """Return whether the head is better, beyond the noise, than what was fine-tuned from it.

    Fine-tuning can spoil good features when images are few; accuracy by itself would decide by
    chance. ``score`` is the task's headline metric; losses are the calibrated ones, float[V], of
    the validation images.
    """
    ahead, noise = lead(head_losses, tuned_losses)
    return tuned.metrics[score] <= head.metrics[score] and ahead > noise


def choose_tuned(trials: Sequence[FinetunedTrial], losses: Sequence[np.ndarray]) -> int:
    """Return the number of the trial to keep.

    ``losses`` are the calibrated ones, float[V], of the validation images. Of the trainings that
    the best one leads by no more than a standard error, the one at the lowest rate is taken; an
    average takes its place if its loss is lower. Chosen on street_patches, where 35 validation
    images did not tell apart trainings of .59 and .73 on test; checked on blood_count and on street
    scenes by the presence of a fence or a bicyclist.
    """
    means = [float(each.mean()) for each in losses]
    averages = [number for number, trial in enumerate(trials) if trial.average_of]
    single = [number for number in range(len(trials)) if number not in averages]
    kept = min(single or averages, key=lambda number: means[number])

    def is_as_good(number: int) -> bool:
        ahead, noise = lead(losses[kept], losses[number])
        return ahead <= noise

    as_good = [kept, *filter(is_as_good, single)]
    kept = min(as_good, key=lambda number: trials[number].params.get("learning_rate", 0.0))
    return min([kept, *averages], key=lambda number: means[number])


def choose_views(
    option: Views, *, mirror_is_safe: bool, loss: Callable[[Views], float]
) -> tuple[Views, str]:
    """Return the views that a prediction averages, and why, in words.

    ``option`` is the user's wish; it is kept if ``loss``, that of the validation images, falls.
    """
    if option == "one":
        return "one", "one view, as train.views says"
    if option == "flip" and not mirror_is_safe:
        return "one", "mirror images may belong to another class here"
    one, several = loss("one"), loss(option)
    return option if several < one else "one", (
        f"validation loss {several:.4f} with `{option}`, which costs {FORWARD_PASSES[option]} "
        f"forward passes a prediction, against {one:.4f} with one view"
    )


def describe_winner(
    best: HeadTrial | FinetunedTrial,
    head: HeadTrial,
    tuned: Sequence[FinetunedTrial],
    losses: Sequence[float],
    *,
    metric: str,
) -> str:
    """Return one line for people: what was kept, and what it was compared with.

    ``losses`` are the calibrated ones of the head and, if there was one, its rival; ``metric`` is
    what trials are chosen by.
    """
    if not tuned:
        layer = f" with a hidden layer of {head.hidden}" if head.hidden else ""
        layer += " that compares with the mean of each class" * head.prototypes
        return f"the head at `{head.tap}`{layer}, calibrated validation loss {losses[0]:.4f}"
    if isinstance(best, HeadTrial):
        return (
            f"the head, which fine-tuning did not improve, calibrated validation loss "
            f"{losses[0]:.4f} against {losses[1]:.4f}"
        )
    kind = "one fine-tuned trial"
    if best.average_of:
        trials = f"{best.average_of} fine-tuned trials" if best.average_of > 1 else kind
        start = " and the network before fine-tuning" if best.with_start else ""
        kind = f"the average of {trials}{start}"
    line = f"{kind}, calibrated validation loss {losses[1]:.4f} against the head's {losses[0]:.4f}"
    if best.average_of:
        single = best_trial(tuned, metric).metrics[metric]
        line += f"; uncalibrated {best.metrics[metric]:.4f}, the best single trial {single:.4f}"
    return line
