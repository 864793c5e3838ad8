"""TransferPlan: what will be done with the backbone, and why."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from rootstock.data.files import read_json, write_json
from rootstock.errors import ArtifactError
from rootstock.plan.rules import Strategy


class Record(BaseModel):
    """A frozen part of the plan; unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Reason(Record):
    """One choice, its value, whether the user pinned it, and why in plain words."""

    choice: str
    value: str
    pinned: bool
    why: str


class Candidate(Record):
    """What one strategy is expected to reach and to cost."""

    strategy: Strategy
    expected_accuracy: tuple[float, float] | None
    basis: str
    gflop: float
    reference_minutes: float
    """On the reference machine of docs/benchmarks.md; a GPU needs a small part of it."""


class FinetuneRecipe(Record):
    """How the backbone is fine-tuned."""

    freeze_through: str | None
    batchnorm: Literal["eval", "train"]
    layer_decay: float
    head_multiplier: float
    epochs: int
    augmentation: Literal["none", "light", "medium"]
    flip: bool


class TransferPlan(Record):
    """Strategy, depth, freezing, sizes and search space: all that training needs to know."""

    format_version: Literal[1] = 1
    data_hash: str
    strategy: Strategy
    size_class: Literal["small", "medium", "large"]
    similar: bool
    similarity_score: float
    backbone: str
    weights: str
    weights_sha256: str
    taps: tuple[str, ...]
    """Candidate depths for the head, the preferred one first."""
    input_size: int
    finetune: FinetuneRecipe | None
    head_candidates: tuple[dict[str, Any], ...]
    finetune_candidates: tuple[dict[str, Any], ...]
    candidates: tuple[Candidate, ...]
    reasons: tuple[Reason, ...]

    @property
    def hash(self) -> str:
        """SHA-256 of the plan's canonical JSON, as 64 hexadecimal digits."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def write(self, path: Path) -> None:
        """Write as JSON."""
        write_json(path, self.model_dump(mode="json"))

    @classmethod
    def read(cls, path: Path) -> TransferPlan:
        """Read what `write` wrote.

        Raises:
            ArtifactError: the file is missing, damaged or of another version.
        """
        try:
            return cls.model_validate(read_json(path, made_by="plan"))
        except ValidationError as error:
            raise ArtifactError(
                f"{path} is not a transfer plan of this version: {error.error_count()} problems",
                hint="run the stage `plan` again",
            ) from None
