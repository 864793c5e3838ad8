"""reports/plan.md: the plan in words, for a person."""

from __future__ import annotations

from rootstock.assess.profile import DatasetProfile
from rootstock.plan.plan import Candidate, TransferPlan
from rootstock.plan.planner import REFERENCE_GFLOPS
from rootstock.plan.rules import MEANING


def render_plan(plan: TransferPlan, profile: DatasetProfile, *, picture: str = "") -> str:
    """The plan as Markdown; ``picture`` is the path of the evidence plot, if there is one."""
    lines = [
        f"# Plan: {plan.strategy}",
        "",
        f"{MEANING[plan.strategy].capitalize()}.",
        "",
        "## Why",
        "",
        "| choice | value | why |",
        "| --- | --- | --- |",
    ]
    for reason in plan.reasons:
        pinned = " (pinned)" if reason.pinned else ""
        lines.append(f"| {reason.choice} | {reason.value}{pinned} | {reason.why} |")
    lines += ["", "## The table", "", *_table(plan)]
    lines += ["", "## What each strategy would cost and give", "", *_candidates(plan)]
    lines += ["", "## Evidence", "", *_evidence(profile)]
    if picture:
        lines += ["", f"![divergence and probe accuracy by depth]({picture})"]
    lines += [
        "",
        "Every choice can be pinned in `params.yaml` under `plan:`; `rootstock params` lists them.",
    ]
    return "\n".join(lines) + "\n"


def _table(plan: TransferPlan) -> list[str]:
    def cell(size: str, similar: bool, text: str) -> str:
        here = plan.size_class == size and plan.similar == similar
        return f"**{text}** (here)" if here else text

    return [
        "| data | similar to the pretraining set | not similar |",
        "| --- | --- | --- |",
        f"| small | {cell('small', True, 'linear_probe')} "
        f"| {cell('small', False, 'early_features')} |",
        f"| medium | {cell('medium', True, 'partial_finetune')} "
        f"| {cell('medium', False, 'probe_then_finetune')} |",
        f"| large | {cell('large', True, 'full_finetune')} "
        f"| {cell('large', False, 'full_finetune')} |",
    ]


def _candidates(plan: TransferPlan) -> list[str]:
    lines = [
        "| strategy | expected test accuracy | basis | minutes on the reference machine |",
        "| --- | --- | --- | --- |",
    ]
    lines += [_candidate_row(candidate, plan.strategy) for candidate in plan.candidates]
    lines += [
        "",
        "A *prior* is a rough expectation from the literature, not a measurement. Minutes are "
        f"arithmetic: operations over {REFERENCE_GFLOPS:g} GFLOP/s, the pace of two CPU cores; "
        "a GPU needs a small part of them.",
    ]
    return lines


def _candidate_row(candidate: Candidate, chosen: str) -> str:
    name = f"**{candidate.strategy}**" if candidate.strategy == chosen else candidate.strategy
    expected = "not known"
    if candidate.expected_accuracy is not None:
        low, high = candidate.expected_accuracy
        expected = f"{low:.3f} to {high:.3f}"
    return f"| {name} | {expected} | {candidate.basis} | {candidate.reference_minutes:.1f} |"


def _evidence(profile: DatasetProfile) -> list[str]:
    similarity = profile.similarity
    lines = [f"Similarity {similarity.score:.2f}, by {similarity.method}."]
    if similarity.quarters:
        quarters = ", ".join(f"{value:.3f}" for value in similarity.quarters)
        lines.append(
            "Median divergence from the pretraining statistics by quarter of depth, early to "
            f"late: {quarters} (measured on {similarity.n_images} images)."
        )
    if profile.probes:
        lines += ["", "| tap | cross-validated probe accuracy | spread over folds |"]
        lines += ["| --- | --- | --- |"]
        lines += [f"| {p.tap} | {p.accuracy:.3f} | {p.std:.3f} |" for p in profile.probes]
    return lines
