"""The answer of a segmenter: the class of each pixel as a PNG, and the share of each class."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from rootstock.tasks.answer import Answer

MIN_SAID_SHARE = 0.005
"""A class with a smaller share of the area does not count towards drift."""


@dataclass(frozen=True)
class Area:
    """A class, its share of the image, and its colour in the mask."""

    label: str = field(metadata={"examples": ["road"]})
    share: float = field(metadata={"ge": 0, "le": 1, "examples": [0.31]})
    colour: str = field(metadata={"examples": ["#e69f00"]})


@dataclass(frozen=True, kw_only=True)
class MaskAnswer(Answer):
    """The classes of one image's pixels."""

    areas: tuple[Area, ...] | None = field(
        default=None,
        metadata={"description": "Every class in the image, the largest share first."},
    )
    mask: str | None = field(
        default=None,
        metadata={
            "description": "A palette PNG in base64, whose values are class numbers. It is as "
            "large as the upright image, or has 1024 pixels on its longer side if that is larger.",
            "examples": ["iVBORw0KGgo="],
        },
    )

    @property
    def text(self) -> str:
        """The class with the largest share."""
        return self.areas[0].label if self.areas else ""

    @property
    def summary(self) -> str:
        """All classes with their shares."""
        return "  ".join(f"{one.label} {one.share:.1%}" for one in self.areas or ())

    @property
    def categories(self) -> tuple[str, ...]:
        """The classes that are in the image."""
        return tuple(one.label for one in self.areas or () if one.share >= MIN_SAID_SHARE)

    def columns(self) -> dict[str, str | float | bool | None]:
        """Return the largest class, all shares as a JSON object, and whether it is unknown."""
        shares = {one.label: round(one.share, 6) for one in self.areas or ()}
        return {
            "label": self.text,
            "shares": json.dumps(shares, ensure_ascii=False),
            "unknown": self.unknown,
        }

    def files(self) -> dict[str, bytes]:
        """Return the mask as a PNG file."""
        return {} if self.mask is None else {".png": base64.b64decode(self.mask)}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self:
        """Return the inverse of `to_json`."""
        values = dict(entry)
        if values.get("areas") is not None:
            values["areas"] = tuple(
                Area(str(one["label"]), float(one["share"]), str(one["colour"]))
                for one in values["areas"]
            )
        return super().from_json(values)
