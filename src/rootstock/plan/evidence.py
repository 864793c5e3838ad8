"""Weigh the table's strategy against the probes.

The table is the prior. Measurements on the features overrule it only beyond their noise. If
neither is certain and the possible gain is worth it, two strategies are left for a race. This
module reads no files and needs no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from rootstock.config.choices import Shares, SizeClass, Strategy
from rootstock.metrics import standard_error
from rootstock.plan import rules
from rootstock.plan.pins import AUTO
from rootstock.plan.transfer_plan import Evidence

MIN_GAIN = 0.01
"""A smaller gain, below one point of accuracy, is not worth the minutes of fine-tuning.

A judgement, not fitted to any set; checked on the six sets of `REGRET_SETS`."""
MIN_RACE_IMAGES = 50
"""With fewer training images a race would measure chance.

A judgement, not fitted to any set; not checked, since every available set has more images."""
MIN_RACE_IMAGES_PER_CLASS = 4
"""The same limit for the median class; not fitted and not checked either."""


def judge(
    *,
    size: SizeClass,
    similar: bool,
    n_train: int,
    median_per_class: float,
    taps: Sequence[str],
    probes: Mapping[str, float],
    n_probed: int,
    shares: Shares,
) -> Evidence:
    """Weigh the table's strategy against the probes.

    ``probes`` maps a tap to its cross-validated accuracy on ``n_probed`` images; ``shares`` are the
    shares of a probe's errors that fine-tuning should remove.
    """
    ruled = rules.choose_strategy(size, similar=similar)

    def conclude(choice: Strategy, why: str, *, rival: Strategy | None = None) -> Evidence:
        contest = (choice, rival) if rival else ()
        return Evidence(ruled=ruled, choice=choice, contest=contest, why=why)

    if taps[-1] not in probes:
        if rules.is_finetune(ruled):
            return conclude(ruled, "No probe was possible, so the table decides.")
        return conclude("linear_probe", "No probe was possible, so the head reads the last layer.")
    head, head_why = _better_head(ruled, taps, probes, n_probed)
    accuracy = probes[taps[-1]] if head == "linear_probe" else max(probes[t] for t in taps[:-1])
    noise = standard_error(accuracy, n_probed)
    low, high = (share * (1.0 - accuracy) for share in shares[size])
    measured = f"a head on frozen features reaches {accuracy:.3f} (± {noise:.3f}) in probes"
    gain = f"Fine-tuning should change this by {100 * low:+z.1f} to {100 * high:+z.1f} points"
    tuned = ruled if rules.is_finetune(ruled) else rules.tuned_rival(similar=similar)
    if high < max(MIN_GAIN, noise / 2):
        return conclude(head, f"{head_why}{measured}. {gain}, which is not worth its cost.")
    if n_train < MIN_RACE_IMAGES or median_per_class < MIN_RACE_IMAGES_PER_CLASS:
        return conclude(
            ruled if rules.is_finetune(ruled) else head,
            f"{head_why}{measured}. There are too few images for a race.",
        )
    if not rules.is_finetune(ruled):
        return conclude(head, f"{head_why}{measured}. {gain}; only a race can decide.", rival=tuned)
    if low <= noise:
        return conclude(tuned, f"{measured}. {gain}; only a race can decide.", rival=head)
    # Two ways of fine-tuning do not race: on a part of the images the one that changes less looks
    # better than it is on all images (measured: 2.6 points worse on CIFAR-10).
    return conclude(
        tuned, f"{measured}. {gain}, more than the noise, so the table's choice is kept."
    )


def contest_to_race(
    evidence: Evidence, *, too_slow: Collection[Strategy], allowed: bool, pinned: str
) -> tuple[Strategy, ...]:
    """Return the two strategies that a race decides between; empty if there is no race.

    ``pinned`` is the user's strategy, or `AUTO`. If a contender is ``too_slow``, there is no race:
    it would take minutes, and could prefer a strategy that the budget forbids.
    """
    if not allowed or pinned != AUTO or not set(evidence.contest).isdisjoint(too_slow):
        return ()
    return evidence.contest


def name_rivals(evidence: Evidence, *, similar: bool) -> tuple[Strategy, Strategy]:
    """Return the strategies that a race would decide between, whether or not it is worth it."""
    if evidence.contest:
        first, second = evidence.contest
        return first, second
    if rules.is_finetune(evidence.choice):
        return evidence.choice, "linear_probe"
    ruled = evidence.ruled
    return evidence.choice, ruled if rules.is_finetune(ruled) else rules.tuned_rival(
        similar=similar
    )


def _better_head(
    ruled: Strategy, taps: Sequence[str], probes: Mapping[str, float], n_probed: int
) -> tuple[Strategy, str]:
    """Return the head that the table prefers, or the probes beyond the noise."""
    earlier = {tap: probes[tap] for tap in taps[:-1] if tap in probes}
    if not earlier:
        return "linear_probe", ""
    best = max(earlier, key=lambda tap: earlier[tap])
    lead = earlier[best] - probes[taps[-1]]
    noise = standard_error(max(earlier[best], probes[taps[-1]]), n_probed)
    prior: Strategy = "early_features" if ruled == "early_features" else "linear_probe"
    measured: Strategy = "early_features" if lead > 0 else "linear_probe"
    side = "above" if lead > 0 else "below"
    text = f"the probe of `{best}` is {100 * abs(lead):.1f} points {side} that of `{taps[-1]}`"
    if measured == prior:
        return prior, f"{text}; "
    if abs(lead) <= noise:
        return prior, f"{text}, within the noise of {100 * noise:.1f} points; "
    noise_text = f"more than the noise of {100 * noise:.1f} points, which overrules the table"
    return measured, f"{text}, {noise_text}; "
