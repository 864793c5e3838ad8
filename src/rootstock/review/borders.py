"""Pixel facts of some images, measured while the images are decoded for another purpose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rootstock.data.manifest import ImageRow
from rootstock.data.rendering import PLAIN, Rendering
from rootstock.features.loading import read_pixels
from rootstock.review.shortcuts import measure_picture
from rootstock.system.threads import spread


class Borders:
    """The results of `measure_picture` for ``rows``."""

    def __init__(self, rows: Sequence[ImageRow]) -> None:
        self.rows = rows
        self._wanted = {row.sha256 for row in rows}
        self._facts: dict[str, np.ndarray] = {}

    def note(self, row: ImageRow, pixels: np.ndarray) -> None:
        """Measure an image uint8[H,W,3] of the rows, decoded at full size."""
        if row.sha256 in self._wanted and pixels.shape[:2] == (row.height, row.width):
            self._facts[row.sha256] = measure_picture(pixels)

    def read(self, root: Path, rendering: Rendering = PLAIN) -> np.ndarray:
        """Return float64[N,20] of the rows, decoding images that were not measured yet.

        Raises:
            DataError: An image has changed or vanished since it was indexed.
        """

        def measure(row: ImageRow) -> np.ndarray:
            facts = self._facts.get(row.sha256)
            if facts is None:
                facts = measure_picture(read_pixels(row, root, rendering=rendering))
            return facts

        return np.stack(list(spread(measure, self.rows)))
