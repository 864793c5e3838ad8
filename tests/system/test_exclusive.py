"""A folder that only one process at a time may write to."""

import subprocess
import sys

import pytest

from rootstock.errors import ArtifactError
from rootstock.system.exclusive import claim_folder

pytest.importorskip("fcntl")

HOLD = """
import sys, time
from pathlib import Path
from rootstock.system.exclusive import claim_folder
with claim_folder(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_second_writer_is_rejected_until_first_is_gone(tmp_path):
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert first.stdout.readline() == "held\n"
    with pytest.raises(ArtifactError, match="another run is writing to"), claim_folder(tmp_path):
        pass
    first.kill()
    first.wait()
    with claim_folder(tmp_path):
        assert (tmp_path / ".rootstock/lock").exists()


def test_unwritable_place_is_not_locked(tmp_path):
    (tmp_path / "file").touch()
    with claim_folder(tmp_path / "file"):
        pass
