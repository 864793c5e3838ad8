import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Use one thread: for tiny networks, waiting threads take a hundred times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
