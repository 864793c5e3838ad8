"""reports/data.md: the review on one page, for a person."""

from __future__ import annotations

from collections.abc import Mapping

from rootstock.assess.profile import DatasetProfile
from rootstock.config.choices import Strategy
from rootstock.review.record import DataReview, Feasibility

TOP_FINDINGS = 5
LISTED = 15
TRUSTED = 0.9
"""A probe of less accuracy doubts more labels than are wrong."""
MARKS = {3: "**Look at this first.** ", 2: "", 1: ""}


def render_review(
    review: DataReview,
    profile: DatasetProfile,
    *,
    pictures: Mapping[str, str],
    minutes: Mapping[Strategy, float],
) -> str:
    """The review as Markdown.

    ``pictures`` maps a name to a path, ``minutes`` a strategy to its time.
    """
    lines = [
        "# Your data",
        "",
        f"{profile.n_train} training, {profile.n_val} validation and {profile.n_test} test images "
        f"of {len(profile.classes)} classes. {review.n_reviewed} of them were looked at through "
        f"the features of `{review.backbone}`; nothing was changed.",
        "",
        "## In short",
        "",
    ]
    lines += [
        f"{number}. {MARKS[finding.weight]}{finding.what} *{finding.todo}*"
        for number, finding in enumerate(review.findings[:TOP_FINDINGS], start=1)
    ] or ["Nothing stands out."]
    rest = review.findings[TOP_FINDINGS:]
    if rest:
        lines += ["", "Also:", "", *(f"- {finding.what} *{finding.todo}*" for finding in rest)]
    lines += ["", "## What accuracy is feasible", "", *_feasibility(review.feasibility)]
    lines += _picture(pictures, "curve", "learning curve")
    lines += ["", "## Labels in doubt", "", *_suspects(review)]
    lines += _picture(pictures, "suspects", "images whose label is in doubt")
    lines += ["", "## Images unlike all others", "", *_outliers(review)]
    lines += _picture(pictures, "outliers", "images unlike all others")
    lines += ["", "## Shortcuts", "", *_shortcuts(review)]
    lines += ["", "## Copies", "", *_copies(review)]
    lines += ["", "## Runs of nearly the same image", "", *_bursts(review)]
    lines += ["", "## The images in two dimensions", ""]
    lines += _picture(pictures, "map", "features in two dimensions, labels in doubt marked")
    lines += ["", "## Time to train on this machine", "", *_minutes(minutes)]
    return "\n".join(lines) + "\n"


def _picture(pictures: Mapping[str, str], name: str, text: str) -> list[str]:
    return ["", f"![{text}]({pictures[name]})"] if name in pictures else []


def _feasibility(found: Feasibility | None) -> list[str]:
    if found is None:
        return ["There are too few images to measure a learning curve."]
    lines = [
        f"With these features no classifier is expected above **{found.ceiling:.1%}** (the bound "
        "of Cover and Hart on the error, from nearest neighbours, or what the curve below reaches "
        "if that is more). Fine-tuning changes the features and may pass it.",
        "",
        "| training images | probe accuracy | 80 % range | |",
        "| --- | --- | --- | --- |",
    ]
    for points, kind in ((found.measured, "measured"), (found.extrapolated, "extrapolated")):
        lines += [
            f"| {p.n_images:,} | {p.accuracy:.3f} | {p.low:.3f} to {p.high:.3f} | {kind} |"
            for p in points
        ]
    for target in found.targets:
        needed = (
            f"about {target.n_images:,} training images"
            if target.n_images
            else "not within reach of this curve, however many images"
        )
        lines += ["", f"For {target.accuracy:.0%} with a head on these features: {needed}."]
    if found.left_out:
        names, more = found.left_out[:5], len(found.left_out) - 5
        text = ", ".join(names) + (f" and {more} more classes" if more > 0 else "")
        lines += ["", f"Without {text}: too few images."]
    return [*lines, "", "Extrapolation by a power law is a guide, not a promise."]


def _suspects(review: DataReview) -> list[str]:
    if not review.suspects:
        return ["None."]
    lines = ["| image | label | looks like | sure |", "| --- | --- | --- | --- |"]
    curve = review.feasibility
    if curve and curve.measured[-1].accuracy < TRUSTED:
        lines = [
            f"The features are right for only {curve.measured[-1].accuracy:.0%} of these images, "
            "so most of these doubts are the features' fault, not the labels'.",
            "",
            *lines,
        ]
    lines += [
        f"| {s.path} | {s.label} | {s.suggested} | {s.confidence:.0%} |"
        for s in review.suspects[:LISTED]
    ]
    return lines + _more(len(review.suspects))


def _outliers(review: DataReview) -> list[str]:
    if not review.outliers:
        return ["None."]
    lines = ["| image | label | robust deviations |", "| --- | --- | --- |"]
    lines += [f"| {o.path} | {o.label} | {o.score:.1f} |" for o in review.outliers[:LISTED]]
    return lines + _more(len(review.outliers))


def _shortcuts(review: DataReview) -> list[str]:
    if not review.shortcuts:
        return ["No fact of the files alone (size, format, colour mode, border) tells the class."]
    lines = ["| fact | balanced accuracy from it alone | chance | |", "| --- | --- | --- | --- |"]
    return lines + [
        f"| {s.fact} | {s.accuracy:.3f} | {s.chance:.3f} | {s.example} |" for s in review.shortcuts
    ]


def _copies(review: DataReview) -> list[str]:
    if not review.copies:
        return ["None."]
    lines = ["| files | classes | splits |", "| --- | --- | --- |"]
    lines += [
        f"| {', '.join(c.paths)} | {', '.join(c.labels)} | {', '.join(c.splits)} |"
        for c in review.copies[:LISTED]
    ]
    return [*lines, "", "The same picture or nearly; reports/data.json lists every group."]


def _bursts(review: DataReview) -> list[str]:
    if not review.bursts:
        return ["None."]
    lines = ["| class | files | from | to | splits |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {b.label} | {len(b.paths)} | {b.paths[0]} | {b.paths[-1]} | {', '.join(b.splits)} |"
        for b in review.bursts[:LISTED]
    ]
    return lines + _more(len(review.bursts))


def _more(count: int) -> list[str]:
    more = count - LISTED
    return ["", f"{more} more are in artifacts/review.json."] if more > 0 else []


def _minutes(minutes: Mapping[Strategy, float]) -> list[str]:
    lines = ["| strategy | minutes |", "| --- | --- |"]
    return lines + [f"| {name} | {value:.1f} |" for name, value in minutes.items()]
