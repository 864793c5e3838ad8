import pytest
from ray.exceptions import OutOfMemoryError

from rootstock.errors import TrainingError
from rootstock.integrations.ray.memory import explain_full_memory


def test_full_memory_is_explained():
    # As Ray Tune 2 raises it when the monitor kills a worker during a trial.
    killed = RuntimeError("Caught unexpected exception")
    killed.__cause__ = OutOfMemoryError("22.46 GB used")
    with pytest.raises(TrainingError, match="memory of this machine"), explain_full_memory():
        raise killed


def test_another_error_is_not_changed():
    with pytest.raises(RuntimeError, match="^another$"), explain_full_memory():
        raise RuntimeError("another")
