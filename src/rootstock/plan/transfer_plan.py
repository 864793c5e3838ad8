"""TransferPlan: how the backbone is used, and why."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from rootstock.config.choices import Augmentation, Pooling, SizeClass, Strategy
from rootstock.data.preprocess import Geometry
from rootstock.ports.search_space import Interval
from rootstock.system.artifacts import Artifact, Record
from rootstock.system.digest import digest_json


class Reason(Record):
    """One choice: its value, whether the user pinned it, and the reason in plain words."""

    choice: str
    value: str
    pinned: bool
    why: str


class StrategyForecast(Record):
    """The expected score and cost of one strategy."""

    strategy: Strategy
    expected_accuracy: tuple[float, float] | None
    level: float | None = None
    """Share of the runs whose test accuracy should be in that range; None in old plans."""
    basis: str
    gflop: float
    reference_minutes: float
    """Minutes on a machine of `REFERENCE_GFLOPS`, see `plan.costs`; a GPU needs far less."""


class BackboneScore(Record):
    """One of several candidate backbones, probed at its last tap.

    ``gflop``: 1e9 operations per image at its own input size; ``noise``: the standard error of
    ``accuracy``; ``excluded``: why it cannot be used, empty if it can.
    """

    candidate: str
    weights_sha256: str = ""
    name: str = ""
    parameters: int = 0
    gflop: float = 0.0
    accuracy: float = 0.0
    noise: float = 0.0
    knn: float = 0.0
    excluded: str = ""


class Evidence(Record):
    """The strategy of the table, and the result of weighing it against the probes.

    ``choice`` is final unless ``contest`` names two strategies; then their race decides.
    """

    ruled: Strategy
    choice: Strategy
    contest: tuple[Strategy, ...]
    why: str


class Heat(Record):
    """One contender in one round of a race, measured on the validation images."""

    strategy: Strategy
    n_train: int
    n_val: int
    """Validation images of all ``splits`` together."""
    epochs: int
    """Epochs of fine-tuning; 0: a head on frozen features."""
    accuracy: float
    log_loss: float
    """The log-loss with the best temperature."""
    rates: tuple[float, ...] = ()
    """The peak learning rates that were fully trained; empty for a head."""
    valid: bool = True
    """Whether fine-tuning ended above the head that it started from, within the noise."""
    splits: int = 1
    """The number of splits into training and validation images."""


class Race(Artifact):
    """A short comparison of two strategies on a part of the training images."""

    made_by: ClassVar[str] = "plan"

    heats: tuple[Heat, ...]
    winner: Strategy
    why: str


class RacedHead(Record):
    """The head that lost a race against fine-tuning; it is compared again after training."""

    strategy: Strategy
    taps: tuple[str, ...]
    input_size: int
    head_candidates: tuple[dict[str, Any], ...]


class FinetuneRecipe(Record):
    """How the backbone is fine-tuned."""

    freeze_through: str | None
    batchnorm: Literal["eval", "train"]
    layer_decay: float
    head_multiplier: float
    epochs: int
    augmentation: Augmentation
    flip: bool
    norm_only: bool = False
    """Only normalisation layers and the head are trained."""


class TransferPlan(Artifact):
    """Strategy, depth, freezing, sizes and search space: everything that training needs."""

    made_by: ClassVar[str] = "plan"

    format_version: Literal[1] = 1
    data_hash: str
    strategy: Strategy
    size_class: SizeClass
    similar: bool
    similarity_score: float
    backbone: str
    weights: str
    weights_sha256: str
    taps: tuple[str, ...]
    """Depths that the head may read, the preferred one first."""
    input_size: int
    geometry: Geometry = "crop"
    """How images become square; old plans crop them."""
    pooling: Pooling = "avg"
    """How the head summarises each map; old plans use the mean."""
    score_name: str = "accuracy"
    """Name of the score that probes and races compare, in words."""
    finetune: FinetuneRecipe | None
    head_candidates: tuple[dict[str, Any], ...]
    finetune_candidates: tuple[dict[str, Any], ...]
    finetune_space: dict[str, Interval | tuple[str, ...]] = {}
    """Ranges from which further fine-tuning trials are drawn; empty for a head."""
    budget_minutes: float | None = None
    """Limit on the minutes of training, including writing the model."""
    candidates: tuple[StrategyForecast, ...]
    backbones: tuple[BackboneScore, ...] = ()
    """Scores of the backbones; empty if only one was named."""
    evidence: Evidence
    race: Race | None
    raced_head: RacedHead | None = None
    """None if no head was raced, or if the head won."""
    reasons: tuple[Reason, ...]

    def for_raced_head(self) -> TransferPlan | None:
        """Return the plan that trains the head that lost the race, or None."""
        if self.raced_head is None:
            return None
        nothing: dict[str, Any] = {"finetune": None, "finetune_candidates": (), "race": None}
        nothing |= {"finetune_space": {}, "raced_head": None}
        return self.model_copy(update=dict(self.raced_head) | nothing)

    @property
    def hash(self) -> str:
        """SHA-256 of the plan's canonical JSON, as 64 hexadecimal digits."""
        return digest_json(self.model_dump(mode="json"))
