"""Stage `plan`: DatasetProfile in, TransferPlan and its explanation out."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from rootstock.assess.profile import DatasetProfile
from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.plan import rules
from rootstock.plan.costs import tuning_size
from rootstock.plan.pins import AUTO, Pins
from rootstock.plan.plan import Race, TransferPlan
from rootstock.plan.planner import judge_profile, make_transfer_plan
from rootstock.plan.report import render_plan
from rootstock.plots.training import plot_depth
from rootstock.ports.search import Searcher
from rootstock.system.files import write_atomic, write_json
from rootstock.workflow.candidates import choose_candidate
from rootstock.workflow.estimates import estimate_minutes, read_pins
from rootstock.workflow.features import load_profiled_backbone
from rootstock.workflow.race import run_race

PICTURE = "plots/plan/depth.png"


def make_plan(config: Config, paths: Paths, *, searcher: Searcher) -> TransferPlan:
    """Write artifacts/plan.json, reports/plan.md and its picture.

    Where the probes leave a doubt and nothing is pinned, two strategies race first.
    """
    profile, scores, why, compared = choose_candidate(
        config, paths, DatasetProfile.read(paths.profile)
    )
    pins = read_pins(config)
    backbone = load_profiled_backbone(profile, device=config.train.device)
    backbone.require_size(tuning_size(profile, pins))
    throughput, expected = estimate_minutes(config, paths, profile, backbone)
    too_slow = _too_slow(expected, limit=config.plan.budget.minutes)
    plan = make_transfer_plan(
        profile,
        pins=pins,
        l2_grid=config.train.l2_grid,
        shares=config.plan.shares,
        race=_race(config, paths, profile, pins, searcher, too_slow),
        too_slow=too_slow,
        backbones=scores,
        backbone_why=why,
        budget_minutes=config.plan.budget.minutes,
    )
    plan.write(paths.plan)
    # Beside the plan, not in it: the plan is the same on every machine.
    write_json(paths.estimates / f"{plan.hash}.json", {"minutes": expected[plan.strategy]})
    plot_depth(
        paths.reports / PICTURE,
        divergence=[(layer.depth, layer.divergence) for layer in profile.similarity.layers],
        probes={probe.tap: (probe.accuracy, probe.std) for probe in profile.probes},
        chosen=plan.taps[0],
    )
    with write_atomic(paths.reports / "plan.md") as temporary:
        temporary.write_text(
            render_plan(
                plan,
                profile,
                picture=PICTURE,
                minutes=expected,
                latency_ms=throughput.latency_ms,
                machine=throughput.machine,
                backbones_here={
                    weights: (other.latency_ms, needed[plan.strategy])
                    for weights, (other, needed) in compared.items()
                },
            ),
            encoding="utf-8",
        )
    return plan


def _race(
    config: Config,
    paths: Paths,
    profile: DatasetProfile,
    pins: Pins,
    searcher: Searcher,
    too_slow: Collection[rules.Strategy],
) -> Race | None:
    judgement = judge_profile(profile, shares=config.plan.shares)
    if not judgement.contest or config.plan.race == "never" or pins.strategy != AUTO:
        return None
    if not set(judgement.contest).isdisjoint(too_slow):
        return None  # it would cost minutes to prefer what the budget forbids
    return run_race(
        config, paths, profile=profile, contest=judgement.contest, pins=pins, searcher=searcher
    )


def _too_slow(
    expected: Mapping[rules.Strategy, float], *, limit: float | None
) -> dict[rules.Strategy, str]:
    return {
        name: f"`{name}` would take {minutes:.1f} minutes here, over plan.budget.minutes {limit:g}"
        for name, minutes in expected.items()
        if limit is not None and minutes > limit and rules.is_finetune(name)
    }
