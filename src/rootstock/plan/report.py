"""reports/plan.md: the plan in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, get_args

from rootstock.assess.profile import DatasetProfile
from rootstock.config.choices import SizeClass, Strategy
from rootstock.plan.costs import REFERENCE_GFLOPS
from rootstock.plan.rules import EXPECTED_LEVEL, MEANING, SURE_ERRORS, TABLE
from rootstock.plan.transfer_plan import StrategyForecast, TransferPlan
from rootstock.system.escape import Markdown, escape_markdown, markdown_table
from rootstock.system.progress import show_seconds


class SkippedRace(NamedTuple):
    """Two strategies that were not raced, and the minutes that a race takes here at most."""

    contest: tuple[Strategy, Strategy]
    minutes: float


def render_plan(
    plan: TransferPlan,
    profile: DatasetProfile,
    *,
    picture: str = "",
    minutes: Mapping[Strategy, float] = MappingProxyType({}),
    latency_ms: float | None = None,
    machine: str = "",
    backbones_here: Mapping[str, tuple[float, float]] = MappingProxyType({}),
    times: Mapping[str, tuple[float | None, float | None]] = MappingProxyType({}),
    skipped_race: SkippedRace | None = None,
    networks: int = 1,
    notices: Sequence[str] = (),
) -> str:
    """Return the plan as Markdown.

    ``picture`` is the path of the evidence plot, if there is one. ``minutes`` and ``latency_ms``
    were measured on ``machine``, if at all. ``backbones_here`` has the milliseconds per served
    image and the minutes to train with the plan's strategy, by the SHA-256 of the weights.
    ``times`` has the minutes expected and taken, by activity. ``skipped_race`` is the cost of the
    race if none was run; ``networks`` is the number that `train.ensemble` asks for. ``notices`` are
    the warnings of the index.
    """
    lines = [
        f"# Plan: {plan.strategy}",
        "",
        f"{MEANING[plan.strategy].capitalize()}.",
        "",
        *_notices(notices),
        "## Why",
        "",
        *markdown_table(
            ("choice", "value", "why"),
            [
                (one.choice, one.value + " (pinned)" * one.pinned, Markdown(one.why))
                for one in plan.reasons
            ],
        ),
    ]
    lines += ["", "## The table", "", *_table(plan)]
    lines += ["", "## Rule, evidence and race", "", *_judgement(plan, skipped_race)]
    lines += ["", "## Expected score and cost of each strategy", ""]
    lines += _candidates(plan, minutes, latency_ms, machine)
    if networks > 1:
        lines += ["", "## Ensemble", "", _ensemble(plan, networks, times, latency_ms)]
    if times:
        lines += ["", "## Time on this machine", "", *_times(times)]
    if plan.backbones:
        lines += ["", "## Backbones compared", "", *_backbones(plan, backbones_here)]
    lines += ["", "## Evidence", "", *_evidence(profile)]
    if picture:
        lines += ["", f"![divergence and probes by depth]({picture})"]
    lines += [
        "",
        "Every choice can be pinned in `params.yaml` under `plan:`; `rootstock params` lists them.",
    ]
    return "\n".join(lines) + "\n"


def _notices(notices: Sequence[str]) -> list[str]:
    if not notices:
        return []
    return ["## Warnings about the data", "", *(f"- {escape_markdown(n)}" for n in notices), ""]


def _table(plan: TransferPlan) -> list[str]:
    def cell(size: SizeClass, similar: bool) -> str:
        here = (plan.size_class, plan.similar) == (size, similar)
        return f"**{TABLE[size, similar]}** (here)" if here else TABLE[size, similar]

    return [
        "| data | similar to the pretraining set | not similar |",
        "| --- | --- | --- |",
        *(f"| {size} | {cell(size, True)} | {cell(size, False)} |" for size in get_args(SizeClass)),
    ]


def _judgement(plan: TransferPlan, skipped: SkippedRace | None) -> list[str]:
    evidence = plan.evidence
    lines = [
        f"- **Rule**: the table says `{evidence.ruled}`.",
        f"- **Evidence** for `{evidence.choice}`: {evidence.why}",
    ]
    if plan.race is None:
        reason = "not run, so the choice is not confirmed." if evidence.contest else "not needed."
        if skipped:
            one, other = skipped.contest
            reason += (
                f" A race of `{one}` and `{other}` would have taken at most about "
                f"{show_seconds(60 * skipped.minutes)} here."
            )
        return [*lines, f"- **Race**: {reason}"]
    lines += [
        f"- **Race**: `{plan.race.winner}` won. {plan.race.why}",
        "",
        "| contender | training images | validation images | epochs "
        f"| validation {plan.score_name} | calibrated log-loss |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for heat in plan.race.heats:
        epochs = heat.epochs or "only the head"
        splits = f" in {heat.splits} splits" if heat.splits > 1 else ""
        lines.append(
            f"| {heat.strategy} | {heat.n_train} | {heat.n_val}{splits} | {epochs} "
            f"| {heat.accuracy:.3f} "
            f"| {heat.log_loss:.3f} |"
        )
    return lines


def _candidates(
    plan: TransferPlan,
    minutes: Mapping[Strategy, float],
    latency_ms: float | None,
    machine: str,
) -> list[str]:
    lines = [
        f"| strategy | expected test {plan.score_name} ({EXPECTED_LEVEL:.0%}) | basis "
        "| minutes here | on the reference machine |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [_candidate_row(candidate, plan, minutes) for candidate in plan.candidates]
    lines += [
        "",
        f"In {EXPECTED_LEVEL:.0%} of the runs the test {plan.score_name} should be in the expected "
        "range, which combines the probe with the noise of the probed images and the test images. "
        "A *prior* is an expectation from the literature or from the runs in the ledger, not a "
        "measurement on your images. Minutes cover features and training at every planned rate, "
        "excluding image decoding. They come from the "
        f"measured speed of this machine{f' ({machine})' if machine else ''}; the reference "
        f"machine has {REFERENCE_GFLOPS:g} GFLOP/s, the speed of two CPU cores.",
    ]
    if latency_ms is not None:
        lines.append(f"Serving one image with this backbone takes {latency_ms:.1f} ms here.")
    return lines


def _candidate_row(
    candidate: StrategyForecast, plan: TransferPlan, minutes: Mapping[Strategy, float]
) -> str:
    chosen = candidate.strategy == plan.strategy
    name = f"**{candidate.strategy}**" if chosen else candidate.strategy
    expected = "unknown"
    if candidate.expected_accuracy is not None:
        low, high = candidate.expected_accuracy
        expected = f"{low:.3f} to {high:.3f}"
    here = f"{minutes[candidate.strategy]:.1f}" if candidate.strategy in minutes else "not measured"
    return (
        f"| {name} | {expected} | {candidate.basis} | {here} | {candidate.reference_minutes:.1f} |"
    )


def _ensemble(
    plan: TransferPlan,
    networks: int,
    times: Mapping[str, tuple[float | None, float | None]],
    latency_ms: float | None,
) -> str:
    """Return what `train.ensemble` will do, and what it costs."""
    if plan.finetune is None:
        return (
            f"`train.ensemble` is {networks}, but this plan does not fine-tune: a head on frozen "
            "features is the same for every seed, so there is one network."
        )
    whole, _ = times.get("training", (None, None))
    cost = "" if whole is None else f": at most {show_seconds(60 * whole)} here"
    serving = f"{networks} forward passes"
    if latency_ms is not None:
        serving += f", about {networks} × {latency_ms:.1f} = {networks * latency_ms:.1f} ms here"
    return (
        f"`train.ensemble` is {networks}. After the best network is chosen, {networks - 1} more "
        "are trained in the same way with other seeds, which change the order of the images and "
        f"their augmentation. Training takes up to {networks} times as long{cost}. The average is "
        "kept only if its validation loss is lower than that of one network by more than "
        f"{SURE_ERRORS:g} standard errors of the difference. A prediction then costs {serving}."
    )


def _times(times: Mapping[str, tuple[float | None, float | None]]) -> list[str]:
    rows = [
        (
            name,
            _minutes(expected, "not estimated"),
            "in reports/forecast.json" if name == "training" else _minutes(taken, "not measured"),
        )
        for name, (expected, taken) in times.items()
    ]
    return [
        *markdown_table(("what", "expected minutes", "minutes taken"), rows),
        "",
        "Training counts all trials one after another, including those of the race.",
    ]


def _minutes(value: float | None, unknown: str) -> str:
    if value is None:
        return unknown
    return f"{value:.1f}" if value >= 0.05 else "under 0.1"


def _backbones(plan: TransferPlan, here: Mapping[str, tuple[float, float]]) -> list[str]:
    lines = [
        "| backbone | parameters | GFLOP per image | probe | k-NN | serving an image here "
        f"| `{plan.strategy}` here | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for score in plan.backbones:
        if score.excluded:
            name, why = escape_markdown(score.candidate), escape_markdown(score.excluded)
            lines.append(f"| {name} | | | | | | | not used: {why} |")
            continue
        taken = score.weights_sha256 == plan.weights_sha256
        name = escape_markdown(score.candidate)
        name = f"**{name}**" if taken else name
        latency, minutes = here.get(score.weights_sha256, (None, None))
        lines.append(
            f"| {name} | {score.parameters:,} | {score.gflop:.2f} "
            f"| {score.accuracy:.3f} ± {score.noise:.3f} | {score.knn:.3f} "
            f"| {_measured(latency, 'ms')} | {_measured(minutes, 'minutes')} | |"
        )
    return lines


def _measured(value: float | None, unit: str) -> str:
    return "not measured" if value is None else f"{value:.1f} {unit}"


def _evidence(profile: DatasetProfile) -> list[str]:
    similarity = profile.similarity
    lines = [f"The similarity is {similarity.score:.2f}, measured by {similarity.method}."]
    if similarity.quarters:
        quarters = ", ".join(f"{value:.3f}" for value in similarity.quarters)
        lines.append(
            "The median divergence from the pretraining statistics, by quarter of depth from "
            f"early to late, is {quarters} (measured on {similarity.n_images} images)."
        )
    if profile.probes:
        lines += ["", f"| tap | cross-validated {profile.score_name} | spread over folds | k-NN |"]
        lines += ["| --- | --- | --- | --- |"]
        lines += [
            f"| {p.tap} | {p.accuracy:.3f} | {p.std:.3f} | {_or_nothing(p.knn)} |"
            for p in profile.probes
        ]
    return lines


def _or_nothing(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
