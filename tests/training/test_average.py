import torch

from rootstock.training.average import average_weights


def test_floats_are_averaged_and_counters_kept():
    states = [
        {"weight": torch.full((2,), float(number)), "count": torch.tensor(number)}
        for number in (1, 3)
    ]
    found = average_weights(states)
    assert found["weight"].tolist() == [2.0, 2.0]
    assert found["count"].item() == 1
