"""The answer for several labels: each with its probability, and whether it applies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from rootstock.tasks.answer import Answer


@dataclass(frozen=True)
class LabelScore:
    """A label, its calibrated probability, and the decision whether it applies."""

    label: str = field(metadata={"examples": ["car"]})
    probability: float = field(metadata={"ge": 0, "le": 1, "examples": [0.93]})
    applies: bool = field(metadata={"examples": [True]})


@dataclass(frozen=True, kw_only=True)
class LabelsAnswer(Answer):
    """The labels of one image."""

    scores: tuple[LabelScore, ...] | None = field(
        default=None, metadata={"description": "Every label, most probable first."}
    )
    labels: tuple[str, ...] | None = field(
        default=None, metadata={"description": "The labels that apply; may be none."}
    )
    possible: tuple[str, ...] | None = field(
        default=None,
        metadata={
            "description": "With `coverage`: a label that applies is in this list in that share "
            "of cases."
        },
    )
    certain: tuple[str, ...] | None = field(
        default=None,
        metadata={
            "description": "With `coverage`: a label that does not apply is absent from this "
            "list in that share."
        },
    )

    @property
    def text(self) -> str:
        """The labels that apply, joined by semicolons."""
        return ";".join(self.labels or ())

    @property
    def summary(self) -> str:
        """The labels that apply with their probabilities."""
        chosen = [one for one in self.scores or () if one.applies]
        return "  ".join(f"{one.label} {one.probability:.3f}" for one in chosen) or "no label"

    @property
    def categories(self) -> tuple[str, ...]:
        """The labels that apply."""
        return self.labels or ()

    def columns(self) -> dict[str, str | float | bool | None]:
        """Return the labels, all probabilities as a JSON object, and whether it is unknown.

        With a coverage also the labels that are possible, and those that are certain.
        """
        sets = {"possible": self.possible, "certain": self.certain}
        shares = {one.label: round(one.probability, 6) for one in self.scores or ()}
        return {
            "labels": self.text,
            "probabilities": json.dumps(shares, ensure_ascii=False),
            "unknown": self.unknown,
            **{name: ";".join(one) for name, one in sets.items() if one is not None},
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self:
        """Return the inverse of `to_json`."""
        values = dict(entry)
        if values.get("scores") is not None:
            values["scores"] = tuple(
                LabelScore(str(one["label"]), float(one["probability"]), bool(one["applies"]))
                for one in values["scores"]
            )
        for name in ("labels", "possible", "certain"):
            if values.get(name) is not None:
                values[name] = tuple(values[name])
        return super().from_json(values)
