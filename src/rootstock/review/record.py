"""DataReview: what can be said of a data set from its features before any training."""

from __future__ import annotations

from typing import ClassVar, Literal

from rootstock.system.artifacts import Artifact, Record

MAX_SUSPECTS = 50


class CurvePoint(Record):
    """Accuracy of a probe trained on so many images; 80 % of draws between ``low`` and ``high``."""

    n_images: int
    accuracy: float
    low: float
    high: float


class Target(Record):
    """How many training images a target accuracy would need; None: the curve never gets there."""

    accuracy: float
    n_images: int | None


class Feasibility(Record):
    """What these features allow: a ceiling from nearest neighbours, and the learning curve."""

    ceiling: float
    """1 - Cover and Hart's lower bound on the Bayes error, or what the curve reaches if higher."""
    measured: tuple[CurvePoint, ...]
    extrapolated: tuple[CurvePoint, ...]
    targets: tuple[Target, ...]
    score_name: str = "accuracy"
    """What the accuracies of the curve are, in words."""
    left_out: tuple[str, ...] = ()
    """Classes with too few images to draw from."""


class Suspect(Record):
    """An image whose label the probes doubt."""

    path: str
    label: str
    suggested: str
    confidence: float
    """Of the suggested label, by a probe that did not see the image."""


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
    """Images that seem to belong together, and that the splits divide."""

    pattern: str
    """The value of `data.group` that names them; empty: known by their closeness only."""
    n_groups: int
    n_divided: int
    largest: int
    example: tuple[str, str]
    """Two files of one group in different splits."""
    splits_given: bool = False
    """Whether you gave the splits."""
    score_divided: float | None = None
    """Of a head on unseen images when folds divide groups as the splits do."""
    score_whole: float | None = None
    """The same when folds keep the groups whole."""


class Copies(Record):
    """Files that hold the same picture, or nearly."""

    paths: tuple[str, ...]
    labels: tuple[str, ...]
    splits: tuple[str, ...]


class Shortcut(Record):
    """A trivial fact of the files that tells the class."""

    fact: str
    accuracy: float
    """Balanced, cross-validated, from this fact alone."""
    chance: float
    example: str
    label: str = ""
    """The one class that the fact tells from all others; empty: it tells all of them apart."""


class Finding(Record):
    """One thing worth knowing, and what to do about it."""

    weight: int
    """3: stop and look; 2: worth an hour; 1: good to know."""
    what: str
    todo: str
    about: str = ""
    """Which images it is about, such as `doubt` or `copies`; empty: the data set as a whole."""


class DataReview(Artifact):
    """All of it, in the order of the page."""

    made_by: ClassVar[str] = "assess"

    format_version: Literal[1] = 1
    data_hash: str
    backbone: str
    n_reviewed: int
    n_strata: int = 0
    """Strata of the images that were reviewed; 0 in files of an older Rootstock."""
    findings: tuple[Finding, ...]
    feasibility: Feasibility | None
    suspects: tuple[Suspect, ...]
    outliers: tuple[Outlier, ...]
    bursts: tuple[Burst, ...]
    copies: tuple[Copies, ...] = ()
    shortcuts: tuple[Shortcut, ...]
    groups: SuspectedGroups | None = None
