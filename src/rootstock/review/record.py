"""DataReview: facts about a data set, from its features, before any training."""

from __future__ import annotations

from typing import ClassVar, Literal

from rootstock.system.artifacts import Artifact, Record

MAX_SUSPECTS = 50


class CurvePoint(Record):
    """Accuracy of a probe trained on ``n_images``; 80 % of draws are in ``low`` to ``high``."""

    n_images: int
    accuracy: float
    low: float
    high: float


class Target(Record):
    """Training images that a target accuracy needs; None if the curve never reaches it."""

    accuracy: float
    n_images: int | None


class Feasibility(Record):
    """The accuracy that these features allow: a ceiling from neighbours, and a learning curve."""

    ceiling: float
    """1 - Cover and Hart's lower bound on the Bayes error, or the curve's maximum if higher."""
    measured: tuple[CurvePoint, ...]
    extrapolated: tuple[CurvePoint, ...]
    targets: tuple[Target, ...]
    score_name: str = "accuracy"
    """Name of the curve's score, in words."""
    left_out: tuple[str, ...] = ()
    """Classes with too few images to draw from."""


class Suspect(Record):
    """An image whose label the probes doubt."""

    path: str
    label: str
    suggested: str
    confidence: float
    """Confidence in the suggested label, by a probe that did not see the image."""


class Outlier(Record):
    """An image far from all others; ``score`` counts robust standard deviations."""

    path: str
    label: str
    score: float


class Burst(Record):
    """Consecutive files of one class that look nearly the same."""

    label: str
    paths: tuple[str, ...]
    splits: tuple[str, ...]


class SuspectedGroups(Record):
    """Images that seem to belong together but are divided by the splits."""

    pattern: str
    """The value of `data.group` that names them; empty if only their closeness shows them."""
    n_groups: int
    n_divided: int
    largest: int
    example: tuple[str, str]
    """Two files of one group in different splits."""
    splits_given: bool = False
    """Whether the user provided the splits."""
    score_divided: float | None = None
    """Score of a head on unseen images when folds divide groups like the splits do."""
    score_whole: float | None = None
    """Score of a head on unseen images when folds keep the groups whole."""


class Copies(Record):
    """Files that contain the same picture, or nearly the same."""

    paths: tuple[str, ...]
    labels: tuple[str, ...]
    splits: tuple[str, ...]


class Shortcut(Record):
    """A trivial fact about the files that predicts the class."""

    fact: str
    accuracy: float
    """Balanced, cross-validated accuracy from this fact only."""
    chance: float
    example: str
    label: str = ""
    """The class that the fact separates from all others; empty if it separates all classes."""


class Finding(Record):
    """One thing worth knowing, and what to do about it."""

    weight: int
    """3: stop and look; 2: worth an hour; 1: good to know."""
    what: str
    todo: str
    about: str = ""
    """The images concerned, such as `doubt` or `copies`; empty: the data set as a whole."""


class DataReview(Artifact):
    """The complete review, in the order of the page."""

    made_by: ClassVar[str] = "assess"

    format_version: Literal[1] = 1
    data_hash: str
    backbone: str
    n_reviewed: int
    n_strata: int = 0
    """Strata of the reviewed images; 0 in files from an older Rootstock."""
    findings: tuple[Finding, ...]
    feasibility: Feasibility | None
    suspects: tuple[Suspect, ...]
    outliers: tuple[Outlier, ...]
    bursts: tuple[Burst, ...]
    copies: tuple[Copies, ...] = ()
    shortcuts: tuple[Shortcut, ...]
    groups: SuspectedGroups | None = None
