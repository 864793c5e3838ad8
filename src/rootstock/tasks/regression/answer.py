"""The answer of a regression: the numbers of one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from rootstock.tasks.answer import Answer


@dataclass(frozen=True)
class NumberEstimate:
    """A number that the model predicts for an image; ``low`` and ``high`` with a `coverage`."""

    name: str = field(metadata={"examples": ["target"]})
    value: float = field(metadata={"examples": [17.3]})
    low: float | None = field(default=None, metadata={"examples": [14.1]})
    high: float | None = field(
        default=None,
        metadata={
            "description": "The true number is between `low` and `high` in the share `coverage`.",
            "examples": [20.5],
        },
    )


@dataclass(frozen=True, kw_only=True)
class NumbersAnswer(Answer):
    """The numbers of one image."""

    values: tuple[NumberEstimate, ...] | None = None

    @property
    def text(self) -> str:
        """The numbers, joined by semicolons."""
        return ";".join(f"{one.value:.6g}" for one in self.values or ())

    @property
    def summary(self) -> str:
        """The numbers with their names and intervals."""
        return "  ".join(map(_describe, self.values or ()))

    def columns(self) -> dict[str, str | float | bool | None]:
        """Return the first number, all numbers as text, and whether the image is unknown.

        With a coverage also the ends of the first number's interval.
        """
        first = self.values[0] if self.values else None
        ends = {"low": first.low, "high": first.high} if first and first.low is not None else {}
        value = first.value if first else None
        return {"value": value, "values": self.text, "unknown": self.unknown, **ends}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self:
        """Return the inverse of `to_json`."""
        values = dict(entry)
        if values.get("values") is not None:
            values["values"] = tuple(
                NumberEstimate(
                    str(one["name"]),
                    float(one["value"]),
                    *(None if one.get(end) is None else float(one[end]) for end in ("low", "high")),
                )
                for one in values["values"]
            )
        return super().from_json(values)


def _describe(one: NumberEstimate) -> str:
    interval = "" if one.low is None else f" ({one.low:.4g} to {one.high:.4g})"
    return f"{one.name} {one.value:.4g}{interval}"
