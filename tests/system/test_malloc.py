"""The process keeps freed memory."""

import subprocess
import sys

import pytest

from rootstock.system.malloc import keep_freed_memory, keeping_variables

FAULTS = """
import resource, sys
import numpy as np
if "keep" in sys.argv:
    from rootstock.system.malloc import keep_freed_memory
    keep_freed_memory()
def touch():
    np.empty(50_000_000, np.uint8)[::4096] = 1
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

pytestmark = pytest.mark.skipif(
    not keep_freed_memory(), reason="this C library has no mallopt: memory is given back"
)


def faults(*words: str, **variables: str) -> int:
    """Return the pages taken from the system while 50 MB are allocated and freed four times."""
    # numpy requests huge pages, which would hide the small ones.
    environment = {"NUMPY_MADVISE_HUGEPAGE": "0", "PYTHONPATH": ":".join(sys.path), **variables}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, *words], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_pages_come_from_the_system_once():
    assert faults() > 40_000
    assert faults("keep") < 1_000


def test_variables_do_same_for_process_to_be_started():
    assert faults(**keeping_variables()) < 1_000
