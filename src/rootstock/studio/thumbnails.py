"""Pictures for the browser: thumbnails, stored by hash, and pictures in viewing size."""

from __future__ import annotations

import io
import logging
import threading
from pathlib import Path

import numpy as np
from PIL import Image

from rootstock.data.decode import decode_image
from rootstock.data.limits import DecodeLimits
from rootstock.data.manifest import ImageRow
from rootstock.data.rendering import Rendering
from rootstock.errors import ArtifactError
from rootstock.features.loading import read_pixels
from rootstock.system.cpu import usable_cores
from rootstock.system.files import write_atomic

THUMBNAIL_PIXELS, VIEW_PIXELS = 224, 1600
"""Length of the longer side, at most."""
MEDIA_TYPE = "image/webp"
_QUALITY = {THUMBNAIL_PIXELS: 78, VIEW_PIXELS: 88}

_log = logging.getLogger("rootstock.studio")


class Thumbnails:
    """Pictures of indexed images, decoded on at most as many threads as there are cores.

    ``folder`` stores thumbnails under the hash of the image. If it is not writable, they are made
    each time, and ``problem`` says why.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.problem = ""
        self._turns = threading.BoundedSemaphore(usable_cores())

    def read(self, row: ImageRow, root: Path, rendering: Rendering) -> bytes:
        """Return the thumbnail of an image as WebP.

        Raises:
            DataError: The image has changed or vanished since it was indexed.
        """
        path = self.folder / row.sha256[:2] / f"{row.sha256}.webp"
        try:
            if content := path.read_bytes():
                return content
        except OSError:
            pass
        content = self._draw(row, root, rendering, THUMBNAIL_PIXELS)
        try:
            with write_atomic(path) as temporary:
                temporary.write_bytes(content)
            self.problem = ""
        except ArtifactError as error:
            if not self.problem:
                _log.warning("thumbnails cannot be stored: %s", error.message)
            self.problem = error.message
        return content

    def view(self, row: ImageRow, root: Path, rendering: Rendering) -> bytes:
        """Return an image in viewing size, as WebP, without the metadata of its file.

        Raises:
            DataError: The image has changed or vanished since it was indexed.
        """
        return self._draw(row, root, rendering, VIEW_PIXELS)

    def draw_stranger(self, content: bytes, limits: DecodeLimits) -> bytes:
        """Return the thumbnail of an image that is not in the project.

        Raises:
            ImageError: It cannot be used, or is larger than the limits.
        """
        with self._turns:
            image = decode_image(content, limits, short_side=THUMBNAIL_PIXELS, rendering=None)
            return _encode(image.pixels, THUMBNAIL_PIXELS)

    def _draw(self, row: ImageRow, root: Path, rendering: Rendering, side: int) -> bytes:
        with self._turns:
            pixels = read_pixels(row, root, short_side=side, rendering=rendering)
            return _encode(pixels, side)


def _encode(pixels: np.ndarray, side: int) -> bytes:
    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=_QUALITY[side], method=2)
    return buffer.getvalue()
