"""The table of transfer strategies: numbers in, choices out; no torch, no files.

    data    | similar to the pretraining set | not similar
    --------+--------------------------------+----------------------------------------
    small   | linear_probe                   | early_features
    medium  | partial_finetune               | probe_then_finetune
    large   | full_finetune                  | full_finetune

The table is the textbook rule (Yosinski 2014; the CS231n notes on transfer learning). It is a
good prior and cost rule rather than a law: see docs/explanation/architecture.md.
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
    "linear_probe": "a linear classifier on the last bottleneck features; the backbone stays",
    "early_features": "a linear classifier on features of an earlier layer; the backbone stays",
    "norm_finetune": "only normalisation layers and the head are trained, the other weights stay",
    "partial_finetune": "the early layers stay frozen, the later ones are fine-tuned",
    "probe_then_finetune": "a head is probed first, then all layers are fine-tuned with it",
    "full_finetune": "all layers are fine-tuned at a low rate",
}


@dataclass(frozen=True)
class FinetuneRule:
    """How one strategy fine-tunes. Rates are peaks for AdamW and the last backbone layer.

    ``learning_rates`` are for up to `MANY_IMAGES` training images, ``slow_rates`` for more.
    """

    learning_rates: tuple[float, ...]
    slow_rates: tuple[float, ...]
    head_multiplier: float
    layer_decay: float
    batchnorm: Literal["eval", "train"]
    epochs: dict[SizeClass, int]
    norm_only: bool = False


# BatchNorm keeps its pretrained statistics, as in Kumar 2022 (LP-FT): renewing them disturbs the
# probed head at the start. On hand signs at 96 pixels (MobileNetV2) the first epoch's loss is
# about four times as high; after four epochs it has caught up (.988 against .993, mean of three
# seeds), so keeping them is never worse but not decisive. Layer decay: MAE .65-.75, AutoGluon .9.
# Epochs fall as data grow, since what counts is the number of steps (Big Transfer's 500 steps of
# 512 images).
#
# Many images mean many steps, in which a low rate gets as far without undoing what backbone and
# probed head know. On CIFAR-10 with 5,000 images 1e-4 gave .852; 3e-4, which fell below the probe
# at first, gave .835.
#
# The recipes were chosen on sign_digits, flowers12 and cifar10; checked on ants_bees, brain_mri and
# tiny_imagenet, and their rates on music plots and solar cells, where 1e-3 failed (.298 against
# .667; log-loss .434 against .359): a race therefore chooses between the rates.
REGRET_SETS = ("ants_bees", "brain_mri", "flowers12", "sign_digits", "cifar10", "tiny_imagenet")
"""The sets of benchmarks/regret.py; a rule that was fitted on them says so."""
MANY_IMAGES = 2_000
"""Chosen on cifar10 with 5,000 images; checked on no other set, so fine-tuning without a race tries
both slow rates."""
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
"""Their backward pass costs about one forward pass: it ends half-way, or computes no gradients of
convolutions. Others cost two."""


def choose_strategy(size: SizeClass, *, similar: bool) -> Strategy:
    """The cell of the table."""
    return TABLE[size, similar]


def is_finetune(strategy: Strategy) -> bool:
    """Whether the backbone's weights change."""
    return strategy in RECIPES


