"""The table of transfer strategies, and rules for settings. Needs no torch and no files.

    data    | similar to the pretraining set | not similar
    --------+--------------------------------+----------------------------------------
    small   | linear_probe                   | early_features
    medium  | partial_finetune               | probe_then_finetune
    large   | full_finetune                  | full_finetune

The table is the textbook rule (Yosinski 2014; the CS231n notes on transfer learning). It is a
good prior and cost rule, not a law: see docs/explanation/architecture.md.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from rootstock.config.choices import Shares, SizeClass, Strategy
from rootstock.ports.search_space import Interval

TABLE: dict[tuple[SizeClass, bool], Strategy] = {
    ("small", True): "linear_probe",
    ("small", False): "early_features",
    ("medium", True): "partial_finetune",
    ("medium", False): "probe_then_finetune",
    ("large", True): "full_finetune",
    ("large", False): "full_finetune",
}

MEANING: dict[Strategy, str] = {
    "linear_probe": "a linear classifier on the last bottleneck features; the backbone is frozen",
    "early_features": "a linear classifier on features of an earlier layer; the backbone is frozen",
    "norm_finetune": "only normalisation layers and the head are trained; the other weights are "
    "frozen",
    "partial_finetune": "the early layers are frozen; the later ones are fine-tuned",
    "probe_then_finetune": "a head is trained first, then all layers are fine-tuned with it",
    "full_finetune": "all layers are fine-tuned at a low rate",
}


@dataclass(frozen=True)
class FinetuneRule:
    """The recipe of one fine-tuning strategy; rates are peaks for AdamW and the last layer.

    ``learning_rates`` are for up to `MANY_IMAGES` training images, ``slow_rates`` for more.
    """

    learning_rates: tuple[float, ...]
    slow_rates: tuple[float, ...]
    head_multiplier: float
    layer_decay: float
    batchnorm: Literal["eval", "train"]
    epochs: dict[SizeClass, int]
    norm_only: bool = False


# BatchNorm keeps its pretrained statistics, as in Kumar 2022 (LP-FT): updating them disturbs the
# probed head at the start. On hand signs at 96 pixels (MobileNetV2) the loss of the first epoch is
# about four times as high; after four epochs it is about equal (.988 against .993, mean of three
# seeds), so keeping them is never worse but not decisive. Layer decay: MAE .65-.75, AutoGluon .9.
# Epochs fall as data grow, because the number of steps matters (Big Transfer: 500 steps of 512
# images).
#
# Many images mean many steps, in which a low rate gets as far without undoing what the backbone and
# the probed head have learned. On CIFAR-10 with 5,000 images 1e-4 gave .852; 3e-4, which first fell
# below the probe, gave .835.
#
# The recipes were chosen on sign_digits, flowers12 and cifar10; checked on ants_bees, brain_mri and
# tiny_imagenet, and their rates on music plots and solar cells, where 1e-3 failed (.298 against
# .667; log-loss .434 against .359): so a race chooses between the rates.
REGRET_SETS = ("ants_bees", "brain_mri", "flowers12", "sign_digits", "cifar10", "tiny_imagenet")
"""The sets of benchmarks/regret.py; a rule that was fitted to them says so."""
MANY_IMAGES = 2_000
"""Chosen on cifar10 with 5,000 images; not checked on other sets, so fine-tuning without a race
tries both slow rates."""
_EPOCHS: dict[SizeClass, int] = {"small": 15, "medium": 8, "large": 4}
RECIPES: dict[Strategy, FinetuneRule] = {
    "norm_finetune": FinetuneRule(
        (1e-3, 3e-3), (3e-4, 1e-3), 1.0, 1.0, "eval", _EPOCHS, norm_only=True
    ),
    "partial_finetune": FinetuneRule((3e-4, 1e-3), (1e-4, 3e-4), 1.0, 0.8, "eval", _EPOCHS),
    "probe_then_finetune": FinetuneRule((3e-4, 1e-3), (1e-4, 3e-4), 1.0, 0.9, "eval", _EPOCHS),
    "full_finetune": FinetuneRule((3e-4,), (1e-4,), 1.0, 1.0, "eval", _EPOCHS),
}


HALF_BACKWARD: tuple[Strategy, ...] = ("norm_finetune", "partial_finetune")
"""Strategies whose backward pass costs about one forward pass: it ends half-way, or computes no
gradients of convolutions. For the others it costs two."""


def choose_strategy(size: SizeClass, *, similar: bool) -> Strategy:
    """Return the strategy in the table."""
    return TABLE[size, similar]


def is_finetune(strategy: Strategy) -> bool:
    """Return whether the strategy changes the backbone's weights."""
    return strategy in RECIPES


