"""The way to compute a training step: the fastest by a clear lead, and only if it fits."""

import pytest
import torch

from rootstock.training.compute import (
    Compute,
    choose_compute,
    fitting_compute,
    possible_ways,
    usual_compute,
)

PLAIN = Compute(device="cpu", channels_last=False, bfloat16=False)
LAST = Compute(device="cpu", channels_last=True, bfloat16=False)
ROUNDED = Compute(device="cpu", channels_last=True, bfloat16=True)
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("rates", "chosen"),
    [
        ((100.0, 127.0, 0.0), LAST),
        ((100.0, 96.0, 0.0), PLAIN),
        ((100.0, 104.0, 0.0), PLAIN),  # within the noise of a measurement
        ((100.0, 127.0, 140.0), LAST),  # rounding has to win by a fifth
        ((100.0, 127.0, 200.0), ROUNDED),
    ],
)
def test_the_way_with_a_clear_lead_is_taken(rates, chosen):
    ways = dict(zip((PLAIN, LAST, ROUNDED), rates, strict=True))
    assert choose_compute(ways) == chosen


def test_bfloat16_is_measured_only_where_processor_has_it(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    assert any(way.bfloat16 for way in possible_ways(CPU))
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False, "cpu_name": "x"}
    )
    assert not any(way.bfloat16 for way in possible_ways(CPU))


def test_measurement_of_other_device_is_not_used():
    measured = Compute(device="cuda", channels_last=True, bfloat16=True)
    assert fitting_compute(CPU, measured) == usual_compute(CPU) == PLAIN
    assert fitting_compute(CPU, LAST) == LAST
    assert fitting_compute(CPU, None) == PLAIN
