"""Choose the L2 penalty of a head: the strongest of equally good ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MAX_ERROR_SHARE = 0.1
"""The standard error is capped at this share of the lowest log-loss."""
MAX_GAIN_SHARE = 0.1
"""And at this share of what the best penalty gains over the strongest one.

Without it, a weak signal was lost. Chosen on red_cells: with 100 and 250 training images (six
draws, three depths) the mean R² was .03 and .09, with it .10 and .20. Checked on brain_mri,
ants_bees, blood_count and cifar10 with 10 and 25 images per class (four draws, two depths): the
mean accuracy was .004 higher (-.016 to +.058)."""


def strongest_of_equals(strengths: Sequence[float], losses: np.ndarray) -> int:
    """Return the position of the strongest penalty whose mean log-loss is close to the lowest.

    Within a standard error it is as good, better calibrated, and a gentler start for fine-tuning:
    a head with huge weights sends huge gradients into the backbone. This is the one-standard-error
    rule of Breiman et al. 1984; the error is capped at a tenth of the lowest loss, because few
    images would otherwise allow any penalty, and at a tenth of what the best penalty gains, because
    a weak signal gains less than the error. ``losses`` [S,N] are of images that the heads did not
    see.
    """
    means = losses.mean(axis=1)
    gain = means[np.argmax(strengths)] - means.min()
    limit = min(_as_good(losses), means.min() + MAX_GAIN_SHARE * gain)
    as_good = np.flatnonzero(means <= limit)
    return int(as_good[np.argmax(np.asarray(strengths)[as_good])])


def is_past_best(losses: np.ndarray) -> bool:
    """Return whether the last of ``losses`` [S,N] is no longer as good as the best before it.

    Along a path the loss falls and then rises; the weak strengths on the far side take most of the
    time, and none of them would be chosen.
    """
    return bool(losses[-1].mean() > _as_good(losses))


def _as_good(losses: np.ndarray) -> float:
    """Return the largest mean loss that counts as equal to the best."""
    means = losses.mean(axis=1)
    best = int(means.argmin())
    error = losses[best].std() / np.sqrt(losses.shape[1])
    return float(means[best] + min(error, MAX_ERROR_SHARE * means[best]))