def learning_rates(strategy: Strategy, n_train: int) -> tuple[float, ...]:
    """Return the peak rates to try with this many training images; empty for a head."""
    if strategy not in RECIPES:
        return ()
    recipe = RECIPES[strategy]
    return recipe.slow_rates if n_train > MANY_IMAGES else recipe.learning_rates


def candidate_taps(
    strategy: Strategy,
    taps: Sequence[str],
    probe_accuracy: dict[str, float],
    *,
    pinned: bool = True,
    keep: int = 3,
) -> list[str]:
    """Return the taps that the head may read, the preferred one first.

    Fine-tuning and a pinned `linear_probe` read the last tap. `early_features` considers the
    ``keep`` earlier taps with the best probe accuracy (the deepest ones if nothing was measured),
    the best of them joined with the last (``block3+last``), and all taps joined (Head2Toe, Evci et
    al. 2022). If the strategy is not ``pinned``, the best earlier tap, the last one and both joins
    are compared, for either head, because joined taps are not probed. If
    nothing was probed, because there is one image per class, the last tap is read: a few
    validation images cannot decide between depths.
    """
    last = taps[-1]
    if is_finetune(strategy) or len(taps) < 2 or (pinned and strategy == "linear_probe"):
        return [last]
    if not pinned and not probe_accuracy and strategy == "linear_probe":
        return [last]
    earlier = list(enumerate(taps[:-1]))
    earlier.sort(key=lambda tap: (-probe_accuracy.get(tap[1], 0.0), -tap[0]))
    names = [name for _, name in earlier[: keep if pinned else 1]]
    single = names if pinned else [names[0], last]
    if not pinned and strategy == "linear_probe":
        single.reverse()
    return list(dict.fromkeys([*single, f"{names[0]}+{last}", "+".join(taps)]))


