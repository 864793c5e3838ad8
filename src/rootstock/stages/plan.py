"""Stage `plan`: DatasetProfile in, TransferPlan and its explanation out."""

from __future__ import annotations

from rootstock.assess.profile import DatasetProfile
from rootstock.config import Config, Paths
from rootstock.data.files import write_atomic
from rootstock.plan.plan import TransferPlan
from rootstock.plan.planner import Pins, make_transfer_plan
from rootstock.plan.report import render_plan
from rootstock.plots.training import plot_depth

PICTURE = "plots/plan/depth.png"


def make_plan(config: Config, paths: Paths) -> TransferPlan:
    """Write artifacts/plan.json, reports/plan.md and its picture."""
    profile = DatasetProfile.read(paths.profile)
    pins = Pins(
        **config.plan.model_dump(),
        epochs=config.train.epochs,
        learning_rates=config.train.learning_rates,
    )
    plan = make_transfer_plan(profile, pins=pins, l2_grid=config.train.l2_grid)
    plan.write(paths.plan)
    plot_depth(
        paths.reports / PICTURE,
        divergence=[(layer.depth, layer.divergence) for layer in profile.similarity.layers],
        probes={probe.tap: (probe.accuracy, probe.std) for probe in profile.probes},
        chosen=plan.taps[0],
    )
    with write_atomic(paths.reports / "plan.md") as temporary:
        temporary.write_text(render_plan(plan, profile, picture=PICTURE), encoding="utf-8")
    return plan
