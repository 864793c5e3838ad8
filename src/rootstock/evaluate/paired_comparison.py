"""Compare two models on the same images: which is better, how certainly, and on what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rootstock.metrics import newcombe_interval, wilson_interval
from rootstock.system.escape import escape_markdown, markdown_table

MAX_SHOWN_CHANGES = 60
"""Maximum differing images listed."""


@dataclass(frozen=True)
class Contender:
    """One model: its name, its labels str[N], and its milliseconds per image."""

    name: str
    predicted: np.ndarray
    milliseconds: float
    note: str = ""


@dataclass(frozen=True)
class ClassChange:
    """Recall of one class before and after."""

    label: str
    images: int
    before: float
    after: float

    @property
    def change(self) -> float:
        return self.after - self.before


@dataclass(frozen=True)
class PairedComparison:
    """``first`` (usually the champion) and ``second`` on images of ``labels`` str[N]."""

    first: Contender
    second: Contender
    labels: np.ndarray
    paths: Sequence[str]

    @property
    def n(self) -> int:
        return len(self.labels)

    @cached_property
    def right(self) -> tuple[np.ndarray, np.ndarray]:
        """Return bool[N] for each model: its label is right."""
        return self.first.predicted == self.labels, self.second.predicted == self.labels

    @property
    def accuracies(self) -> tuple[float, float]:
        return float(self.right[0].mean()), float(self.right[1].mean())

    @cached_property
    def table(self) -> tuple[int, int, int, int]:
        """Count the images that both, only the second, only the first, and neither got right."""
        one, two = self.right
        counts = (one & two, ~one & two, one & ~two, ~one & ~two)
        both, second, first, neither = (int(np.sum(count)) for count in counts)
        return both, second, first, neither

    @property
    def gain(self) -> float:
        """Return the second model's accuracy minus the first's."""
        return self.accuracies[1] - self.accuracies[0]

    @cached_property
    def gain_interval(self) -> tuple[float, float]:
        """Return the 95 % interval of `gain`."""
        return newcombe_interval(*self.table)

    @cached_property
    def p_value(self) -> float:
        """Return the probability that chance divides the differing images as unevenly.

        McNemar's exact test: McNemar (1947), with the exact binomial instead of his approximation.
        """
        from scipy.stats import binomtest

        _, second, first, _ = self.table
        return float(binomtest(first, first + second).pvalue) if first + second else 1.0

    @cached_property
    def classes(self) -> list[ClassChange]:
        """Return the classes that have test images, the largest change first."""
        changes = []
        for label in sorted(set(self.labels.tolist())):
            own = self.labels == label
            before, after = (float(right[own].mean()) for right in self.right)
            changes.append(ClassChange(label, int(own.sum()), before, after))
        return sorted(changes, key=lambda one: (-abs(one.change), one.label))

    def differing(self) -> list[tuple[str, str, str, str]]:
        """Return (path, actual, first, second) of images with two answers, losses first."""
        one, two = self.right
        rows = np.flatnonzero(self.first.predicted != self.second.predicted)
        lost, won = one[rows] & ~two[rows], ~one[rows] & two[rows]
        order = np.argsort(np.where(lost, 0, np.where(won, 1, 2)), kind="stable")
        return [
            (
                self.paths[i],
                str(self.labels[i]),
                str(self.first.predicted[i]),
                str(self.second.predicted[i]),
            )
            for i in rows[order]
        ]

    def to_dict(self) -> dict[str, object]:
        """Return the numbers for JSON."""
        both, second, first, neither = self.table
        return {
            "first": self.first.name,
            "second": self.second.name,
            "n": self.n,
            "accuracy": [round(value, 6) for value in self.accuracies],
            "gain": round(self.gain, 6),
            "gain_interval": [round(value, 6) for value in self.gain_interval],
            "p_value": round(self.p_value, 6),
            "right": {"both": both, "first": first, "second": second, "neither": neither},
            "milliseconds": [round(one.milliseconds, 3) for one in (self.first, self.second)],
            "classes": [
                {"label": c.label, "images": c.images, "recall": [c.before, c.after]}
                for c in self.classes
            ],
        }


def render_comparison(comparison: PairedComparison, *, pictures: Sequence[str]) -> str:
    """Return the comparison as Markdown; ``pictures`` are paths relative to the page."""
    first, second = comparison.first, comparison.second
    accuracy, other_accuracy = comparison.accuracies
    low, high = comparison.gain_interval
    both, second_only, first_only, neither = comparison.table
    name, other = (escape_markdown(one.name) for one in (first, second))
    intervals = [wilson_interval(int(right.sum()), comparison.n) for right in comparison.right]
    lines = [
        f"# {name} against {other}",
        "",
        f"**{_verdict(comparison)}**",
        "",
        f"On the same {comparison.n} test images, {other} is right on {other_accuracy:.1%} and "
        f"{name} on {accuracy:.1%}: a change of {100 * comparison.gain:+z.1f} points (95 % "
        f"interval {100 * low:+z.1f} to {100 * high:+z.1f}, Newcombe 1998, paired). McNemar's "
        f"exact test: p = {comparison.p_value:.2g}.",
        "",
        f"| | {name} | {other} |",
        "| --- | --- | --- |",
        f"| right | {accuracy:.2%} | {other_accuracy:.2%} |",
        "| 95 % interval | " + " | ".join(f"{a:.1%} to {b:.1%}" for a, b in intervals) + " |",
        f"| right when the other is wrong | {first_only} | {second_only} |",
        f"| milliseconds per image on this machine | {first.milliseconds:.1f} | "
        f"{second.milliseconds:.1f} |",
        "",
        f"Both are right on {both} images, and both are wrong on {neither}.",
        "",
        *(f"{escape_markdown(one.name)}: {one.note}\n" for one in (first, second) if one.note),
        "## Classes",
        "",
        *_class_lines(comparison),
        "",
        "## Images with different answers",
        "",
    ]
    differing = comparison.differing()
    if not differing:
        lines.append("None.")
    else:
        lines += markdown_table(
            ("image", "is", first.name, second.name), differing[:MAX_SHOWN_CHANGES]
        )
        if len(differing) > MAX_SHOWN_CHANGES:
            lines.append(f"\n{len(differing) - MAX_SHOWN_CHANGES} more images are not listed.")
    lines += [f"\n![]({picture})" for picture in pictures]
    return "\n".join(lines) + "\n"


def _verdict(comparison: PairedComparison) -> str:
    low, high = comparison.gain_interval
    if low > 0:
        return f"{escape_markdown(comparison.second.name)} is better."
    if high < 0:
        return f"{escape_markdown(comparison.second.name)} is worse."
    width = 100 * (high - low) / 2
    return (
        "These images cannot show which model is better: they can show differences of at least "
        f"about {width:.1f} points."
    )


def _class_lines(comparison: PairedComparison) -> list[str]:
    changed = [one for one in comparison.classes if one.change]
    same = len(comparison.classes) - len(changed)
    if not changed:
        return ["Every class has the same share of right answers in both models."]
    lines = [
        *markdown_table(
            ("class", "test images", comparison.first.name, comparison.second.name, "change"),
            [
                (
                    one.label,
                    one.images,
                    f"{one.before:.1%}",
                    f"{one.after:.1%}",
                    f"{100 * one.change:+z.1f}",
                )
                for one in changed[:MAX_SHOWN_CHANGES]
            ],
        ),
    ]
    if len(changed) > MAX_SHOWN_CHANGES:
        lines.append(f"\n{len(changed) - MAX_SHOWN_CHANGES} more changed classes are not listed.")
    return [*lines, f"\nUnchanged classes: {same}."] if same else lines
