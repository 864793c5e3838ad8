"""DatasetProfile: measurements of the data, and its similarity to the pretraining set."""

from __future__ import annotations

from typing import ClassVar, Literal

from rootstock.config.choices import Pooling, SizeClass
from rootstock.data.preprocess import Geometry
from rootstock.system.artifacts import Artifact, Record


class LayerDivergence(Record):
    """The difference between the data's statistics and the pretraining ones in one layer.

    ``divergence``: median over channels of KL(N(data) || N(pretraining)), in nats.
    ``depth``: position in the backbone, 0 (first layer) to 1 (last).
    """

    name: str
    depth: float
    divergence: float


class Similarity(Record):
    """The score in [0, 1] (1: like the pretraining set), with its evidence."""

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
    """The probe result for a sample of the images, for one way of making them square.

    ``log_loss`` is measured on unseen images at the best tap; ``noise`` is the standard error of
    its difference to that of `crop`.
    """

    geometry: Geometry
    tap: str
    log_loss: float
    noise: float
    n_images: int


class BackboneFacts(Record):
    """The backbone with which the profile was measured."""

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
    """Operations of a forward pass, in 1e9 for 1e6 input pixels."""


class BackboneProfile(Record):
    """Measurements of the images with one backbone; ``candidate`` is the user's name for it."""

    candidate: str
    backbone: BackboneFacts
    similarity: Similarity
    probes: tuple[Probe, ...]


class Unusable(Record):
    """A candidate that could not be measured, and why."""

    candidate: str
    why: str


class DatasetProfile(Artifact):
    """Everything that the planner knows about the data set."""

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
    """Size of the largest training class divided by that of the smallest."""
    short_side_quantiles: tuple[int, int, int, int, int]
    """Minimum, lower quartile, median, upper quartile and maximum, in pixels."""
    size_class: SizeClass
    thresholds: dict[str, int]
    similarity: Similarity
    probes: tuple[Probe, ...]
    backbone: BackboneFacts
    score_name: str = "accuracy"
    """Name of the score that the probes measured."""
    aspect_ratio: float = 1.0
    """Long side over short side of the median image."""
    geometry: Geometry = "crop"
    """How images become square: set by the user, or chosen by the probes."""
    pooling: Pooling = "avg"
    """How the probes summarised each map; old profiles use the mean."""
    dense: bool = False
    """Whether the outputs of the task are positions, which need a larger input."""
    geometry_probes: tuple[GeometryProbe, ...] = ()
    """The probes of the ways to make images square; empty if none were compared."""
    alternatives: tuple[BackboneProfile, ...] = ()
    """The backbones of backbone.candidates, without the configured one."""
    unusable: tuple[Unusable, ...] = ()

    @property
    def fitted_side(self) -> float:
        """The side of the median image, in pixels, that must fit into the input."""
        short_side = self.short_side_quantiles[2]
        return short_side if self.geometry == "crop" else short_side * self.aspect_ratio

    def seen_by(self, weights_sha256: str) -> DatasetProfile:
        """Return the profile as measured with these weights; itself if they were not measured."""
        for other in self.alternatives:
            if other.backbone.weights_sha256 == weights_sha256:
                fields = ("backbone", "similarity", "probes")
                return self.model_copy(update={name: getattr(other, name) for name in fields})
        return self
