"""Evidence against the table: probes in, the strategies that stand and those in doubt out.

The table is the prior. What was measured on the features overrules it only beyond the noise of
the measurement; where neither is sure and the stakes are worth it, two contenders are left for a
race. Numbers in, choices out; no torch, no files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rootstock.assess.size import SizeClass
from rootstock.metrics import standard_error
from rootstock.plan import rules
from rootstock.plan.rules import Strategy

STAKES = 0.01
"""A gain below one point of accuracy is not worth the minutes of fine-tuning."""
RACE_FROM = 50
"""Under so many training images a race would measure chance."""
RACE_PER_CLASS = 4
"""The same for the median class."""


@dataclass(frozen=True)
class Judgement:
    """``choice`` stands unless ``contest`` names two strategies, whose race then decides."""

    ruled: Strategy
    choice: Strategy
    contest: tuple[Strategy, ...]
    why: str


def judge(
    *,
    size: SizeClass,
    similar: bool,
    n_train: int,
    median_per_class: float,
    taps: Sequence[str],
    probes: Mapping[str, float],
    n_probed: int,
    shares: rules.Shares,
) -> Judgement:
    """Weigh the table's cell against the probes.

    ``probes`` maps a tap to its cross-validated accuracy on ``n_probed`` images; ``shares`` are
    what fine-tuning is expected to remove of a probe's errors.
    """
    ruled = rules.choose_strategy(size, similar=similar)
    if taps[-1] not in probes:
        return Judgement(ruled, ruled, (), "nothing could be probed, so the table decides.")
    head, head_why = _better_head(ruled, taps, probes, n_probed)
    accuracy = probes[taps[-1]] if head == "linear_probe" else max(probes[t] for t in taps[:-1])
    noise = standard_error(accuracy, n_probed)
    low, high = (share * (1.0 - accuracy) for share in shares[size])
    measured = f"a head on frozen features reaches {accuracy:.3f} (± {noise:.3f}) by probes"
    gain = f"fine-tuning is expected to add {100 * low:+.1f} to {100 * high:+.1f} points"
    tuned = ruled if rules.is_finetune(ruled) else rules.tuned_rival(similar=similar)
    if high < max(STAKES, noise / 2):
        return Judgement(ruled, head, (), f"{head_why}{measured}; {gain}: not worth its cost.")
    if n_train < RACE_FROM or median_per_class < RACE_PER_CLASS:
        kept = head if not rules.is_finetune(ruled) else ruled
        return Judgement(
            ruled, kept, (), f"{head_why}{measured}; too few images to race anything against it."
        )
    if not rules.is_finetune(ruled):
        return Judgement(ruled, head, (head, tuned), f"{head_why}{measured}; {gain}: a race tells.")
    if low <= noise:
        return Judgement(ruled, tuned, (tuned, head), f"{measured}; {gain}: a race tells.")
    # Two ways of fine-tuning do not race: on a part of the images the one that moves less looks
    # better than it is on all of them (measured: 2.6 points worse on CIFAR-10).
    return Judgement(ruled, tuned, (), f"{measured}; {gain}: beyond the noise, the table stands.")


def _better_head(
    ruled: Strategy, taps: Sequence[str], probes: Mapping[str, float], n_probed: int
) -> tuple[Strategy, str]:
    """The head that the table or, beyond the noise, the probes prefer."""
    earlier = {tap: probes[tap] for tap in taps[:-1] if tap in probes}
    if not earlier:
        return "linear_probe", ""
    best = max(earlier, key=lambda tap: earlier[tap])
    lead = earlier[best] - probes[taps[-1]]
    noise = standard_error(max(earlier[best], probes[taps[-1]]), n_probed)
    prior: Strategy = "early_features" if ruled == "early_features" else "linear_probe"
    measured: Strategy = "early_features" if lead > 0 else "linear_probe"
    text = f"`{best}` probes {100 * lead:+.1f} points against `{taps[-1]}`"
    if measured == prior:
        return prior, f"{text}; "
    if abs(lead) <= noise:
        return prior, f"{text}, within the noise of {100 * noise:.1f}; "
    return measured, f"{text}, beyond the noise of {100 * noise:.1f}, which overrules the table; "
