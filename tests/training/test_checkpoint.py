import pytest
import torch
from torch import nn

from rootstock.training.checkpoint import drop_checkpoint, read_checkpoint, write_checkpoint


def trained():
    """Return a network of one layer and its optimizer after one step."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    network(torch.randn(4, 3)).square().sum().backward()
    optimizer.step()
    return network, optimizer


def fresh():
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    return network, torch.optim.AdamW(network.parameters(), lr=0.1)


def test_network_optimizer_and_progress_come_back(tmp_path):
    network, optimizer = trained()
    write_checkpoint(tmp_path, network, optimizer, {"epoch": 3, "history": [0.1 + 0.2]})
    again, restored = fresh()
    assert read_checkpoint(tmp_path, again, restored) == {"epoch": 3, "history": [0.1 + 0.2]}
    for name, value in network.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    for number, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            assert torch.equal(value, restored.state_dict()["state"][number][key])


def test_no_checkpoint_means_no_progress(tmp_path):
    assert read_checkpoint(tmp_path, *fresh()) is None
    drop_checkpoint(tmp_path)


def test_checkpoint_cut_short_is_ignored_with_warning(tmp_path):
    write_checkpoint(tmp_path, *trained(), {"epoch": 1})
    file = tmp_path / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    network, optimizer = fresh()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.warns(UserWarning, match="checkpoint.safetensors is damaged"):
        assert read_checkpoint(tmp_path, network, optimizer) is None
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_failed_write_leaves_the_checkpoint_before(tmp_path):
    network, optimizer = trained()
    write_checkpoint(tmp_path, network, optimizer, {"epoch": 1})
    with pytest.raises(TypeError):
        write_checkpoint(tmp_path, network, optimizer, {"epoch": object()})
    assert read_checkpoint(tmp_path, network, optimizer) == {"epoch": 1}
