"""Engines give the same answers, the fastest proven one is used, and core limits are kept."""

import numpy as np
import pytest

from rootstock.errors import BundleError
from rootstock.model import engine as engines
from rootstock.model.bundle import read_bundle
from rootstock.model.engine import Outputs, Way, best_batch, fastest_way, list_ways, open_engine
from rootstock.model.predictor import Predictor
from rootstock.runtimes import choose
from rootstock.runtimes.engines import installed_engines
from rootstock.system.cpu import usable_cores
from tests.bundles import SIZE, jpeg, tiny_bundle


@pytest.fixture
def bundle():
    return read_bundle(tiny_bundle())


def fake(answers, milliseconds):
    """A slow engine."""

    def forward(images):
        import time

        time.sleep(milliseconds / 1000)
        return answers

    return forward


@pytest.mark.parametrize("name", installed_engines())
def test_every_engine_answers_as_onnx_runtime_does(bundle, name):
    images = np.random.default_rng(0).normal(size=(3, 3, SIZE, SIZE)).astype(np.float32)
    found, expected = (open_engine(bundle, Way(e), threads=1)(images) for e in (name, "onnx"))
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.features, expected.features, rtol=1e-3, atol=1e-3)


def refusing(wrong):
    """A proof that one engine fails."""

    def prove(forward, precision):
        if forward is wrong:
            raise BundleError("golden image 0 is off")
        return 0.0

    return prove


def test_fastest_engine_is_used_and_times_are_reported(bundle, monkeypatch):
    outputs = Outputs(np.zeros((1, 3)), np.zeros((1, 4)))
    fakes = {"onnx": fake(outputs, 6), "openvino": fake(outputs, 1)}
    monkeypatch.setattr(engines, "installed_engines", lambda: ["onnx", "openvino", "torch"])
    monkeypatch.setattr(engines, "has_gpu", lambda: False)
    monkeypatch.setattr(engines, "open_engine", lambda _bundle, way, threads: fakes[way.engine])
    ways = list_ways(bundle, "fastest", "auto")
    way, _, times = fastest_way(bundle, ways, lambda forward, precision: 0.0)
    assert way == Way("openvino")
    assert times["onnx"] > times["openvino"] > 0
    assert "torch" not in times


def test_an_engine_with_other_answers_is_ignored(bundle, monkeypatch):
    outputs = Outputs(np.zeros((1, 3)), np.zeros((1, 4)))
    wrong, right = fake(outputs, 0), fake(outputs, 2)

    monkeypatch.setattr(engines, "installed_engines", lambda: ["openvino", "onnx"])
    monkeypatch.setattr(engines, "has_gpu", lambda: False)
    for order in (["openvino", "onnx"], ["onnx", "openvino"]):
        monkeypatch.setattr(engines, "installed_engines", lambda order=order: order)
        monkeypatch.setattr(
            engines,
            "open_engine",
            lambda _bundle, way, threads: {"openvino": wrong, "onnx": right}[way.engine],
        )
        ways = list_ways(bundle, "fastest", "float32")
        assert fastest_way(bundle, ways, refusing(wrong))[:2] == (Way("onnx"), right)


def test_a_model_that_no_engine_proves_is_rejected(bundle, monkeypatch):
    def prove(forward, precision):
        raise BundleError("golden image 0 is off")

    monkeypatch.setattr(engines, "has_gpu", lambda: False)
    with pytest.raises(BundleError, match="golden image 0 is off"):
        fastest_way(bundle, list_ways(bundle, "fastest", "auto"), prove)


def test_a_predictor_can_measure_for_itself():
    predictor = Predictor(tiny_bundle(), engine="fastest", threads=1)
    assert predictor.engine in installed_engines()
    assert (
        predictor.predict([jpeg(0)])[0].label
        == Predictor(tiny_bundle()).predict([jpeg(0)])[0].label
    )


@pytest.mark.parametrize(
    ("files", "most"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
    ],
)
def test_a_containers_quota_bounds_the_cores(tmp_path, files, most):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cores(tmp_path) == min(most, usable_cores(tmp_path / "none"))


def test_a_group_within_the_groups_bounds_them_too(tmp_path):
    inner = tmp_path / "system.slice/rootstock.service"
    inner.mkdir(parents=True)
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (inner.parent / "cpu.max").write_text("100000 100000\n")
    (inner / "cpu.max").write_text("max 100000\n")
    own = tmp_path / "own"
    own.write_text("0::/system.slice/rootstock.service\n")
    assert usable_cores(tmp_path, own) == 1
    own.write_text("0::/\n1:cpu:/elsewhere\n")
    assert usable_cores(tmp_path, own) == usable_cores(tmp_path / "none")


def test_a_gpu_with_other_answers_is_ignored(bundle, monkeypatch):
    outputs = Outputs(np.zeros((1, 3)), np.zeros((1, 4)))
    rounded, right = fake(outputs, 0), fake(outputs, 0)

    monkeypatch.setattr(engines, "has_gpu", lambda: True)
    monkeypatch.setattr(engines, "installed_engines", lambda: ["onnx", "torch"])
    known = {"torch": rounded, "onnx": right}
    monkeypatch.setattr(engines, "open_engine", lambda _, way, threads: known[way.engine])
    ways = list_ways(bundle, "fastest", "float32")
    assert fastest_way(bundle, ways, refusing(rounded))[:2] == (Way("onnx"), right)
    assert fastest_way(bundle, ways, lambda *_: 0.0)[:2] == (Way("torch"), rounded)
    named = fastest_way(bundle, ways, lambda *_: 0.0, may_use_gpu=False)
    assert named[:2] == (Way("onnx"), right)


@pytest.mark.parametrize("text", ["max 100000\n", "nonsense\n"])
def test_no_quota_leaves_all_cores(tmp_path, text):
    (tmp_path / "cpu.max").write_text(text)
    assert usable_cores(tmp_path) == usable_cores(tmp_path / "none")


@pytest.mark.parametrize(
    ("per_call", "per_image", "best"), [(0, 2.0, 1), (5, 0.01, 64), (1, 1.0, 8)]
)
def test_batches_are_as_large_as_they_gain(monkeypatch, per_call, per_image, best):
    now = [0.0]
    monkeypatch.setattr(choose, "perf_counter", lambda: now[0])

    def forward(images):
        now[0] += per_call + per_image * len(images)

    assert best_batch(forward, 8) == best


def test_no_batch_over_the_bound_is_tried():
    tried = set()

    def forward(images):
        tried.add(len(images))

    best_batch(forward, 8, max_images=8)
    assert tried == {1, 8}


@pytest.mark.parametrize("driver", [None, "/usr/bin/nvidia-smi"])
def test_gpu_needs_driver_before_torch_is_asked(monkeypatch, driver):
    monkeypatch.setattr("shutil.which", lambda name: driver)
    monkeypatch.setattr("pathlib.Path.exists", lambda self: False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert engines.has_gpu() is bool(driver)
