"""Minutes of training from a machine's rates, by hand; and the moving average."""

import pytest
import torch
from torch import nn

from rootstock.system.files import write_json
from rootstock.training import throughput
from rootstock.training.compute import Compute
from rootstock.training.ema import WeightAverage
from rootstock.training.throughput import Throughput, known_throughput, measure_throughput
from tests.bundles import tiny_backbone

RATES = Throughput(
    machine="box",
    forward_per_second=100.0,
    tuning_forward_per_second=50.0,
    tuning_steps_per_second=10.0,
    tuning=Compute(device="cpu", channels_last=False, bfloat16=False),
    latency_ms=5.0,
)


@pytest.mark.parametrize(
    ("strategy", "seconds"),
    [
        ("linear_probe", 12.0),
        ("early_features", 12.0),
        # 2 rates, 3 epochs: a thousand steps of .1 s, two hundred passes of .02 s
        ("full_finetune", 12.0 + 6 * (100.0 + 4.0)),
        ("probe_then_finetune", 12.0 + 6 * (100.0 + 4.0)),
        # half of the network is frozen: its steps are between the two
        ("partial_finetune", 12.0 + 6 * (60.0 + 4.0)),
    ],
)
def test_minutes_include_extraction_and_all_epochs(strategy, seconds):
    found = RATES.minutes(strategy, n_train=1000, n_val=200, epochs=3, n_rates=2)
    assert found == pytest.approx(seconds / 60)


def test_measurement_names_machine_and_every_rate():
    found = measure_throughput(tiny_backbone(), machine="box", tuning_size=32)
    assert found.machine == "box"
    assert min(found.tuning_forward_per_second, found.tuning_steps_per_second) > 0
    assert min(found.forward_per_second, found.latency_ms) > 0
    assert found.tuning.device == "cpu"


@pytest.mark.parametrize(("factor", "measured"), [(1.0, 0), (100.0, 1), (0.01, 1)])
def test_pace_that_is_far_off_is_measured_again(tmp_path, monkeypatch, factor, measured):
    backbone, ways = tiny_backbone(), []
    first = known_throughput(tmp_path, backbone, tuning_size=32)
    (file,) = tmp_path.glob("*.json")
    write_json(file, first.model_dump(mode="json") | {"tuning_forward_per_second": 100 * factor})
    monkeypatch.setattr(throughput, "_forward_rates", lambda *_, **__: {32: 100.0})

    def measure(backbone, *, machine, tuning_size, tuning):
        ways.append(tuning)
        return first

    monkeypatch.setattr(throughput, "measure_throughput", measure)
    found = known_throughput(tmp_path, backbone, tuning_size=32, check=True)
    assert ways == [first.tuning] * measured  # weights depend on the way, so it does not change
    assert (found == first) is bool(measured)
    known_throughput(tmp_path, backbone, tuning_size=32)  # unchecked, as in trials
    assert len(ways) == measured


def layer(value, count=0):
    network = nn.BatchNorm1d(2)
    with torch.no_grad():
        network.weight.fill_(value)
        network.num_batches_tracked.fill_(count)
    return network


def test_average_follows_fast_first_then_decays():
    average = WeightAverage(layer(0.0), decay=0.3)
    average.update(layer(1.0, count=5))
    assert average.network.weight[0].item() == pytest.approx(1 - 2 / 11)  # (1 + 1) / (10 + 1)
    assert average.network.num_batches_tracked.item() == 5
    late = WeightAverage(layer(0.0), decay=0.3, steps=100)
    late.update(layer(1.0))
    assert late.network.weight[0].item() == pytest.approx(0.7)
    assert late.steps == 101
    assert not any(parameter.requires_grad for parameter in late.network.parameters())
