"""Decisions after a search: whether to keep the head, and how many views to average."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from rootstock.data.views import FORWARD_PASSES, Views
from rootstock.metrics import lead
from rootstock.plan.rules import SURE_ERRORS
from rootstock.ports.search import Trial
from rootstock.training.trials import FinetunedTrial, HeadTrial, best_trial


def is_sure_gain(ahead: float, noise: float) -> bool:
    """Return whether a lead in loss is beyond chance, given its standard error ``noise``."""
    return ahead > SURE_ERRORS * noise


def is_spoilt(
    head: Trial, tuned: Trial, *, score: str, head_losses: np.ndarray, tuned_losses: np.ndarray
) -> bool:
    """Return whether the head is better, beyond the noise, than its fine-tuned network.

    Fine-tuning can spoil good features if images are few; the accuracy would decide by chance.
    ``score`` is the task's main metric; losses are the calibrated ones, float[V], of the
    validation images.
    """
    ahead, noise = lead(head_losses, tuned_losses)
    return tuned.metrics[score] <= head.metrics[score] and ahead > noise


def choose_tuned(trials: Sequence[FinetunedTrial], losses: Sequence[np.ndarray]) -> int:
    """Return the number of the trial to keep.

    ``losses`` are the calibrated ones, float[V], of the validation images. Among the trainings
    within one standard error of the best, the one with the lowest rate is chosen; an average
    replaces it if its loss is lower. Chosen on street_patches, where 35 validation images did not
    separate trainings of .59 and .73 on test; checked on blood_count and on street scenes by the
    presence of a fence or a bicyclist.
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
    """Return the views that a prediction averages, with the reason in words.

    ``option`` is the user's setting; it is used if ``loss``, on the validation images, falls.
    """
    if option == "one":
        return "one", "one view, as set by train.views"
    if option == "flip" and not mirror_is_safe:
        return "one", "mirror images may belong to another class here"
    one, several = loss("one"), loss(option)
    return option if several < one else "one", (
        f"validation loss {several:.4f} with `{option}`, which costs {FORWARD_PASSES[option]} "
        f"forward passes per prediction, against {one:.4f} with one view"
    )


def describe_winner(
    best: HeadTrial | FinetunedTrial,
    head: HeadTrial,
    tuned: Sequence[FinetunedTrial],
    losses: Sequence[float],
    *,
    metric: str,
) -> str:
    """Return one line about the kept model and the one it was compared with.

    ``losses`` are the calibrated ones of the head and, if there was one, its rival; trials are
    chosen by ``metric``.
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
