"""The planner's choices that the user has pinned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

AUTO: Literal["auto"] = "auto"


@dataclass(frozen=True)
class Pins:
    """The user's choices; ``auto`` leaves a choice to the planner."""

    strategy: str = AUTO
    tap: str = AUTO
    freeze_through: str = AUTO
    input_size: int | Literal["auto"] = AUTO
    augmentation: str = AUTO
    flip: bool | Literal["auto"] = AUTO
    epochs: int | Literal["auto"] = AUTO
    learning_rates: tuple[float, ...] | Literal["auto"] = AUTO
