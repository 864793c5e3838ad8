"""The choices of a plan in progress, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass, field

from rootstock.errors import PlanError
from rootstock.plan.transfer_plan import Reason


@dataclass
class Draft:
    """Collects reasons while the choices are made one after another."""

    reasons: list[Reason] = field(default_factory=list)

    def note(self, choice: str, value: object, why: str, *, pinned: bool = False) -> None:
        """Add a choice and the rule's reason, even if the user has pinned another value."""
        why = f"Pinned in params.yaml; the rule says: {why}" if pinned else why
        self.reasons.append(Reason(choice=choice, value=str(value), pinned=pinned, why=why))


def check_tap(tap: str, taps: tuple[str, ...], *, key: str) -> None:
    """Check that the backbone has ``tap``, or every part of joined ones.

    Raises:
        PlanError: the backbone does not have it.
    """
    if any(name not in taps for name in tap.split("+")):
        raise PlanError(
            f"{key} is `{tap}`, but this backbone has no such tap",
            hint=f"its taps, shallow to deep: {', '.join(taps)}",
        )
