"""Who wins a race of two strategies, and when another round is worth it; no torch, no files."""

from __future__ import annotations

from collections.abc import Sequence

from rootstock.metrics import standard_error
from rootstock.plan.plan import Heat, Race
from rootstock.plan.rules import is_finetune

ROUND_IMAGES = (500, 1000)
"""Training images of each round; the second is run only where the first leaves a doubt."""
EPOCHS = 5
"""Epochs of fine-tuning in a round: enough at the highest rate to see where it is going."""


def is_settled(first: Heat, second: Heat) -> bool:
    """Whether the two differ by more than the noise of their validation images."""
    lead = abs(first.accuracy - second.accuracy)
    return lead > standard_error(max(first.accuracy, second.accuracy), first.n_val)


def decide(heats: Sequence[Heat]) -> Race:
    """The outcome by the last round, whose two heats stand at the end of ``heats``.

    The higher accuracy wins; at equal accuracy a head, which is cheaper, and between two ways of
    fine-tuning the lower log-loss. No margin is asked of fine-tuning: with fewer images and
    epochs than training will have, a race shows less of it than there is.
    """
    first, second = heats[-2:]
    winner = max((first, second), key=lambda heat: (heat.accuracy, *_tie(heat)))
    loser = second if winner is first else first
    why = (
        f"on {winner.n_train} training images `{winner.strategy}` reached {winner.accuracy:.3f} "
        f"and `{loser.strategy}` {loser.accuracy:.3f} of the {winner.n_val} validation images"
        f"{'.' if is_settled(first, second) else ', a difference within chance.'}"
    )
    return Race(heats=tuple(heats), winner=winner.strategy, why=why)


def _tie(heat: Heat) -> tuple[bool, float]:
    return not is_finetune(heat.strategy), -heat.log_loss


def round_sizes(n_train: int) -> list[int]:
    """How many training images each round takes of ``n_train``."""
    return sorted({min(size, n_train) for size in ROUND_IMAGES})


def race_rate(rates: Sequence[float]) -> float:
    """The one learning rate that a round uses: the highest, for there are few steps."""
    return max(rates)
