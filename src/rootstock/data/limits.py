"""DecodeLimits: what is accepted as an image, the same for index, training, predict and service."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal


@dataclass(frozen=True)
class DecodeLimits:
    """File size in bytes, pixels, longer over shorter side, longer side (None: any), and cut files.

    ``truncated``: whether an image whose file ends early is refused, or used as far as it goes.
    Frames of an animation after the first are never read. A tile of a TIFF counts like an image;
    what else headers may ask for is fixed, see `check_headers`.
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
        """Return what `to_dict` made the fields of; an unknown field is ignored."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in tree.items() if name in known})


INDEXED = DecodeLimits(2**62, 2**62, 1e9, truncated="use")
"""For images that have passed the limits of the index already."""