def freeze_through(taps: Sequence[str]) -> str:
    """Return the deepest tap that `partial_finetune` freezes: the lower half of the blocks.

    Early layers detect edges and textures that transfer unchanged (Yosinski 2014); the upper half
    is specific to the pretraining classes.
    """
    blocks = taps[:-1]
    return blocks[max(0, (len(blocks) + 1) // 2 - 1)]


def finetune_input_size(short_side: float, card_size: int, *, smallest: int = 128) -> int:
    """Return the side of the square input for fine-tuning in pixels, a multiple of 32.

    Enlarging images that are smaller than the backbone's input size gains nothing that fine-tuning
    cannot make up for, and the cost grows with the area. Below ``smallest`` it does gain: 32-pixel
    images (CIFAR-10, 5,000 of them) reached .822 at 96 pixels and .852 at 128.
    """
    rounded = -(-int(short_side) // 32) * 32
    return min(card_size, max(smallest, rounded))


def dense_input_size(card_size: int) -> int:
    """Return the side of the square input in pixels for outputs of positions, a multiple of 32.

    With the default backbone a frozen head on street scenes reached a mean IoU of .445 at 224
    pixels and .487 at 320, with as many cells as each gives; not checked on other sets.
    """
    return 32 * round(card_size * 10 / 7 / 32)


def augmentation_level(strategy: Strategy, size: SizeClass) -> Literal["none", "light", "medium"]:
    """Return none for heads on cached features, and stronger levels for fewer images."""
    if not is_finetune(strategy):
        return "none"
    return "light" if size == "large" else "medium"


def search_space(
    strategy: Strategy,
    taps: Sequence[str],
    *,
    n_train: int,
    rates: Sequence[float] | None,
    pinned: Collection[str],
) -> dict[str, Interval | tuple[str, ...]]:
    """Return the fine-tuning settings that a longer search varies, without ``pinned`` ones.

    These are the rate, from a third of the recipe's lowest to three times its highest, or between
    the user's ``rates``; the decay of rates with depth; the augmentation; and the number of frozen
    layers if the strategy freezes some.
    """
    if not is_finetune(strategy):
        return {}
    known = learning_rates(strategy, n_train)
    low, high = (min(rates), max(rates)) if rates else (min(known) / 3, max(known) * 3)
    space: dict[str, Interval | tuple[str, ...]] = {
        "learning_rate": Interval(low, high, log=True),
        "layer_decay": Interval(0.6, 1.0),
        "augmentation": ("light", "medium", "strong"),
    }
    if strategy == "partial_finetune":
        space["freeze_through"] = tuple(taps[: max(1, len(taps) - 2)])
    return {name: values for name, values in space.items() if name not in pinned}


def mirror_is_safe(classes: Sequence[str]) -> bool:
    """Return False if class names look like characters or sides, which mirroring changes."""
    sided = {"left", "right"}
    characters = all(len(name) == 1 or name.isdigit() for name in classes)
    words = {word for name in classes for word in name.lower().replace("-", "_").split("_")}
    return not characters and not words & sided


DISSIMILAR_BONUS = 0.25
"""Added to `Shares` for images that are not similar. A prior, not fitted to any set; checked on
`REGRET_SETS`. `rootstock calibrate` fits the shares."""


def expected_shares(shares: Shares, *, similar: bool) -> Shares:
    """Return ``shares`` for this similarity: features of another domain leave more to gain."""
    bonus = 0.0 if similar else DISSIMILAR_BONUS
    return {size: (low + bonus, min(0.95, high + bonus)) for size, (low, high) in shares.items()}


def tuned_rival(*, similar: bool) -> Strategy:
    """Return the fine-tuning strategy that challenges a head: the table's for medium data."""
    return TABLE["medium", similar]


SURE_ERRORS = 1.645
"""Standard errors beyond which the gain of an ensemble is worth several times the cost: chance
exceeds them in one of twenty cases. Not fitted to any set."""
EXPECTED_LEVEL = 0.9
"""Share of the runs whose test accuracy should be in the expected range."""
_LEVEL_ERRORS = 1.645
"""Half the width of that range for a normal distribution, in standard errors."""


def expected_accuracy(
    strategy: Strategy,
    size: SizeClass,
    *,
    shares: Shares,
    probe_last: float,
    probe_early: float,
    error: float,
) -> tuple[float, float]:
    """Return the range (low, high) that holds the test accuracy at `EXPECTED_LEVEL`.

    ``error`` is the standard error of a test accuracy around the probe. For heads the range is the
    probe plus or minus its noise. Fine-tuning removes a share of the probe's errors, between the
    two ``shares``; the noise is added.
    """
    if is_finetune(strategy):
        low, high = (1.0 - (1.0 - probe_last) * (1.0 - share) for share in shares[size])
    else:
        low = high = probe_early if strategy == "early_features" else probe_last
    half = math.hypot((high - low) / 2, _LEVEL_ERRORS * error)
    middle = min(max(0.0, (low + high) / 2), 1.0)
    return max(0.0, middle - half), min(1.0, middle + half)


def training_gflop(
    strategy: Strategy,
    *,
    n_train: int,
    n_val: int,
    epochs: int,
    n_rates: int,
    gflop_probe: float,
    gflop_finetune: float,
) -> float:
    """Return the work of a strategy in 1e9 floating-point operations.

    A backward pass costs about two forward passes, so a training step costs three.
    """
    extraction = (n_train + n_val) * gflop_probe
    if not is_finetune(strategy):
        return extraction
    backward_share = 1.0 if strategy in HALF_BACKWARD else 2.0
    step = (1.0 + backward_share) * n_train + n_val
    return extraction + n_rates * epochs * step * gflop_finetune
