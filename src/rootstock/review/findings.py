"""The findings at the top of the review's page, in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rootstock.assess.profile import DatasetProfile
from rootstock.data.entry import count
from rootstock.data.label_corrections import FILE_NAME
from rootstock.data.notices import describe_corrections, describe_reasons
from rootstock.review.record import (
    MAX_SUSPECTS,
    DataReview,
    Feasibility,
    Finding,
    Shortcut,
    SuspectedGroups,
)
from rootstock.system.escape import code_span, escape_markdown

MIN_IMBALANCE_RATIO = 10.0
"""Largest over smallest class: from here on the loss should be balanced."""
MIN_GROUP_LOSS = 0.02
"""What a head loses when groups are kept whole: from here on the test is far too good."""
MIN_CLASS_IMAGES = 20
"""With fewer training images the test accuracy of a class is mostly luck."""
MIN_SIDE_PIXELS, MAX_SIDE_PIXELS = 48, 2000
"""Median short side in pixels."""


def gather_findings(
    review: DataReview, profile: DatasetProfile, summary: dict[str, Any]
) -> tuple[Finding, ...]:
    """Return all findings, the weightiest first; ``summary`` is the manifest's."""
    findings = [
        *_from_groups(review.groups),
        *_from_index(summary),
        *_from_shortcuts(review.shortcuts),
        *_from_doubts(review),
        *_from_classes(profile),
        *_from_sizes(profile),
        *_from_curve(review.feasibility),
    ]
    return tuple(sorted(findings, key=lambda finding: -finding.weight))


def _from_index(summary: dict[str, Any]) -> Iterator[Finding]:
    for warning in summary["warnings"]:
        yield Finding(
            weight=2,
            what=f"{escape_markdown(warning[:1].upper() + warning[1:])}.",
            todo="`rootstock corrections list` shows the rows; a later row settles it."
            if FILE_NAME in warning
            else "If that is not what you want, change the folders or the table, or set "
            "`data.layout`.",
        )
    leaks, conflicts = summary["leaks_across_given_splits"], summary["label_conflicts"]
    if leaks:
        yield Finding(
            about="leak",
            weight=3,
            what=f"{len(leaks)} groups of copies are in more than one split, "
            f"such as {code_span(leaks[0][0])} and {code_span(leaks[0][1])}: the test "
            "is easier than reality.",
            todo="Keep each picture in one split: move its copies there, or leave it to the index "
            "to divide the images.",
        )
    if conflicts:
        yield Finding(
            about="conflict",
            weight=3,
            what=f"{len(conflicts)} groups of copies carry different labels, such as "
            f"{code_span(conflicts[0][0])} and {code_span(conflicts[0][1])}.",
            todo="Look at them. Correct the label that is wrong; if the classes differ in a small "
            "detail, such as a scratch, both may be right.",
        )
    elsewhere = {path for group in (*leaks, *conflicts) for path in group}
    copies = sum(
        len(group) - 1 for group in summary["duplicate_groups"] if elsewhere.isdisjoint(group)
    )
    if copies:
        yield Finding(
            about="copies",
            weight=1,
            what=f"{copies} {'more ' if elsewhere else ''}images are copies or near-copies of "
            "others of their class.",
            todo="Nothing has to be done about them: the index keeps copies in one split, unless "
            "they are most of a class.",
        )
    if reasons := describe_reasons(summary):
        yield Finding(
            about="quarantine",
            weight=2,
            what=f"{len(summary['quarantined']) - summary.get('removed', 0)} files are left out "
            f"({reasons}).",
            todo="`rootstock check` lists them; repair or delete them.",
        )
    if corrections := describe_corrections(summary):
        yield Finding(
            weight=1,
            what=f"{corrections.replace(FILE_NAME, f'`{FILE_NAME}`')}.",
            todo="`rootstock corrections list` shows them; a later row undoes one.",
        )


def _from_shortcuts(shortcuts: Sequence[Shortcut]) -> Iterator[Finding]:
    for shortcut in shortcuts[:2]:
        example = f" ({escape_markdown(shortcut.example)})" if shortcut.example else ""
        yield Finding(
            weight=3 if shortcut.accuracy - shortcut.chance > 0.25 else 2,
            what=f"The {shortcut.fact} alone tells {_which_class(shortcut)} with "
            f"{shortcut.accuracy:.0%} balanced accuracy, where chance is "
            f"{shortcut.chance:.0%}{example}.",
            todo="If that is how the images were collected and not what they show, collect each "
            "class from the same sources, or expect less accuracy in use than in the test.",
        )


def _which_class(shortcut: Shortcut) -> str:
    return f"{code_span(shortcut.label)} from all other classes" if shortcut.label else "the class"


