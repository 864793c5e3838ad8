"""The training images on which an int8 network is calibrated."""

from __future__ import annotations

from collections.abc import Sequence

from rootstock.data.manifest import ImageRow, Manifest
from rootstock.plan.transfer_plan import TransferPlan
from rootstock.runtimes.engines import Precision
from rootstock.runtimes.int8 import CALIBRATION_IMAGES


def calibration_images(rows: Sequence[ImageRow]) -> tuple[ImageRow, ...]:
    """Return the images with the smallest hashes: a sample that rarely changes when a set grows.

    Stored int8 features depend on it, and are computed again when it changes.
    """
    unique = {row.sha256: row for row in rows}
    return tuple(unique[sha256] for sha256 in sorted(unique)[:CALIBRATION_IMAGES])


def feature_calibration(
    precision: Precision, plan: TransferPlan, manifest: Manifest
) -> tuple[ImageRow, ...]:
    """Return the images that calibrate the backbone of the features; none: they are float32.

    A network that is fine-tuned starts from a head on float32 features.
    """
    if precision == "float32" or plan.finetune:
        return ()
    return calibration_images(manifest.rows("train"))
