"""The answer of a classifier: the most probable classes of one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from rootstock.tasks.answer import Answer


@dataclass(frozen=True)
class Candidate:
    """A class and its calibrated probability."""

    label: str = field(metadata={"examples": ["tulip"]})
    probability: float = field(metadata={"ge": 0, "le": 1, "examples": [0.93]})


@dataclass(frozen=True, kw_only=True)
class ClassAnswer(Answer):
    """The classes of one image."""

    top: tuple[Candidate, ...] | None = field(
        default=None, metadata={"description": "Most probable first."}
    )
    labels: tuple[str, ...] | None = field(
        default=None,
        metadata={
            "description": "With `coverage`: classes that include the true one in that share."
        },
    )

    @property
    def label(self) -> str:
        """The most probable class; empty if there is an error."""
        return self.top[0].label if self.top else ""

    @property
    def probability(self) -> float:
        """Its probability; 0 if there is an error."""
        return self.top[0].probability if self.top else 0.0

    @property
    def text(self) -> str:
        """The most probable class."""
        return self.label

    @property
    def summary(self) -> str:
        """All classes of the answer with their probabilities."""
        return "  ".join(f"{one.label} {one.probability:.3f}" for one in self.top or ())

    @property
    def categories(self) -> tuple[str, ...]:
        """The most probable class."""
        return (self.label,)

    def columns(self) -> dict[str, str | float | bool | None]:
        """Return label, probability and whether the image is unknown; the set if there is one."""
        sets = {} if self.labels is None else {"labels": ";".join(self.labels)}
        return {
            "label": self.label,
            "probability": self.probability,
            "unknown": self.unknown,
            **sets,
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self:
        """Return the inverse of `to_json`."""
        values = dict(entry)
        if values.get("top") is not None:
            values["top"] = tuple(
                Candidate(str(item["label"]), float(item["probability"])) for item in values["top"]
            )
        if values.get("labels") is not None:
            values["labels"] = tuple(values["labels"])
        return super().from_json(values)
