import logging
import time

import numpy as np
import pytest

from rootstock.features import fastest
from rootstock.features.fastest import choose_pass
from rootstock.features.forward import ForwardPass, ForwardPasses

PROBE = np.zeros((2, 8, 8, 3), np.uint8)


@pytest.fixture(autouse=True)
def _quickly(monkeypatch):
    monkeypatch.setattr(fastest, "SECONDS_PER_WAY", 0.0)
    monkeypatch.setattr(fastest, "_version", lambda engine: "1")


def ways(calls, engines=("onnx", "openvino"), **seconds):
    """Engines that take this many seconds per call, and count calls."""

    def make(engine, seconds):
        def run(images):
            calls.append(engine)
            time.sleep(seconds)
            return {"last": np.zeros((len(images), 1), np.float16)}

        return ForwardPass(engine, concurrent=engine != "torch", run=run)

    variants = tuple(make(engine, seconds.get(engine, 0.0)) for engine in engines)
    return ForwardPasses(variants, "network", measurable="openvino" in engines)


def choose(folder, found):
    return choose_pass(found, probe=PROBE, folder=folder, batch_size=8).engine


def test_faster_engine_is_taken_and_outcome_is_reported(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    assert choose(tmp_path, ways([], onnx=0.02, openvino=0.001)) == "openvino"
    assert "features are computed by openvino (images/s on this machine: onnx " in caplog.text


def test_what_was_measured_is_kept(tmp_path):
    calls = []
    assert choose(tmp_path, ways(calls, onnx=0.02)) == "openvino"
    before = len(calls)
    assert choose(tmp_path, ways(calls, openvino=0.02)) == "openvino"
    assert len(calls) == before
    assert choose(tmp_path / "another", ways(calls, openvino=0.02)) == "onnx"


def test_another_network_or_processor_is_measured_again(tmp_path, monkeypatch):
    calls = []
    choose(tmp_path, ways(calls))
    for change in (lambda: "other", lambda: "network"):
        before = len(calls)
        monkeypatch.setattr(fastest, "processor_name", lambda: "another")
        choose(tmp_path, ForwardPasses(ways(calls).variants, change(), measurable=True))
        assert len(calls) > before


def test_without_openvino_nothing_is_measured(tmp_path):
    calls = []
    assert choose(tmp_path, ways(calls, ("onnx", "torch"), onnx=0.02)) == "onnx"
    assert calls == []


def test_a_hopeless_engine_is_timed_once(tmp_path):
    calls = []
    choose(tmp_path, ways(calls, ("onnx", "openvino", "torch"), torch=0.1))
    assert calls.count("torch") == 2  # the first warms up
