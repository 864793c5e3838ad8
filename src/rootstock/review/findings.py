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
"""Ratio of the largest to the smallest class above which the loss should be balanced."""
MIN_GROUP_LOSS = 0.02
"""Loss of a head with whole groups above which the test score is far too high."""
MIN_CLASS_IMAGES = 20
"""With fewer training images, the test accuracy of a class is mostly chance."""
MIN_SIDE_PIXELS, MAX_SIDE_PIXELS = 48, 2000
"""Median short side in pixels."""


def gather_findings(
    review: DataReview, profile: DatasetProfile, summary: dict[str, Any]
) -> tuple[Finding, ...]:
    """Return all findings, the most important first; ``summary`` is the manifest's."""
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
            todo="Run `rootstock corrections list` to see the rows. A later row decides."
            if FILE_NAME in warning
            else "If that is not what you want, change the folders or the table, or set "
            "`data.layout`.",
        )
    leaks, conflicts = summary["leaks_across_given_splits"], summary["label_conflicts"]
    if leaks:
        yield Finding(
            about="leak",
            weight=3,
            what=f"{count(len(leaks), 'group')} of copies {'are' if len(leaks) > 1 else 'is'} in "
            f"more than one split, such as {code_span(leaks[0][0])} and {code_span(leaks[0][1])}. "
            "This makes the test too easy.",
            todo="Keep all copies of an image in one split: move the files, or let Rootstock split "
            "the images.",
        )
    if conflicts:
        yield Finding(
            about="conflict",
            weight=3,
            what=f"{count(len(conflicts), 'group')} of copies "
            f"{'have' if len(conflicts) > 1 else 'has'} different labels, such as "
            f"{code_span(conflicts[0][0])} and {code_span(conflicts[0][1])}.",
            todo="Look at them and correct the wrong labels. If the classes differ in a small "
            "detail, such as a scratch, both labels may be right.",
        )
    elsewhere = {path for group in (*leaks, *conflicts) for path in group}
    copies = sum(
        len(group) - 1 for group in summary["duplicate_groups"] if elsewhere.isdisjoint(group)
    )
    if copies:
        yield Finding(
            about="copies",
            weight=1,
            what=f"{count(copies, 'more image' if elsewhere else 'image')} "
            f"{'are copies or near-copies' if copies > 1 else 'is a copy or near-copy'} of "
            "another image of the same class.",
            todo="You need not do anything: copies stay in one split, unless "
            "most of a class are copies.",
        )
    left_out = len(summary["quarantined"]) - summary.get("removed", 0)
    if reasons := describe_reasons(summary):
        yield Finding(
            about="quarantine",
            weight=2,
            what=f"{count(left_out, 'file')} left out ({reasons}).",
            todo="Run `rootstock check` to list them, then repair or delete them.",
        )
    if corrections := describe_corrections(summary):
        yield Finding(
            weight=1,
            what=f"{corrections.replace(FILE_NAME, f'`{FILE_NAME}`')}.",
            todo="Run `rootstock corrections list` to see them. A later row undoes an earlier one.",
        )


def _from_shortcuts(shortcuts: Sequence[Shortcut]) -> Iterator[Finding]:
    for shortcut in shortcuts[:2]:
        example = f" ({escape_markdown(shortcut.example)})" if shortcut.example else ""
        yield Finding(
            weight=3 if shortcut.accuracy - shortcut.chance > 0.25 else 2,
            what=f"The {shortcut.fact} predicts {_which_class(shortcut)} with "
            f"{shortcut.accuracy:.0%} balanced accuracy (chance: "
            f"{shortcut.chance:.0%}){example}.",
            todo="If this comes from how the images were collected, collect every "
            "class from the same sources, or expect less accuracy in use than in the test.",
        )


def _which_class(shortcut: Shortcut) -> str:
    return f"{code_span(shortcut.label)} versus the rest" if shortcut.label else "the class"


