"""A label as tools for labelling write it, whatever the task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Shares = tuple[float, float, float, float]
"""Left, top, right and bottom of a box, in shares of the sides of the upright image."""


@dataclass(frozen=True)
class Annotation:
    """What one image shows: classes or labels, the box of the first one, or numbers by name."""

    labels: tuple[str, ...] = ()
    box: Shares | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)
