"""The training images in a model's reference: names, targets, hashes, thumbnails.

They are in the order of `Reference.features`, so that the nearest features have names.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from PIL import Image

from rootstock.errors import BundleError

THUMBNAIL_PIXELS = 64


@dataclass(frozen=True)
class KnownImage:
    """A training image; ``thumbnail`` is a JPEG in base64, or empty."""

    path: str
    target: str
    sha256: str
    thumbnail: str = ""


@dataclass(frozen=True)
class KnownImages:
    """The images of a reference, and the original lengths float32[M] of their features."""

    images: Sequence[KnownImage]
    lengths: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays that a model directory stores."""
        text = json.dumps([asdict(image) for image in self.images], ensure_ascii=False)
        return {"lengths": self.lengths, "images": np.frombuffer(text.encode(), np.uint8)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> KnownImages:
        """Return the object from `arrays`.

        Raises:
            KeyError, TypeError, ValueError: the arrays are not valid.
        """
        entries = json.loads(arrays["images"].tobytes().decode())
        images = [KnownImage(**entry) for entry in entries]
        if len(images) != len(arrays["lengths"]):
            raise ValueError(f"{len(images)} images, {len(arrays['lengths'])} lengths")
        return cls(images, arrays["lengths"])


def unnamed(model: str = "this model") -> BundleError:
    """Return the error for a model that does not store the names of its training images."""
    return BundleError(
        f"{model} does not store the names of its training images",
        hint="train it with `registry.reference: names` (the default) or `thumbnails`",
    )


def make_thumbnail(pixels: np.ndarray) -> str:
    """Return uint8[H,W,3] as a JPEG of at most 64 pixels a side, in base64."""
    image = Image.fromarray(pixels)
    image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
