"""Report how easily a model is fooled: numbers, text, and pictures in a folder."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from rootstock.explain.corruptions import SEVERITIES
from rootstock.explain.fooling import FoolingScores
from rootstock.explain.robustness import TYPICAL_SEVERITY, CorruptionScores, Sample
from rootstock.plots.robustness import plot_curves, plot_examples
from rootstock.system.escape import markdown_table
from rootstock.system.files import write_atomic, write_json
from rootstock.tasks.metric_words import name_metric

CORRUPTIONS_PICTURE, ATTACKS_PICTURE = "corruptions.png", "attacks.png"
EXAMPLES_PICTURE = "adversarial.png"


def describe_robustness(
    metric: str, sample: Sample, corruptions: CorruptionScores, fooling: FoolingScores
) -> dict[str, Any]:
    """Return the numbers of robustness.json."""
    return {
        "metric": metric,
        "n_images": corruptions.n_images,
        "clean": round(corruptions.clean, 6),
        "typical_corruption": round(corruptions.typical, 6),
        "corruptions": corruptions.scores,
        "unknown_share": corruptions.unknown,
        "radii": list(fooling.radii),
        "attacks": fooling.scores,
        "smallest_radius": smallest_radii(sample, fooling),
    }


def smallest_radii(sample: Sample, fooling: FoolingScores) -> dict[str, float | None]:
    """Return the median of the smallest radii by target; None if no radius fooled half of them."""
    by_target: dict[str, list[float]] = defaultdict(list)
    for text, radius in zip(sample.texts, fooling.smallest.tolist(), strict=False):
        if not math.isnan(radius):
            by_target[text].append(radius)
    medians = {text: median(radii) for text, radii in sorted(by_target.items())}
    return {text: None if math.isinf(value) else value for text, value in medians.items()}


def write_robustness(
    metric: str, sample: Sample, corruptions: CorruptionScores, fooling: FoolingScores, out: Path
) -> dict[str, Any]:
    """Write robustness.json, robustness.md and pictures to ``out``; return the numbers."""
    numbers = describe_robustness(metric, sample, corruptions, fooling)
    name = name_metric(metric)
    plot_curves(
        corruptions.scores,
        corruptions.clean,
        out / CORRUPTIONS_PICTURE,
        titles=(
            "Corrupted images",
            f"{corruptions.n_images} images; severity 3 is like a bad camera",
        ),
        ticks=SEVERITIES,
        xlabel="severity",
        ylabel=name,
    )
    plot_curves(
        fooling.scores,
        fooling.clean,
        out / ATTACKS_PICTURE,
        titles=("Adversarial images", "each pixel changes by at most the radius"),
        ticks=fooling.radii,
        xlabel="radius, in pixel levels of 255",
        ylabel=name,
    )
    examples = [(e.before, e.after, e.said, e.says, e.radius) for e in fooling.examples]
    if examples:
        plot_examples(examples, out / EXAMPLES_PICTURE)
    with write_atomic(out / "robustness.md") as temporary:
        temporary.write_text(_render(name, numbers, has_examples=bool(examples)), encoding="utf-8")
    write_json(out / "robustness.json", numbers)
    return numbers


def summarise(numbers: dict[str, Any]) -> str:
    """Return two sentences for people."""
    name = name_metric(numbers["metric"])
    worst = min(
        numbers["corruptions"], key=lambda one: numbers["corruptions"][one][TYPICAL_SEVERITY - 1]
    )
    radius = numbers["radii"][0]
    lowest = numbers["corruptions"][worst][TYPICAL_SEVERITY - 1]
    return (
        f"On images degraded as if by a bad camera (severity {TYPICAL_SEVERITY} of "
        f"{len(SEVERITIES)}, "
        f"{len(numbers['corruptions'])} kinds), the {name} is {numbers['typical_corruption']:.3f} "
        f"instead of {numbers['clean']:.3f}; the worst is {worst} with {lowest:.3f}. An attacker "
        "who "
        f"knows the model and changes each pixel by at most {radius} of 255 levels leaves "
        f"{numbers['attacks']['PGD'][0]:.3f}."
    )


def _render(name: str, numbers: dict[str, Any], *, has_examples: bool) -> str:
    rows = [
        (
            kind,
            *(f"{score:.3f}" for score in scores),
            f"{100 * numbers['unknown_share'][kind][-1]:.0f} %",
        )
        for kind, scores in numbers["corruptions"].items()
    ]
    attacks = [
        (method, *(f"{score:.3f}" for score in scores))
        for method, scores in numbers["attacks"].items()
    ]
    lines = [
        "# Robustness",
        "",
        summarise(numbers),
        "",
        f"## Corrupted images ({name})",
        "",
        f"Without corruption: {numbers['clean']:.3f} on {numbers['n_images']} images. The last "
        "column is the share of images that the model answers with `unknown` at severity 5.",
        "",
        *markdown_table(("corruption", *map(str, SEVERITIES), "unknown at 5"), rows),
        "",
        f"![corrupted images]({CORRUPTIONS_PICTURE})",
        "",
        f"## Adversarial images ({name})",
        "",
        "An attacker who has the model can change an image so that people see no difference but "
        "the "
        "answer changes: in one step (FGSM) or in ten (PGD). The columns are the largest change of "
        "a pixel, in levels of 255.",
        "",
        *markdown_table(("method", *map(str, numbers["radii"])), attacks),
        "",
        f"![adversarial images]({ATTACKS_PICTURE})",
    ]
    if numbers["smallest_radius"]:
        radii = [
            (text, "none of the radii" if radius is None else f"{radius:g}")
            for text, radius in numbers["smallest_radius"].items()
        ]
        lines += ["", "Radius that fools half of a class's images:", ""]
        lines += markdown_table(("class", "radius"), radii)
    if has_examples:
        lines += ["", f"![examples]({EXAMPLES_PICTURE})"]
    return "\n".join(lines) + "\n"