def _from_groups(groups: SuspectedGroups | None) -> Iterator[Finding]:
    if groups is None:
        return
    known = f"by their names (`{groups.pattern}`)" if groups.pattern else "as they look"
    what = (
        f"{groups.n_divided} of {groups.n_groups} groups of images that belong together, {known}, "
        f"are divided between the splits, such as {code_span(groups.example[0])} and "
        f"{code_span(groups.example[1])}: the test shows what training has nearly seen."
    )
    divided, whole, weight = groups.score_divided, groups.score_whole, 2
    if divided is not None and whole is not None:
        what += (
            f" A head on these features is at {divided:.1%} when groups are divided, and at "
            f"{whole:.1%} when they are kept whole."
        )
        weight = 3 if divided - whole >= MIN_GROUP_LOSS else 2
    if groups.splits_given:
        todo = "Give splits that keep each group whole."
    elif groups.pattern:
        todo = (
            f"If the images of a group show the same thing, set `data.group: {groups.pattern}`, so "
            "that the splits keep it whole."
        )
    else:
        todo = (
            "If they do show the same thing, set `data.group` to a pattern of their names, or give "
            "splits that keep them together."
        )
    yield Finding(weight=weight, what=what, todo=todo)


def _from_doubts(review: DataReview) -> Iterator[Finding]:
    suspects, outliers, bursts = review.suspects, review.outliers, review.bursts
    if suspects:
        first = suspects[0]
        more = " or more" if len(suspects) == MAX_SUSPECTS else ""
        verb = "looks" if len(suspects) == 1 else "look"
        yield Finding(
            about="doubt",
            weight=2 if len(suspects) > 0.02 * review.n_reviewed else 1,
            what=f"{len(suspects)}{more} of {review.n_reviewed:,} labels {verb} wrong, starting "
            f"with {code_span(first.path)} (labelled {code_span(first.label)}, looks like "
            f"{code_span(first.suggested)}).",
            todo="Review the doubtful labels: wrong labels hurt the model.",
        )
    if outliers:
        yield Finding(
            about="outlier",
            weight=1,
            what=f"Unlike all others: {count(len(outliers), 'image')}, starting with "
            f"{code_span(outliers[0].path)}.",
            todo="Check whether they belong to the data set.",
        )
    divided = [burst for burst in bursts if len(burst.splits) > 1]
    if bursts and not review.groups:
        yield Finding(
            about="burst",
            weight=2 if divided else 1,
            what=f"Consecutive files that look nearly the same: {count(len(bursts), 'burst')} "
            f"(longest: {len(bursts[0].paths)} files); {len(divided)} divided between splits.",
            todo="If they are frames of one scene, give splits that keep scenes together.",
        )


def _from_classes(profile: DatasetProfile) -> Iterator[Finding]:
    scarce = [name for name, n in profile.train_per_class.items() if n < MIN_CLASS_IMAGES]
    if scarce:
        names = ", ".join(map(escape_markdown, scarce[:5])) + (" ..." if len(scarce) > 5 else "")
        yield Finding(
            about="scarce",
            weight=2,
            what=f"{len(scarce)} of {len(profile.classes)} classes have under {MIN_CLASS_IMAGES} "
            f"training images ({names}).",
            todo="Collect more of them first: nothing else helps as much.",
        )
    if profile.imbalance >= MIN_IMBALANCE_RATIO:
        yield Finding(
            weight=2,
            what=f"The largest class has {profile.imbalance:.0f} times the images of the smallest.",
            todo="Set train.class_weight: logit_adjusted if rare classes matter as much, and judge "
            "by balanced accuracy (registry.gate.metric).",
        )


def _from_sizes(profile: DatasetProfile) -> Iterator[Finding]:
    median = profile.short_side_quantiles[2]
    if median < MIN_SIDE_PIXELS:
        yield Finding(
            about="smallest",
            weight=1,
            what=f"The images are tiny: {median} pixels on the median short side.",
            todo="They are enlarged to what the backbone expects; larger originals would help.",
        )
    if median > MAX_SIDE_PIXELS:
        yield Finding(
            about="largest",
            weight=1,
            what=f"The images are huge: {median} pixels on the median short side.",
            todo="They are reduced to the backbone's input; where small details decide, crop "
            "them out first.",
        )


def _from_curve(feasibility: Feasibility | None) -> Iterator[Finding]:
    if feasibility is None:
        return
    now, twice = feasibility.measured[-1], feasibility.extrapolated[0]
    gain = 100 * (twice.accuracy - now.accuracy)
    yield Finding(
        weight=2 if gain >= 2 else 1,
        what=f"A head on these features is at {feasibility.score_name} {now.accuracy:.3f}; with "
        f"twice the images at about {twice.accuracy:.3f} ({gain:+.1f} points), and hardly ever "
        f"above {feasibility.ceiling:.3f}.",
        todo="More images are worth collecting."
        if gain >= 2
        else "More images alone will change little; fine-tuning or a larger backbone may.",
    )
