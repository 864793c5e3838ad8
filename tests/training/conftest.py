import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """These networks are tiny: threads that wait for each other cost a hundred times the work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
