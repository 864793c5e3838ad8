"""Which strategy wins a race, and when a race takes another round; no torch, no files."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rootstock.metrics import standard_error
from rootstock.plan.rules import MANY_IMAGES, is_finetune
from rootstock.plan.transfer_plan import Heat, Race

MAX_WHOLE_IMAGES = 700
"""Up to this many training images the race is the training itself, which finds the winner done.

Chosen on sign_digits with 100 images; checked on all six sets of `REGRET_SETS`."""
ALL_RATES_MAX_IMAGES = 300
"""Up to this many training images a race trains at every rate in full: none takes long, and one
training may be unlucky. Chosen on the six sets of `REGRET_SETS` with 100 and 500 images; checked on
street_patches and blood_count, which chose nothing."""
RATE_EPOCHS = 2
"""Epochs at each rate before the better one is trained in full: a rate that is too high shows it
within its first epoch. Not fitted to any set."""
LOWER_RATE = 1 / 3
"""The next rate, as a share of the lowest, after fine-tuning ended below its head. Not fitted: it
is the ratio of the planned rates."""
ROUND_IMAGES = (500, 1000)
"""Training images of each round; the second is run only if the first leaves a doubt. Chosen on
cifar10 and tiny_imagenet; checked on no other set."""
SURE_VAL_IMAGES = 60
"""On fewer validation images a lead of fine-tuning is measured on more splits. A judgement: on 35
images of street_patches, accuracies on validation and test were .914 and .590."""
FURTHER_SPLITS = 2
"""How many more splits; each costs a training at one rate. Not fitted to any set."""
EPOCHS = 5
"""Epochs of fine-tuning in a round: enough to see where it is going. Chosen on cifar10 and
tiny_imagenet; checked on sign_digits."""


def is_settled(first: Heat, second: Heat) -> bool:
    """Return whether two valid heats differ by more than the noise of their validation images."""
    lead = abs(first.accuracy - second.accuracy)
    return first.valid and second.valid and lead > _noise(first, second)


def _noise(first: Heat, second: Heat) -> float:
    """The standard error of the difference, as if each had images of its own: not too small."""
    return math.hypot(*(standard_error(heat.accuracy, heat.n_val) for heat in (first, second)))


def is_in_doubt(heats: Sequence[Heat]) -> bool:
    """Return whether fine-tuning leads in the last round, on too few images to be sure of it."""
    head, tuned = _contenders(heats)
    leads = tuned.log_loss < head.log_loss or tuned.accuracy > head.accuracy
    return leads and tuned.valid and tuned.splits == 1 and needs_splits(tuned.n_val)


def needs_splits(n_val: int) -> bool:
    """Return whether a lead of fine-tuning on this many validation images is not sure."""
    return n_val < SURE_VAL_IMAGES


def decide(heats: Sequence[Heat], *, noise: float, score_name: str = "accuracy") -> Race:
    """Return the outcome by the last round, the two last ``heats``: a head and fine-tuning.

    ``score_name`` says in words what the heats' `accuracy` is.
    A lead in accuracy beyond its noise wins; then a lead in calibrated log-loss beyond ``noise``,
    the standard error of the paired difference, which is the finer measure if images are few. If
    neither decides, the head is taken: it is cheaper. So it is if the fine-tuning is not valid, if
    its lead is in doubt, or if it leads in log-loss and no more images are right: its epoch was
    chosen by that loss, which makes it look better than it is. Chosen on street_bicyclist; checked
    on street_patches, blood_count, street_fence and animals.
    """
    head, tuned = _contenders(heats)
    by_accuracy = is_settled(head, tuned)
    by_loss = abs(head.log_loss - tuned.log_loss) > noise
    in_doubt = is_in_doubt(heats)
    only_surer = by_loss and tuned.log_loss < head.log_loss and tuned.accuracy <= head.accuracy
    winner = head
    if tuned.valid and not in_doubt:
        if by_accuracy:
            winner = max(head, tuned, key=lambda heat: heat.accuracy)
        elif by_loss and not only_surer:
            winner = min(head, tuned, key=lambda heat: heat.log_loss)
    loser = tuned if winner is head else head
    splits = f" of {winner.splits} splits" if winner.splits > 1 else ""
    why = (
        f"on {winner.n_train} training images `{winner.strategy}` reached {winner.accuracy:.3f} "
        f"and `{loser.strategy}` {loser.accuracy:.3f} in {score_name} on the {winner.n_val} "
        f"validation images{splits} (± {_noise(head, tuned):.3f})"
    )
    losses = f"{winner.log_loss:.3f} against {loser.log_loss:.3f} (± {noise:.3f})"
    if not tuned.valid:
        rates = ", ".join(f"{rate:g}" for rate in tuned.rates)
        why += (
            f", but fine-tuning ended below the head that it started from (learning rate {rates}), "
            "which says nothing about other rates; the head is taken, which is cheaper"
        )
    elif in_doubt:
        why += (
            f", calibrated log-loss {losses}; these are too few images to be sure of it, and "
            "plan.budget.minutes leaves no time for more splits, so the head is taken"
        )
    elif only_surer and not by_accuracy:
        why += (
            f", calibrated log-loss {losses}; as the {score_name} is no higher, the head is "
            "taken, which is cheaper"
        )
    elif not by_accuracy:
        why += ", a difference within chance; the calibrated log-loss "
        why += (
            f"decides, {losses}"
            if by_loss
            else f"is a tie as well, {losses}, so the head is taken, which is cheaper"
        )
    return Race(heats=tuple(heats), winner=winner.strategy, why=f"{why}.")


def _contenders(heats: Sequence[Heat]) -> tuple[Heat, Heat]:
    """Return the head and the fine-tuning of the last round."""
    first, second = heats[-2:]
    return (second, first) if is_finetune(first.strategy) else (first, second)


def is_whole(n_train: int) -> bool:
    """Return whether the race trains on all images for as long as the training would."""
    return n_train <= MAX_WHOLE_IMAGES


def round_sizes(n_train: int) -> list[int]:
    """Return the number of training images of each round, out of ``n_train``."""
    if is_whole(n_train):
        return [n_train]
    return sorted({min(size, n_train) for size in ROUND_IMAGES})


def lower_rate(rate: float, planned: Sequence[float]) -> float:
    """Return the rate to try after ``rate`` ended below the head: the next lower planned one."""
    lower = [one for one in planned if one < rate]
    return max(lower) if lower else rate * LOWER_RATE


def rates_after_race(race: Race, rates: Sequence[float], n_train: int) -> tuple[float, ...]:
    """Return the rates of the training after a race that fine-tuning has won.

    Those of its last heat; on more than `MANY_IMAGES` the lowest of ``rates``, which are for that
    many: a race on a part of the images has few steps, for which a higher rate is better.
    """
    heat = next(heat for heat in reversed(race.heats) if heat.strategy == race.winner)
    if n_train > MANY_IMAGES:
        return (min(rates),)
    return heat.rates or tuple(rates)
