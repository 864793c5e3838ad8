"""Load exactly the backbone with which a plan or a profile was made."""

from __future__ import annotations

from rootstock.assess.profile import DatasetProfile
from rootstock.backbones.load import Backbone, load_backbone
from rootstock.errors import PlanError
from rootstock.plan.transfer_plan import TransferPlan


def load_planned_backbone(plan: TransferPlan, *, device: str) -> Backbone:
    """Return the backbone of the plan.

    Raises:
        PlanError: the weights have changed since then.
    """
    return _load_recorded(plan.weights, plan.backbone, plan.weights_sha256, device=device)


def load_profiled_backbone(profile: DatasetProfile, *, device: str) -> Backbone:
    """Return the backbone with which the profile was measured.

    Raises:
        PlanError: the weights have changed since then.
    """
    recorded = profile.backbone
    return _load_recorded(recorded.weights, recorded.name, recorded.weights_sha256, device=device)


def _load_recorded(weights: str, name: str, sha256: str, *, device: str) -> Backbone:
    backbone = load_backbone(weights, name, device=device)
    if backbone.card.weights_sha256 != sha256:
        raise PlanError(
            f"the weights {weights!r} have changed since the plan was made",
            hint="run the stages `assess` and `plan` again",
        )
    return backbone
