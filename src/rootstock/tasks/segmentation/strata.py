"""Strata of masks, whose shares are kept by splits, folds and samples."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from rootstock.tasks.multi_label import labels
from rootstock.tasks.segmentation import masks

EMPTY = "ignored everywhere"
NOT_READ = "all images"


def stratify(texts: Sequence[str]) -> list[str]:
    """Return the rarest class of each image.

    If that is the same everywhere, images with much of it and with little of it are separated.
    Masks that are not read yet are in one stratum.
    """
    if not all(map(masks.is_settled, texts)):
        return [NOT_READ] * len(texts)
    sets = [masks.list_present(text) for text in texts]
    strata = labels.stratify([json.dumps(present) for present in sets])
    if len(set(strata)) > 1 or not texts:
        return strata
    names = masks.read_names(texts[0])
    counts = np.array([np.bincount(masks.read_grid(t).ravel(), minlength=256) for t in texts])
    counts = counts[:, : len(names)]
    total = counts.sum(axis=0)
    rarest = int(np.argmin(np.where(total > 0, total, total.max() + 1)))
    much = counts[:, rarest] > np.median(counts[:, rarest])
    return [f"{'much' if one else 'little'} {names[rarest]}" for one in much]
