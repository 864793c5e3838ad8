"""Stage `plan`: DatasetProfile in, TransferPlan and its explanation out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from rootstock.assess.profile import DatasetProfile
from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.data.notices import list_notices
from rootstock.errors import PlanError
from rootstock.plan.backbone import Limits
from rootstock.plan.costs import find_too_slow, tuning_size
from rootstock.plan.evidence import contest_to_race, name_rivals
from rootstock.plan.ledger import measure_pace, read_ledger
from rootstock.plan.pins import AUTO
from rootstock.plan.planner import judge_profile, make_transfer_plan
from rootstock.plan.quality import ruled_out, spend_more
from rootstock.plan.report import SkippedRace, render_plan
from rootstock.plan.rules import EXPECTED_LEVEL
from rootstock.plan.transfer_plan import Race, TransferPlan
from rootstock.plots.training import plot_depth
from rootstock.ports.search import Searcher
from rootstock.system.files import write_atomic, write_json
from rootstock.system.progress import say, show_seconds
from rootstock.training.optim import norm_layers
from rootstock.workflow.backbone_choice import BackboneChoice, choose_candidate
from rootstock.workflow.estimates import (
    Estimate,
    PlanMinutes,
    assessment_file,
    estimate_minutes,
    trial_minutes,
)
from rootstock.workflow.forecast import EXPECTED, UNCORRECTED
from rootstock.workflow.pins import read_pins
from rootstock.workflow.planned_backbone import load_profiled_backbone
from rootstock.workflow.project import Project
from rootstock.workflow.race import StrategyRace
from rootstock.workflow.training_job import open_job

PICTURE = "plots/plan/depth.png"


def make_plan(config: Config, paths: Paths, *, searcher: Searcher) -> TransferPlan:
    """Write artifacts/plan.json, reports/plan.md and its picture.

    If the probes leave a doubt and no strategy is pinned, two strategies race first.
    """
    project, options = Project(config, paths), config.plan
    pins, device = read_pins(config), config.train.device
    choice = choose_candidate(
        DatasetProfile.read(paths.profile),
        Limits(options.max_params, options.max_latency_ms),
        lambda profile: estimate_minutes(
            paths.paces, profile, load_profiled_backbone(profile, device=device), pins
        ),
    )
    profile = choice.profile
    pins = spend_more(pins, profile, config.quality)
    backbone = load_profiled_backbone(profile, device=device)
    backbone.require_size(tuning_size(profile, pins))
    if pins.strategy == "norm_finetune" and not norm_layers(backbone.module):
        raise PlanError(
            f"plan.strategy is `norm_finetune`, but {backbone.card.name} has no normalisation "
            "layers",
            hint="choose another strategy, or another backbone",
        )
    estimate = estimate_minutes(paths.paces, profile, backbone, pins)
    too_slow = find_too_slow(estimate[1], limit=options.budget.minutes)
    too_slow |= ruled_out(pins, config.quality)
    evidence = judge_profile(profile, shares=options.shares)
    contest = contest_to_race(
        evidence,
        too_slow=too_slow,
        allowed=options.race != "never",
        pinned=pins.strategy,
    )
    open_race = partial(
        StrategyRace,
        profile=profile,
        pins=pins,
        manifest=project.manifest,
        options=config.train,
        seed=config.seed,
        folder=paths.races,
        scratch=paths.heats,
        open_job=partial(open_job, project),
        throughput=estimate[0],
        budget_minutes=options.budget.minutes,
    )
    race, race_minutes, skipped = None, None, None
    if contest:
        race, race_minutes = _run_race(open_race(contest=contest), searcher, paths.estimates)
    elif pins.strategy == AUTO:
        rivals = name_rivals(evidence, similar=profile.similarity.similar)
        skipped = SkippedRace(rivals, open_race(contest=rivals).expected_minutes)
    plan = make_transfer_plan(
        profile,
        pins=pins,
        l2_grid=config.train.l2_grid,
        shares=options.shares,
        race=race,
        too_slow=too_slow,
        backbones=choice.scores,
        backbone_why=choice.why,
        budget_minutes=options.budget.minutes,
        quality=config.quality,
    )
    plan.write(paths.plan)
    times = {"assessment": PlanMinutes.read(assessment_file(paths.estimates, profile))}
    if race_minutes:
        times["race"] = race_minutes
    networks = config.train.ensemble
    uncorrected = trial_minutes(estimate[0], profile, backbone, plan, networks=networks)
    ledger = read_ledger(paths.lasting(options.ledger))
    minutes = uncorrected * measure_pace(ledger, tuned=plan.finetune is not None)
    times["training"] = PlanMinutes(minutes, None)
    # Not in the plan, which is the same on every machine.
    own = {f"{name}_minutes": one.taken for name, one in times.items() if one.taken is not None}
    write_json(
        paths.estimates / f"{plan.hash}.json", {EXPECTED: minutes, UNCORRECTED: uncorrected} | own
    )
    notices = list_notices(project.manifest)
    _write_report(paths, plan, choice, estimate, times, skipped, networks, notices)
    say(f"plan: {_summarise(plan, minutes)}; see reports/plan.md")
    return plan


def _run_race(
    contenders: StrategyRace, searcher: Searcher, folder: Path
) -> tuple[Race, PlanMinutes]:
    """Return the result of the race, and its minutes if it was run now."""
    file = folder / f"race-{contenders.name}.json"
    expected = contenders.expected_minutes
    if contenders.outcome.exists():
        return contenders.run(searcher), PlanMinutes.read(file)
    started = time.monotonic()
    race = contenders.run(searcher)
    minutes = PlanMinutes(expected, (time.monotonic() - started) / 60)
    minutes.write(file)
    return race, minutes


def _summarise(plan: TransferPlan, minutes: float) -> str:
    """Return a summary of the plan in one line: choice, expectation and cost here."""
    parts: list[str] = [plan.strategy]
    expected = next(
        (one.expected_accuracy for one in plan.candidates if one.strategy == plan.strategy), None
    )
    if expected:
        low, high = (f"{edge:.3f}" for edge in expected)
        parts.append(
            f"expected test {plan.score_name} from {low} to {high} in {EXPECTED_LEVEL:.0%} of "
            "such runs"
        )
    parts.append(f"about {show_seconds(60 * minutes)} of training on this machine")
    return ", ".join(parts)


def _write_report(
    paths: Paths,
    plan: TransferPlan,
    choice: BackboneChoice,
    estimate: Estimate,
    times: Mapping[str, PlanMinutes],
    skipped_race: SkippedRace | None,
    networks: int,
    notices: Sequence[str],
) -> None:
    profile, (throughput, minutes) = choice.profile, estimate
    plot_depth(
        paths.reports / PICTURE,
        divergence=[(layer.depth, layer.divergence) for layer in profile.similarity.layers],
        probes={probe.tap: (probe.accuracy, probe.std) for probe in profile.probes},
        chosen=plan.taps[0],
        score_name=profile.score_name,
    )
    text = render_plan(
        plan,
        profile,
        picture=PICTURE,
        minutes=minutes,
        latency_ms=throughput.latency_ms,
        machine=throughput.machine,
        backbones_here={
            weights: (other.latency_ms, needed[plan.strategy])
            for weights, (other, needed) in choice.estimates.items()
        },
        times={name: (one.expected, one.taken) for name, one in times.items()},
        skipped_race=skipped_race,
        networks=networks,
        notices=notices,
    )
    with write_atomic(paths.reports / "plan.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
