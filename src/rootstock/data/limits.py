"""DecodeLimits: the limits for images, the same for index, training, predict and service."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal


@dataclass(frozen=True)
class DecodeLimits:
    """Limits on bytes, pixels, ratio of sides and longer side (None: any), and truncated files.

    ``truncated``: refuse an image whose file ends early, or use the readable part. Only the first
    frame of an animation is read. A tile of a TIFF counts like an image; `check_headers` has fixed
    limits for all other parts of a header.
    """

    max_bytes: int = 100_000_000
    max_pixels: int = 100_000_000
    max_aspect_ratio: float = 50.0
    max_side: int | None = None
    truncated: Literal["refuse", "use"] = "refuse"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> DecodeLimits:
        """Return the limits from the fields of `to_dict`; unknown fields are ignored."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in tree.items() if name in known})


INDEXED = DecodeLimits(2**62, 2**62, 1e9, truncated="use")
"""Limits for images that have already passed the index."""
