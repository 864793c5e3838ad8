"""A label in the form of labelling tools, for any task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Shares = tuple[float, float, float, float]
"""Left, top, right and bottom of a box, as shares of the sides of the upright image."""


@dataclass(frozen=True)
class Annotation:
    """The content of one image: classes or labels, the box of the first one, or named numbers."""

    labels: tuple[str, ...] = ()
    box: Shares | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)
