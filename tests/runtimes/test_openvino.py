"""OpenVINO, if installed: it sends no telemetry, and answers any number of threads."""

import importlib.util
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from rootstock.errors import BundleError
from rootstock.model.bundle import read_bundle
from rootstock.runtimes.openvino import make_caller, openvino_model
from tests.bundles import SIZE, tiny_bundle

pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("openvino"), reason="openvino is not installed"
)


def test_file_that_is_not_network_is_rejected(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no network")
    with pytest.raises(BundleError, match=f"OpenVINO .* cannot load {path}"):
        openvino_model(path)


def test_threads_at_once_get_the_answers_of_one():
    call = make_caller(
        openvino_model(read_bundle(tiny_bundle()).onnx_path, threads=2, passes=2), ["features"]
    )
    images = np.random.default_rng(0).normal(size=(12, 1, 3, SIZE, SIZE)).astype(np.float32)
    alone = [call(image)[0] for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = [found for (found,) in pool.map(call, images)]
    np.testing.assert_array_equal(together, alone)


_OPENS = """
import socket, sys
def refuse(*arguments): raise SystemExit("it phones home")
socket.getaddrinfo = socket.socket.connect = refuse
from rootstock.model.bundle import read_bundle
from rootstock.runtimes.openvino import openvino_model
from tests.bundles import tiny_bundle
openvino_model(read_bundle(tiny_bundle()).onnx_path)
real = [name for name in sys.modules if name.startswith("openvino_telemetry.")]
assert not real and sys.modules["openvino_telemetry"] is None, real
"""


def test_its_telemetry_is_never_loaded():
    done = subprocess.run([sys.executable, "-c", _OPENS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
