"""The answer of a localiser: the most probable classes of one image, and the box."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from rootstock.tasks.single_label.answer import ClassAnswer


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels of the upright image; (x, y) is its upper left corner."""

    x: float = field(metadata={"ge": 0, "examples": [51.8]})
    y: float = field(metadata={"ge": 0, "examples": [56.3]})
    width: float = field(metadata={"ge": 0, "examples": [282.2]})
    height: float = field(metadata={"ge": 0, "examples": [204.8]})


@dataclass(frozen=True, kw_only=True)
class BoxAnswer(ClassAnswer):
    """The class of one image, and where the object is."""

    box: Box | None = field(
        default=None,
        metadata={"description": "In pixels of the upright image, from its upper left corner."},
    )

    @property
    def summary(self) -> str:
        """All classes of the answer with their probabilities, and the box."""
        if self.box is None:
            return super().summary
        box = self.box
        return f"{super().summary}  at {box.x:.0f},{box.y:.0f} {box.width:.0f}x{box.height:.0f}"

    def columns(self) -> dict[str, str | float | bool | None]:
        """Return label, probability, the four numbers of the box, and whether it is unknown."""
        columns = super().columns()
        unknown = columns.pop("unknown")
        sides = ("x", "y", "width", "height")
        return {
            **columns,
            **{side: getattr(self.box, side, None) for side in sides},
            "unknown": unknown,
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self:
        """Return the inverse of `to_json`."""
        values = dict(entry)
        if values.get("box") is not None:
            sides = ("x", "y", "width", "height")
            values["box"] = Box(*(float(values["box"][side]) for side in sides))
        return super().from_json(values)
