"""The model card: one page for people who use a model and did not make it.

After Mitchell et al., "Model cards for model reporting", 2019.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rootstock.data.manifest import Manifest
from rootstock.metrics import wilson_interval
from rootstock.model.lineage import open_ends

WORST = 5
"""Classes that are shown as the weakest."""
FEW = 20
"""Test images of a class below which its recall says little."""


def render_card(
    *,
    name: str,
    manifest: Manifest,
    facts: Mapping[str, Any],
    plan: Mapping[str, Any],
    metrics: Mapping[str, float],
    per_class: Sequence[tuple[str, float, int]],
    licence: str,
    source: str,
) -> str:
    """The card as Markdown.

    ``facts`` is what bundle.json holds, ``plan`` what plan.json holds; ``per_class`` has
    (class, recall, test images).
    """
    card, lineage = facts["card"], facts["lineage"]
    summary = manifest.summary()
    splits = {split: len(manifest.rows(split)) for split in ("train", "val", "test")}
    reasons = [one for one in plan["reasons"] if one["choice"] in ("strategy", "backbone", "tap")]
    return "\n".join(
        [
            f"# Model card: {name}",
            "",
            f"Tells {len(facts['classes'])} classes of images apart, one label an image. "
            f"Architecture `{card['architecture']}`, strategy `{facts['strategy']}`, input "
            f"{facts['preprocess']['input_size']} pixels.",
            "",
            "## How good it is",
            "",
            f"- **{metrics['accuracy']:.1%} of {metrics['n_test']} test images are right** "
            f"(95 % interval {metrics['accuracy_low']:.1%} to {metrics['accuracy_high']:.1%}, "
            f"Wilson); balanced accuracy {metrics['balanced_accuracy']:.1%}, "
            f"macro F1 {metrics['macro_f1']:.3f}.",
            f"- Calibration: a stated probability is on average {100 * metrics['ece']:.1f} points "
            "away from how often the answer is right.",
            *_honesty(metrics, facts),
            "",
            "Weakest classes:",
            "",
            "| class | right | 95 % interval | test images |",
            "| --- | --- | --- | --- |",
            *_weakest(per_class),
            "",
            "## What it learnt from",
            "",
            f"- {summary['n_usable']} images: {splits['train']} to train, {splits['val']} to "
            f"validate, {splits['test']} to test; {len(summary['quarantined'])} of "
            f"{summary['n_images']} files were quarantined.",
            f"- Classes: {_classes(summary['classes'])}",
            f"- Source of the images: {source}. Licence of the images: {licence}.",
            f"- Backbone `{card['name'] or card['architecture']}`, pretrained on "
            f"{card['pretrained_on']}; licence of its weights: {card['license']}"
            f"{'; from ' + str(card['source']) if card.get('source') else ''}.",
            "",
            "## How it was made, and why so",
            "",
            # What follows in brackets is the path of the weights on the machine that trained.
            *(f"- {one['choice']}: {one['value'].split(' (')[0]}. {one['why']}" for one in reasons),
            *_departure(planned=plan["strategy"], strategy=facts["strategy"]),
            "",
            "## What it is for, and what not",
            "",
            "- For images like those that it learnt from, taken the same way, of these classes.",
            f"- {_unknown(facts)}",
            "- Accuracy on images of another origin is not known: measure it with "
            "`rootstock evaluate`.",
            "- Nothing was measured of how it treats groups of people. Do not let it alone decide "
            "about persons.",
            "",
            "## How to make it again",
            "",
            f"- `rootstock reproduce VERSION` tells the commands. Commit "
            f"`{lineage.get('git_commit') or 'not recorded'}`, data `{lineage['data_hash'][:12]}`, "
            f"plan `{lineage.get('plan_hash', '')[:12]}`, weights "
            f"`{lineage.get('weights_sha256', '')[:12]}`, seed {lineage.get('seed')}.",
            *(f"- Missing: {one}." for one in open_ends(lineage)),
            "",
        ]
    )


def _departure(*, planned: str, strategy: str) -> list[str]:
    """Return a line if training kept something else than the plan's strategy made."""
    if strategy == planned:
        return []
    return [
        f"- Fine-tuning by `{planned}` did not improve the head that it began from, so that head "
        f"is the model: its strategy is `{strategy}`."
    ]


def _weakest(per_class: Sequence[tuple[str, float, int]]) -> list[str]:
    lines = []
    for label, recall, images in sorted(per_class, key=lambda one: (one[1], one[0]))[:WORST]:
        if not images:
            lines.append(f"| {label} | not measured | | 0 |")
            continue
        low, high = wilson_interval(round(recall * images), images)
        few = ", few" if images < FEW else ""
        lines.append(f"| {label} | {recall:.1%} | {low:.1%} to {high:.1%} | {images}{few} |")
    return lines


def _honesty(metrics: Mapping[str, float], facts: Mapping[str, Any]) -> list[str]:
    if "coverage_95" not in metrics:
        return ["- It keeps no reference, and cannot say what it does not know."]
    return [
        f"- It called {metrics['unknown_share']:.1%} of the test images unknown; "
        f"{facts['unknown_share']:.1%} of images like them were allowed for. Its 95 % "
        f"prediction sets hold the right class of {metrics['coverage_95']:.1%}, with "
        f"{metrics['set_size_95']:.1f} classes on average.",
    ]


def _unknown(facts: Mapping[str, Any]) -> str:
    if facts["unknown_share"]:
        return (
            "An image of none of the classes gets one of their labels all the same; `unknown` is "
            "said of most images that are unlike all training images, not of every one."
        )
    return "An image of none of the classes gets one of their labels, and no warning."


def _classes(counts: Mapping[str, Mapping[str, int]]) -> str:
    shown = [f"{label} ({sum(splits.values())})" for label, splits in list(counts.items())[:20]]
    more = f" and {len(counts) - 20} more" if len(counts) > 20 else ""
    return ", ".join(shown) + more + "."
