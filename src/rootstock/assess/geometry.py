"""Probe the ways to turn images that are not square into a square input, on a sample.

`rootstock.assess.shape` chooses between them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from rootstock.assess.build import probed_rows, sample_rows
from rootstock.assess.profile import GeometryProbe
from rootstock.data.manifest import ImageRow
from rootstock.data.preprocess import GEOMETRIES, Geometry
from rootstock.features.reader import FeatureReader
from rootstock.metrics import lead
from rootstock.system.progress import Progress
from rootstock.tasks.dataset import read_targets
from rootstock.tasks.task import Task

SAMPLE_IMAGES = 300
"""Largest number of images to compare, so that it takes seconds."""
_STRENGTHS = (1.0, 0.1, 0.01)


def probe_geometries(
    rows: Sequence[ImageRow],
    open_reader: Callable[[Geometry], FeatureReader],
    *,
    task: Task,
    folds: int,
    batch_size: int,
    seed: int,
) -> tuple[GeometryProbe, ...]:
    """Return a probe of each way, `crop` first; empty if these ``rows`` cannot be probed.

    Raises:
        DataError: an image has changed since it was indexed.
    """
    sample = probed_rows(sample_rows(rows, SAMPLE_IMAGES))
    if not sample:
        return ()
    solver = task.head()
    targets = read_targets(task, sample, task.read_names([row.target for row in sample]))

    def measure(geometry: Geometry) -> tuple[str, np.ndarray]:
        """Return the best tap, and each image's loss there with a head that has not seen it."""
        reader = open_reader(geometry)
        taps = reader.backbone.tap_names
        reader.extract(sample, taps, batch_size=batch_size)
        best, least = "", np.full(len(sample), np.inf)
        for tap in taps:
            features = reader.read(sample, tap).astype(np.float32)
            path = solver.cross_validate(
                features, targets, folds=folds, strengths=_STRENGTHS, seed=seed
            )
            losses = path.losses[path.losses.mean(axis=1).argmin()]
            if losses.mean() < least.mean():
                best, least = tap, losses
        return best, least

    found = {}
    with Progress("geometry", len(GEOMETRIES), "way") as progress:
        for geometry in GEOMETRIES:
            found[geometry] = measure(geometry)
            progress.update()
    cropped = found["crop"][1]
    return tuple(
        GeometryProbe(
            geometry=geometry,
            tap=tap,
            log_loss=round(float(losses.mean()), 4),
            noise=round(lead(losses, cropped)[1], 4),
            n_images=len(sample),
        )
        for geometry, (tap, losses) in found.items()
    )
