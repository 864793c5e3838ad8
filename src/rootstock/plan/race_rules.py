"""The rules of a race: the winner, and when to run another round. Needs no torch and no files."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rootstock.metrics import standard_error
from rootstock.plan.rules import MANY_IMAGES, is_finetune
from rootstock.plan.transfer_plan import Heat, Race

MAX_WHOLE_IMAGES = 700
"""Up to this many training images the race is the full training, so the winner is then done.

Chosen on sign_digits with 100 images; checked on all six sets of `REGRET_SETS`."""
ALL_RATES_MAX_IMAGES = 300
"""Up to this many training images a race fully trains at every rate: each is quick, and a single
training may be unlucky. Chosen on the six sets of `REGRET_SETS` with 100 and 500 images; checked on
street_patches and blood_count, which were not used to choose it."""
RATE_EPOCHS = 2
"""Epochs at each rate before the better one is fully trained: a rate that is too high fails within
its first epoch. Not fitted to any set."""
LOWER_RATE = 1 / 3
"""The next rate, as a share of the lowest, if fine-tuning ended below its head. Not fitted: it is
the ratio of the planned rates."""
ROUND_IMAGES = (500, 1000)
"""Training images of each round; the second round is run only if the first leaves a doubt. Chosen
on cifar10 and tiny_imagenet; not checked on other sets."""
SURE_VAL_IMAGES = 60
"""With fewer validation images a lead of fine-tuning is measured on more splits. A judgement: on 35
images of street_patches, accuracies on validation and test were .914 and .590."""
FURTHER_SPLITS = 2
"""Number of further splits; each costs a training at one rate. Not fitted to any set."""
EPOCHS = 5
"""Epochs of fine-tuning in a round, enough to see the trend. Chosen on cifar10 and tiny_imagenet;
checked on sign_digits."""


def is_settled(first: Heat, second: Heat) -> bool:
    """Return whether two valid heats differ by more than the noise of their validation images."""
    lead = abs(first.accuracy - second.accuracy)
    return first.valid and second.valid and lead > _noise(first, second)


def _noise(first: Heat, second: Heat) -> float:
    """Return the standard error of the difference, as if the images were independent."""
    return math.hypot(*(standard_error(heat.accuracy, heat.n_val) for heat in (first, second)))


def is_in_doubt(heats: Sequence[Heat]) -> bool:
    """Return whether fine-tuning leads in the last round, on too few images to be certain."""
    head, tuned = _contenders(heats)
    leads = tuned.log_loss < head.log_loss or tuned.accuracy > head.accuracy
    return leads and tuned.valid and tuned.splits == 1 and needs_splits(tuned.n_val)


def needs_splits(n_val: int) -> bool:
    """Return whether a lead of fine-tuning on this many validation images is uncertain."""
    return n_val < SURE_VAL_IMAGES


def decide(heats: Sequence[Heat], *, noise: float, score_name: str = "accuracy") -> Race:
    """Return the result of the last round, the last two ``heats``: a head and fine-tuning.

    ``score_name`` is the name of the heats' `accuracy` in words.
    A lead in accuracy beyond its noise wins. Otherwise a lead in calibrated log-loss beyond
    ``noise``, the standard error of the paired difference, wins; it is more sensitive on few
    images. If neither decides, the head wins, because it is cheaper. The head also wins if the
    fine-tuning is not valid, if its lead is in doubt, or if it leads in log-loss without more
    correct images: its epoch was chosen by that loss, so the loss looks better than it is. Chosen
    on street_bicyclist; checked on street_patches, blood_count, street_fence and animals.
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
        f"On {winner.n_train} training images `{winner.strategy}` reached {winner.accuracy:.3f} "
        f"and `{loser.strategy}` {loser.accuracy:.3f} in {score_name} on the {winner.n_val} "
        f"validation images{splits} (± {_noise(head, tuned):.3f})"
    )
    losses = f"{winner.log_loss:.3f} against {loser.log_loss:.3f} (± {noise:.3f})"
    if not tuned.valid:
        rates = ", ".join(f"{rate:g}" for rate in tuned.rates)
        why += (
            f". Fine-tuning ended below the head that it started from (learning rate {rates}), "
            "which says nothing about other rates. The head is used, because it is cheaper"
        )
    elif in_doubt:
        why += (
            f", with calibrated log-loss {losses}. These are too few images to be certain, and "
            "plan.budget.minutes leaves no time for more splits, so the head is used"
        )
    elif only_surer and not by_accuracy:
        why += (
            f", with calibrated log-loss {losses}. As the {score_name} is not higher, the head is "
            "used, because it is cheaper"
        )
    elif not by_accuracy:
        why += ". The difference may be chance. The calibrated log-loss "
        why += (
            f"decides, {losses}"
            if by_loss
            else f"is a tie as well, {losses}, so the head is used, because it is cheaper"
        )
    return Race(heats=tuple(heats), winner=winner.strategy, why=f"{why}.")


def _contenders(heats: Sequence[Heat]) -> tuple[Heat, Heat]:
    """Return the head and the fine-tuning of the last round."""
    first, second = heats[-2:]
    return (second, first) if is_finetune(first.strategy) else (first, second)


def is_whole(n_train: int) -> bool:
    """Return whether the race trains on all images, for as long as the full training."""
    return n_train <= MAX_WHOLE_IMAGES


def round_sizes(n_train: int) -> list[int]:
    """Return the training images of each round, out of ``n_train``."""
    if is_whole(n_train):
        return [n_train]
    return sorted({min(size, n_train) for size in ROUND_IMAGES})


def lower_rate(rate: float, planned: Sequence[float]) -> float:
    """Return the rate to try if ``rate`` ended below the head: the next lower planned one."""
    lower = [one for one in planned if one < rate]
    return max(lower) if lower else rate * LOWER_RATE


def rates_after_race(race: Race, rates: Sequence[float], n_train: int) -> tuple[float, ...]:
    """Return the rates of the training after a race that fine-tuning has won.

    These are the rates of its last heat. With more than `MANY_IMAGES` it is the lowest of
    ``rates``: a race on a part of the images has few steps, for which a higher rate is better.
    """
    heat = next(heat for heat in reversed(race.heats) if heat.strategy == race.winner)
    if n_train > MANY_IMAGES:
        return (min(rates),)
    return heat.rates or tuple(rates)
