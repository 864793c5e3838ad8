"""The words that settings, profiles and plans share."""

from __future__ import annotations

from typing import Literal

Strategy = Literal[
    "linear_probe",
    "early_features",
    "norm_finetune",
    "partial_finetune",
    "probe_then_finetune",
    "full_finetune",
]
Pooling = Literal["avg", "max", "both"]
"""How a feature summarises its map: the mean over all positions, the maximum, or both."""
Quality = Literal["fast", "balanced", "best"]
SizeClass = Literal["small", "medium", "large"]
Augmentation = Literal["none", "light", "medium", "strong"]
Shares = dict[SizeClass, tuple[float, float]]
"""Size class -> the smallest and largest share of a probe's errors that fine-tuning removes."""

# Rough readings of VTAB (1,000 images against full sets) and of hand signs (.89 probed, .99
# fine-tuned): a prior, which `rootstock calibrate` replaces by measurements of your runs.
PRIOR_SHARES: Shares = {"small": (-0.3, 0.4), "medium": (0.1, 0.6), "large": (0.3, 0.8)}
