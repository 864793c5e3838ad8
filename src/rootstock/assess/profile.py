"""DatasetProfile: what was measured of the data, and how near it is to the pretraining set."""

from __future__ import annotations

from typing import ClassVar, Literal

from rootstock.config.choices import Pooling, SizeClass
from rootstock.data.preprocess import Geometry
from rootstock.system.artifacts import Artifact, Record


class LayerDivergence(Record):
    """How far the data's statistics lie from the pretraining ones in one layer.

    ``divergence``: median over channels of KL(N(data) || N(pretraining)), in nats.
    ``depth``: position in the backbone, 0 (first layer) to 1 (last).
    """

    name: str
    depth: float
    divergence: float


class Similarity(Record):
    """The score in [0, 1] (1: like the pretraining set) and the evidence behind it."""

    score: float
    similar: bool
    threshold: float
    method: Literal["batchnorm", "reference", "confidence", "none"]
    quarters: tuple[float, ...] = ()
    layers: tuple[LayerDivergence, ...] = ()
    n_images: int = 0


class Probe(Record):
    """Cross-validated score of a linear probe on the features of one tap.

    ``accuracy`` is the task's score, at most 1; for one class per image the accuracy.
    """

    tap: str
    accuracy: float
    std: float
    n_images: int
    knn: float | None = None
    """Leave-one-out score of the nearest neighbours on the same features."""


class GeometryProbe(Record):
    """What a probe made of a sample of the images, brought to a square in one way.

    ``log_loss`` is that of unseen images at the best tap, ``noise`` the standard error of its
    difference to that of `crop`.
    """

    geometry: Geometry
    tap: str
    log_loss: float
    noise: float
    n_images: int


class BackboneFacts(Record):
    """Which backbone the profile was measured with."""

    name: str
    architecture: str
    weights: str
    weights_sha256: str
    pretrained_on: str
    license: str
    input_size: int
    taps: tuple[str, ...]
    parameters: int
    gflop_per_megapixel: float
    """Forward pass, in 1e9 floating-point operations for 1e6 input pixels."""


class BackboneProfile(Record):
    """The images as one backbone sees them; ``candidate`` is how the user named it."""

    candidate: str
    backbone: BackboneFacts
    similarity: Similarity
    probes: tuple[Probe, ...]


class Unusable(Record):
    """A candidate that could not be looked at, and why."""

    candidate: str
    why: str


class DatasetProfile(Artifact):
    """What the planner knows of the data set."""

    made_by: ClassVar[str] = "assess"

    format_version: Literal[1] = 1
    data_hash: str
    classes: tuple[str, ...]
    n_train: int
    n_val: int
    n_test: int
    n_quarantined: int
    train_per_class: dict[str, int]
    median_per_class: float
    imbalance: float
    """Images of the largest training class over those of the smallest."""
    short_side_quantiles: tuple[int, int, int, int, int]
    """Minimum, lower quartile, median, upper quartile and maximum, in pixels."""
    size_class: SizeClass
    thresholds: dict[str, int]
    similarity: Similarity
    probes: tuple[Probe, ...]
    backbone: BackboneFacts
    score_name: str = "accuracy"
    """What the probes measured, in words."""
    aspect_ratio: float = 1.0
    """Long side over short side of the median image."""
    geometry: Geometry = "crop"
    """How images become square: as the user says, or as the probes do."""
    pooling: Pooling = "avg"
    """What the probes have read of each map; old profiles average."""
    dense: bool = False
    """Whether the task has outputs for positions, which need a larger input."""
    geometry_probes: tuple[GeometryProbe, ...] = ()
    """Empty if nothing was compared."""
    alternatives: tuple[BackboneProfile, ...] = ()
    """backbone.candidates beside the configured one."""
    unusable: tuple[Unusable, ...] = ()

    @property
    def fitted_side(self) -> float:
        """The side of the median image, in pixels, that has to fit into the input."""
        short_side = self.short_side_quantiles[2]
        return short_side if self.geometry == "crop" else short_side * self.aspect_ratio

    def seen_by(self, weights_sha256: str) -> DatasetProfile:
        """The profile as the backbone of these weights sees it; itself where none has them."""
        for other in self.alternatives:
            if other.backbone.weights_sha256 == weights_sha256:
                fields = ("backbone", "similarity", "probes")
                return self.model_copy(update={name: getattr(other, name) for name in fields})
        return self