def _from_groups(groups: SuspectedGroups | None) -> Iterator[Finding]:
    if groups is None:
        return
    known = f"by their names (`{groups.pattern}`)" if groups.pattern else "by their looks"
    what = (
        f"{groups.n_divided} of {groups.n_groups} groups of images that seem to belong together, "
        f"{known}, are divided between splits, such as {code_span(groups.example[0])} and "
        f"{code_span(groups.example[1])}. The test then contains images much like training images."
    )
    divided, whole, weight = groups.score_divided, groups.score_whole, 2
    if divided is not None and whole is not None:
        what += (
            f" A head on these features scores {divided:.1%} with divided groups and "
            f"{whole:.1%} with whole groups."
        )
        weight = 3 if divided - whole >= MIN_GROUP_LOSS else 2
    if groups.splits_given:
        todo = "Provide splits that keep each group whole."
    elif groups.pattern:
        todo = (
            f"If the images of a group show the same thing, set `data.group: {groups.pattern}` to "
            "keep groups in one split."
        )
    else:
        todo = (
            "If they show the same thing, set `data.group` to a pattern of their names, or provide "
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
            what=f"{count(len(outliers), 'image')} "
            f"{'look' if len(outliers) > 1 else 'looks'} unlike all others, starting with "
            f"{code_span(outliers[0].path)}.",
            todo="Check whether they belong in the data set.",
        )
    divided = [burst for burst in bursts if len(burst.splits) > 1]
    if bursts and not review.groups:
        yield Finding(
            about="burst",
            weight=2 if divided else 1,
            what=f"Consecutive files that look nearly the same: {count(len(bursts), 'burst')} "
            f"(longest: {len(bursts[0].paths)} files); {len(divided)} divided between splits.",
            todo="If they are frames of one scene, provide splits that keep scenes together.",
        )


def _from_classes(profile: DatasetProfile) -> Iterator[Finding]:
    scarce = [name for name, n in profile.train_per_class.items() if n < MIN_CLASS_IMAGES]
    if scarce:
        names = ", ".join(map(escape_markdown, scarce[:5])) + (" ..." if len(scarce) > 5 else "")
        yield Finding(
            about="scarce",
            weight=2,
            what=f"{len(scarce)} of {len(profile.classes)} classes have fewer than "
            f"{MIN_CLASS_IMAGES} training images ({names}).",
            todo="Collect more images of these classes first. Nothing else helps as much.",
        )
    if profile.imbalance >= MIN_IMBALANCE_RATIO:
        yield Finding(
            weight=2,
            what=f"The largest class has {profile.imbalance:.0f} times the images of the smallest.",
            todo="If rare classes matter as much, set `train.class_weight: logit_adjusted` and "
            "compare models by balanced accuracy (`registry.gate.metric`).",
        )


def _from_sizes(profile: DatasetProfile) -> Iterator[Finding]:
    median = profile.short_side_quantiles[2]
    if median < MIN_SIDE_PIXELS:
        yield Finding(
            about="smallest",
            weight=1,
            what=f"The images are tiny: the median short side is {median} pixels.",
            todo="Rootstock enlarges them for the backbone; larger originals would help.",
        )
    if median > MAX_SIDE_PIXELS:
        yield Finding(
            about="largest",
            weight=1,
            what=f"The images are huge: the median short side is {median} pixels.",
            todo="Rootstock shrinks them for the backbone. If small details matter, crop the "
            "images first.",
        )


def _from_curve(feasibility: Feasibility | None) -> Iterator[Finding]:
    if feasibility is None:
        return
    now, twice = feasibility.measured[-1], feasibility.extrapolated[0]
    gain = 100 * (twice.accuracy - now.accuracy)
    yield Finding(
        weight=2 if gain >= 2 else 1,
        what=f"A head on these features reaches {feasibility.score_name} {now.accuracy:.3f}. With "
        f"twice the images, expect about {twice.accuracy:.3f} ({gain:+z.1f} points), and hardly "
        f"ever more than {feasibility.ceiling:.3f}.",
        todo="Collecting more images is worthwhile."
        if gain >= 2
        else "More images will change little; fine-tuning or a larger backbone may help more.",
    )
