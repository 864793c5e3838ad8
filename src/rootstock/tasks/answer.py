"""Answer: the result of a model for one image, the same everywhere.

HTTP, the Open Inference Protocol, MLflow's routes, the command line, the journal and the client all
use these types. They need only Python; the service validates every answer against them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True)
class AnswerError:
    """The reason why an image has no answer."""

    detail: str = field(metadata={"examples": ["the file ends early: image file is truncated"]})
    reason: str | None = field(default=None, metadata={"examples": ["truncated"]})
    type: str | None = field(
        default=None, metadata={"examples": ["urn:rootstock:problem:unusable-image"]}
    )
    title: str | None = field(default=None, metadata={"examples": ["Unusable image"]})

    def __str__(self) -> str:
        return self.detail

    def to_json(self) -> dict[str, Any]:
        """Return the fields for JSON; unknown ones are left out."""
        return _without_none(dataclasses.asdict(self))


@dataclass(frozen=True)
class HeatMapAnswer:
    """The parts of the image with the evidence, in the view that the model used."""

    output: str = field(metadata={"examples": ["tulip"]})
    method: str = field(metadata={"examples": ["maps"]})
    values: list[list[int]] = field(
        metadata={
            "description": "Rows of a grid over the view: 255 is the strongest evidence.",
            "examples": [[[0, 64], [128, 255]]],
        }
    )


@dataclass(frozen=True)
class Neighbour:
    """A similar image."""

    path: str = field(metadata={"examples": ["tulip/0012.jpg"]})
    target: str = field(metadata={"examples": ["tulip"]})
    distance: float = field(
        metadata={"description": "0 is the same, 1 has nothing in common.", "examples": [0.12]}
    )
    thumbnail: str | None = field(
        default=None, metadata={"description": "A JPEG in base64, if the model stores thumbnails."}
    )


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The result for one image, or the reason for none; each task adds its decision."""

    filename: str = field(default="", metadata={"examples": ["a.jpg"]})
    unknown: bool | None = field(
        default=None,
        metadata={
            "description": "True: the image is unlike the training images, so the answer is not "
            "reliable."
        },
    )
    novelty: float | None = field(
        default=None,
        metadata={
            "description": "Distance to the training images; 0 is the same.",
            "examples": [0.21],
        },
    )
    heat_maps: tuple[HeatMapAnswer, ...] | None = field(
        default=None,
        metadata={"description": "With `explain`: one per output in the answer."},
    )
    neighbours: tuple[Neighbour, ...] | None = field(
        default=None, metadata={"description": "With `neighbours`: similar training images."}
    )
    error: AnswerError | None = None

    @property
    def text(self) -> str:
        """The decision in one word or number."""
        raise NotImplementedError

    @property
    def summary(self) -> str:
        """The decision in one line for a terminal."""
        return self.text

    @property
    def categories(self) -> tuple[str, ...]:
        """Names that count towards drift; empty if decisions have no names."""
        return ()

    def columns(self) -> dict[str, str | float | bool | None]:
        """Return the decision as flat columns, for tables."""
        raise NotImplementedError

    def files(self) -> dict[str, bytes]:
        """Return the files of the answer by suffix; most tasks have none."""
        return {}

    def to_json(self) -> dict[str, Any]:
        """Return the fields for JSON; unknown ones are left out."""
        return _without_none(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self:
        """Return the answer from `to_json`; unknown keys are ignored.

        Raises:
            TypeError, ValueError, KeyError: the entry is not such an answer.
        """
        names = {one.name for one in dataclasses.fields(cls)}
        values = {name: value for name, value in entry.items() if name in names}
        if values.get("error") is not None:
            values["error"] = _read(AnswerError, values["error"])
        for name, kind in (("heat_maps", HeatMapAnswer), ("neighbours", Neighbour)):
            if values.get(name) is not None:
                values[name] = tuple(_read(kind, one) for one in values[name])
        return cls(**values)


def _read(kind: type[Any], entry: Mapping[str, Any]) -> Any:
    """Return a part of an answer; unknown keys are ignored."""
    known = {one.name for one in dataclasses.fields(kind)}
    return kind(**{key: value for key, value in entry.items() if key in known})


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value]
    return value