def learning_rates(strategy: Strategy, n_train: int) -> tuple[float, ...]:
    """The peak rates that are tried on so many training images; none for a head."""
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
    """Return the taps, the preferred one first, whose features the head may read.

    Fine-tuning and a pinned `linear_probe` read the last tap. `early_features` looks at the
    ``keep`` earlier taps with the best probe accuracy (the deepest ones if nothing was measured),
    at the best of them joined with the last (``block3+last``), and at all taps joined (Head2Toe,
    Evci et al. 2022). If the strategy is not ``pinned``, the best earlier tap, the last one and
    both joins are compared, whichever of the two heads was chosen: probes on a part of the images
    do not know the joined ones. If nothing was probed, since there is one image of each class, the
    last tap is read: a few validation images cannot tell depths apart.
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
    """The deepest tap that `partial_finetune` keeps frozen: the lower half of the blocks.

    Early layers hold edges and textures that transfer as they are (Yosinski 2014); the upper
    half carries what is specific to the pretraining classes.
    """
    blocks = taps[:-1]
    return blocks[max(0, (len(blocks) + 1) // 2 - 1)]


def finetune_input_size(short_side: float, card_size: int, *, smallest: int = 128) -> int:
    """Side of the square input in pixels when fine-tuning, a multiple of 32.

    Images smaller than the backbone's own size gain nothing from enlarging that fine-tuning
    cannot make up for, and cost grows with the area. Below ``smallest`` they do: 32-pixel images
    (CIFAR-10, 5,000 of them) came to .822 at 96 pixels and to .852 at 128.
    """
    rounded = -(-int(short_side) // 32) * 32
    return min(card_size, max(smallest, rounded))


def dense_input_size(card_size: int) -> int:
    """Side of the square input in pixels if outputs are of positions, a multiple of 32.

    With the default backbone a frozen head on street scenes came to a mean IoU of .445 at 224
    pixels and to .487 at 320, with as many cells as each gives; checked on no other set.
    """
    return 32 * round(card_size * 10 / 7 / 32)


def augmentation_level(strategy: Strategy, size: SizeClass) -> Literal["none", "light", "medium"]:
    """None for heads on cached features; stronger where there are fewer images to see."""
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
    """Fields of the fine-tuning's settings that a longer search varies, but for ``pinned`` ones.

    The rate, from a third of the recipe's lowest to three times its highest, or between the
    user's own ``rates``; the decay of rates with depth; the augmentation; and how much stays
    frozen where some does.
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
    """False when class names read like characters or sides, whose mirror image means another."""
    sided = {"left", "right"}
    characters = all(len(name) == 1 or name.isdigit() for name in classes)
    words = {word for name in classes for word in name.lower().replace("-", "_").split("_")}
    return not characters and not words & sided


DISSIMILAR_BONUS = 0.25
"""Added to `Shares` for images that are not similar. A prior, fitted to no set;
checked on `REGRET_SETS`. `rootstock calibrate` fits the shares around it."""


def expected_shares(shares: Shares, *, similar: bool) -> Shares:
    """``shares`` for this similarity: features of another domain leave more to gain."""
    bonus = 0.0 if similar else DISSIMILAR_BONUS
    return {size: (low + bonus, min(0.95, high + bonus)) for size, (low, high) in shares.items()}


def tuned_rival(*, similar: bool) -> Strategy:
    """The way of fine-tuning that challenges a head: the table's for medium data."""
    return TABLE["medium", similar]


SURE_ERRORS = 1.645
"""Standard errors beyond which the gain of an ensemble is worth several times the cost: chance
exceeds them in one of twenty cases. Not fitted to any set."""
EXPECTED_LEVEL = 0.9
"""Share of the runs whose test accuracy is to be in the expected range."""
_LEVEL_ERRORS = 1.645
"""Half of a normal distribution's range of that level, in standard errors."""


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

    ``error`` is the standard error of a test accuracy about the probe. Heads: the measured probe
    plus or minus its noise. Fine-tuning removes a share of the probe's errors, between the two of
    ``shares``; the noise is added to that.
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
    """Work of a strategy in 1e9 floating-point operations, the forward pass costing as given.

    A backward pass costs about twice the forward one, so a training step is three forwards.
    """
    extraction = (n_train + n_val) * gflop_probe
    if not is_finetune(strategy):
        return extraction
    backward_share = 1.0 if strategy in HALF_BACKWARD else 2.0
    step = (1.0 + backward_share) * n_train + n_val
    return extraction + n_rates * epochs * step * gflop_finetune
