"""reports/data.md: the review on one page, for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rootstock.assess.profile import DatasetProfile
from rootstock.config.choices import Strategy
from rootstock.review.record import DataReview
from rootstock.system.escape import escape_markdown, markdown_table

MAX_TOP_FINDINGS = 5
MAX_LISTED_ROWS = 15
MIN_TRUSTED_ACCURACY = 0.9
"""A less accurate probe doubts more labels than are wrong."""
WEIGHT_MARKS = {3: "**Look at this first.** ", 2: "", 1: ""}


def render_review(
    review: DataReview,
    profile: DatasetProfile,
    *,
    pictures: Mapping[str, str],
    minutes: Mapping[Strategy, float],
) -> str:
    """Return the review as Markdown.

    ``pictures`` maps a name to a path, ``minutes`` a strategy to its time.
    """
    partly = ""
    if 0 < review.n_strata < len(profile.train_per_class):
        partly = f" of {review.n_strata} classes"
    lines = [
        "# Your data",
        "",
        f"{profile.n_train:,} training, {profile.n_val:,} validation, and {profile.n_test:,} test "
        f"images of {len(profile.classes)} classes. {review.n_reviewed:,} images{partly} were "
        f"reviewed with the features of `{review.backbone}`. Nothing was changed.",
        "",
        "## Summary",
        "",
    ]
    lines += [
        f"{number}. {WEIGHT_MARKS[finding.weight]}{finding.what} *{finding.todo}*"
        for number, finding in enumerate(review.findings[:MAX_TOP_FINDINGS], start=1)
    ] or ["No findings."]
    rest = review.findings[MAX_TOP_FINDINGS:]
    if rest:
        lines += ["", "Further findings:", ""]
        lines += [f"- {finding.what} *{finding.todo}*" for finding in rest]
    lines += ["", "## Sample images"]
    lines += _picture(pictures, "sheet", "some images of each class")
    lines += _picture(pictures, "classes", "images by class and split")
    lines += _picture(pictures, "sizes", "sizes of the images")
    lines += ["", "## What accuracy is feasible", "", *_feasibility(review)]
    lines += _picture(pictures, "curve", "learning curve")
    lines += ["", "## Doubtful labels", "", *_suspects(review)]
    lines += _picture(pictures, "suspects", "images with doubtful labels")
    outliers = [(o.path, o.label, f"{o.score:.1f}") for o in review.outliers]
    lines += ["", "## Images unlike all others", ""]
    lines += _listing(("image", "label", "robust deviations"), outliers)
    lines += _picture(pictures, "outliers", "images unlike all others")
    lines += ["", "## Shortcuts", "", *_shortcuts(review)]
    lines += ["", "## Copies", "", *_copies(review)]
    bursts = [
        (b.label, len(b.paths), b.paths[0], b.paths[-1], ", ".join(b.splits)) for b in review.bursts
    ]
    lines += ["", "## Bursts of nearly the same image", ""]
    lines += _listing(("class", "files", "from", "to", "splits"), bursts)
    lines += ["", "## Map of the images", ""]
    lines += _picture(pictures, "map", "features in two dimensions, with doubtful labels marked")
    times = [(name, f"{value:.1f}") for name, value in minutes.items()]
    lines += ["", "## Training time on this machine", ""]
    lines += markdown_table(("strategy", "minutes"), times)
    return "\n".join(lines) + "\n"


def _picture(pictures: Mapping[str, str], name: str, text: str) -> list[str]:
    return ["", f"![{text}]({pictures[name]})"] if name in pictures else []


def _listing(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Return a table of the first rows, and how many more there are."""
    if not rows:
        return ["None."]
    lines = markdown_table(header, rows[:MAX_LISTED_ROWS])
    more = len(rows) - MAX_LISTED_ROWS
    return [*lines, "", f"{more} more are in artifacts/review.json."] if more > 0 else lines


def _feasibility(review: DataReview) -> list[str]:
    feasibility, groups = review.feasibility, review.groups
    if feasibility is None:
        return ["There are too few images to measure a learning curve."]
    points = [(point, "measured") for point in feasibility.measured]
    points += [(point, "extrapolated") for point in feasibility.extrapolated]
    curve = [
        (f"{p.n_images:,}", f"{p.accuracy:.3f}", f"{p.low:.3f} to {p.high:.3f}", kind)
        for p, kind in points
    ]
    lines = [
        f"With these features, the expected limit of any head is {feasibility.score_name} "
        f"**{feasibility.ceiling:.3f}**. This is the error bound of Cover and Hart from nearest "
        "neighbours, or the maximum of the curve below if that is higher. Fine-tuning changes the "
        "features and can exceed it.",
        "",
        *markdown_table(
            ("training images", f"{feasibility.score_name} of a head", "80 % range", ""), curve
        ),
    ]
    for target in feasibility.targets:
        needed = (
            f"about {target.n_images:,} training images"
            if target.n_images
            else "out of reach of this curve with any number of images"
        )
        lines += [
            "",
            f"{feasibility.score_name.capitalize()} {target.accuracy:g} with these features: "
            f"{needed}.",
        ]
    if feasibility.left_out:
        names, more = feasibility.left_out[:5], len(feasibility.left_out) - 5
        text = ", ".join(map(escape_markdown, names)) + (
            f" and {more} more classes" if more > 0 else ""
        )
        lines += ["", f"Not included, because they have too few images: {text}."]
    if groups:
        lines += [
            "",
            "Measured with suspected groups kept whole. The splits divide them, so the test score "
            "will be higher.",
        ]
    return [*lines, "", "Extrapolation by a power law is a rough guide."]


def _suspects(review: DataReview) -> list[str]:
    rows = [(s.path, s.label, s.suggested, f"{s.confidence:.0%}") for s in review.suspects]
    lines = _listing(("image", "label", "looks like", "sure"), rows)
    curve = review.feasibility
    if rows and curve and curve.measured[-1].accuracy < MIN_TRUSTED_ACCURACY:
        warning = (
            f"The features are right for only {curve.measured[-1].accuracy:.0%} of these images, "
            "so most of these doubts are errors of the features, not of the labels."
        )
        return [warning, "", *lines]
    return lines


def _shortcuts(review: DataReview) -> list[str]:
    rows = [
        (s.fact, s.label or "all", f"{s.accuracy:.3f}", f"{s.chance:.3f}", s.example)
        for s in review.shortcuts
    ]
    if not rows:
        return [
            "None of the file facts (size, format, colour mode, bytes per pixel, border) separates "
            "the classes, or one class from the others, better than the picture does."
        ]
    header = ("fact", "class", "balanced accuracy from this fact", "chance", "")
    return markdown_table(header, rows)


def _copies(review: DataReview) -> list[str]:
    rows = [
        (", ".join(c.paths), ", ".join(c.labels), ", ".join(c.splits))
        for c in review.copies[:MAX_LISTED_ROWS]
    ]
    if not rows:
        return ["None."]
    lines = markdown_table(("files", "classes", "splits"), rows)
    return [*lines, "", "The same picture or nearly. reports/data.json lists every group."]
