"""Which strategy wins a race, and when a race takes another round; no torch, no files."""

from __future__ import annotations

from collections.abc import Sequence

from rootstock.config.choices import Strategy
from rootstock.metrics import standard_error
from rootstock.plan.rules import MANY_IMAGES, is_finetune
from rootstock.plan.transfer_plan import Heat, Race

MAX_WHOLE_IMAGES = 700
"""Up to this many training images the race is the training itself, which finds the winner done."""
ALL_RATES_MAX_IMAGES = 300
"""Up to this many training images a race tries every learning rate."""
ROUND_IMAGES = (500, 1000)
"""Training images of each round; the second is run only if the first leaves a doubt."""
EPOCHS = 5
"""Epochs of fine-tuning in a round: enough at the highest rate to see where it is going."""


def is_settled(first: Heat, second: Heat) -> bool:
    """Return whether the two differ by more than the noise of their validation images."""
    lead = abs(first.accuracy - second.accuracy)
    return lead > standard_error(max(first.accuracy, second.accuracy), first.n_val)


def decide(heats: Sequence[Heat], *, noise: float, similar: bool) -> Race:
    """Return the outcome by the last round, the two last ``heats``.

    A lead in accuracy beyond its noise wins; then a lead in calibrated log-loss beyond ``noise``,
    its standard error, which is the finer measure where images are few. If neither decides, the
    head is kept for images ``similar`` to the pretraining set and all others are fine-tuned.
    """
    first, second = heats[-2:]
    by_accuracy = is_settled(first, second)
    by_loss = abs(first.log_loss - second.log_loss) > noise
    if by_accuracy:
        winner = max(first, second, key=lambda heat: heat.accuracy)
    elif by_loss:
        winner = min(first, second, key=lambda heat: heat.log_loss)
    else:
        winner = max(first, second, key=lambda heat: is_finetune(heat.strategy) is not similar)
    loser = second if winner is first else first
    why = (
        f"on {winner.n_train} training images `{winner.strategy}` reached {winner.accuracy:.3f} "
        f"and `{loser.strategy}` {loser.accuracy:.3f} of the {winner.n_val} validation images"
    )
    if not by_accuracy:
        losses = f"{winner.log_loss:.3f} against {loser.log_loss:.3f}"
        why += ", a difference within chance; the calibrated log-loss "
        if by_loss:
            why += f"decides, {losses}"
        else:
            word = "similar" if similar else "not similar"
            then = "the head is kept" if similar else "fine-tuning is preferred"
            why += f"tells no more, {losses} (± {noise:.3f}): the images are {word} to the "
            why += f"pretraining set, so {then}"
    return Race(heats=tuple(heats), winner=winner.strategy, why=f"{why}.")


def is_whole(n_train: int) -> bool:
    """Return whether the race trains on all images for as long as the training would."""
    return n_train <= MAX_WHOLE_IMAGES


def round_sizes(n_train: int) -> list[int]:
    """Return the number of training images of each round, out of ``n_train``."""
    if is_whole(n_train):
        return [n_train]
    return sorted({min(size, n_train) for size in ROUND_IMAGES})


def race_rates(strategy: Strategy, rates: Sequence[float], n_train: int) -> tuple[float, ...]:
    """Return those of ``rates`` that a race on ``n_train`` images tries, or a training after it.

    Only the highest, since there are few steps; the lowest if there are many, or if the data are
    similar and little has to move (flowers12: .988 at 3e-4, .942 at 1e-3). On very few images, on
    which one trial can be unlucky and none takes long, all of them.
    """
    if n_train <= ALL_RATES_MAX_IMAGES or not rates:  # a head has none
        return tuple(rates)
    low = n_train > MANY_IMAGES or strategy == "partial_finetune"
    return (min(rates) if low else max(rates),)
