import torch
from safetensors.torch import save_file

from rootstock.train.average import average_weights


def test_floats_are_averaged_and_counters_kept(tmp_path):
    files = []
    for number in (1, 3):
        state = {"weight": torch.full((2,), float(number)), "count": torch.tensor(number)}
        files.append(tmp_path / f"{number}.safetensors")
        save_file(state, files[-1])
    found = average_weights(files)
    assert found["weight"].tolist() == [2.0, 2.0]
    assert found["count"].item() == 1
