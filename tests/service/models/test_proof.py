"""A new model is proved in a process that may hang, crash, or grow; the next one is tried."""

import errno
import json
import os
import shutil
import time

import onnx
import pytest
from onnx import TensorProto, helper

from rootstock.errors import BundleError, TrackingError
from rootstock.model.bundle import read_bundle
from rootstock.service.models.holder import ModelHolder
from rootstock.service.models.proof import ProofLimits, open_proved, prove
from rootstock.system.files import sha256_file, write_json
from tests.bundles import SIZE, tiny_bundle, write_tiny_bundle
from tests.folder_registry import FolderRegistry

WIDTH = read_bundle(tiny_bundle()).facts.feature_width
BOUNDS = ProofLimits(seconds=60, memory=4 * 2**30)


def replace_network(folder, nodes, initializers):
    """Give a bundle an ONNX file that computes ``trouble`` before its constant outputs."""
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3]),
        helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", WIDTH]),
    ]
    zeros = [
        helper.make_node("Constant", [], [f"zero_{n}"], value_floats=[0.0] * n) for n in (3, WIDTH)
    ]
    ends = [
        helper.make_node("Add", ["trouble", "zero_3"], ["logits"]),
        helper.make_node("Add", ["trouble", f"zero_{WIDTH}"], ["features"]),
    ]
    graph = helper.make_graph([*zeros, *nodes, *ends], "g", [images], outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    sums = json.loads((folder / "checksums.json").read_text())
    sums["model.onnx"] = sha256_file(folder / "model.onnx")
    write_json(folder / "checksums.json", sums)
    return folder


def make_endless(folder):
    """The network counts to 2^62."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_in"], ["go_out"]),
            helper.make_node("Add", ["x_in", "x_in"], ["x_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x_in", TensorProto.FLOAT, ["batch", 1]),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x_out", TensorProto.FLOAT, ["batch", 1]),
        ],
    )
    constants = [
        helper.make_tensor("trips", TensorProto.INT64, [], [2**62]),
        helper.make_tensor("go", TensorProto.BOOL, [], [True]),
        helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3]),
    ]
    nodes = [
        helper.make_node("ReduceMax", ["images"], ["high"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Constant", [], ["one"], value_ints=[1]),
        helper.make_node("Unsqueeze", ["high", "one"], ["column"]),
        helper.make_node("Loop", ["trips", "go", "column"], ["trouble"], body=body),
    ]
    return replace_network(folder, nodes, constants[:2])


def make_greedy(folder):
    """The network requests 100 GB."""
    nodes = [
        helper.make_node("ReduceMax", ["images"], ["high"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Constant", [], ["one"], value_ints=[1]),
        helper.make_node("Unsqueeze", ["high", "one"], ["column"]),
        helper.make_node("Expand", ["column", "shape"], ["wide"]),
        helper.make_node("ReduceMax", ["wide"], ["trouble"], axes=[1], keepdims=1),
    ]
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [1, 25_000_000_000])
    return replace_network(folder, nodes, [shape])


@pytest.fixture
def copy(tmp_path):
    return lambda: shutil.copytree(tiny_bundle(), tmp_path / "model")


def test_sound_model_is_opened_as_it_was_measured():
    proof = prove(read_bundle(tiny_bundle()), "onnx", "auto", BOUNDS)
    assert (proof.engine, proof.batch in (1, 8)) == ("onnx", True)
    predictor = open_proved(read_bundle(tiny_bundle()), "fastest", "auto", BOUNDS, version="7")
    assert predictor.info["version"] == "7"
    assert predictor.golden_difference < 1e-3


def count_children(monkeypatch):
    from rootstock.service.models import proof

    children = []
    run = proof.subprocess.run
    monkeypatch.setattr(proof.subprocess, "run", lambda *a, **k: children.append(a) or run(*a, **k))
    return children


def open_recorded(bundle, records):
    return open_proved(read_bundle(bundle), "onnx", "auto", BOUNDS, records=records)


def test_same_model_is_proved_once_per_machine(monkeypatch, tmp_path):
    children = count_children(monkeypatch)
    first, second = (open_recorded(tiny_bundle(), tmp_path / "proofs") for _ in range(2))
    assert len(children) == 1
    assert (second.way, second.best_batch) == (first.way, first.best_batch)
    other = write_tiny_bundle(tmp_path / "other", strategy="full_finetune").directory
    open_recorded(other, tmp_path / "proofs")
    monkeypatch.setattr("rootstock.service.models.proof.processor_name", lambda: "another")
    open_recorded(tiny_bundle(), tmp_path / "proofs")
    assert len(children) == 3


def test_recorded_model_still_answers_its_golden_images(monkeypatch, tmp_path):
    open_recorded(tiny_bundle(), tmp_path)
    monkeypatch.setattr("rootstock.model.predictor._proved", {})
    monkeypatch.setattr("rootstock.model.predictor.GOLDEN_TOLERANCE", -1.0)
    with pytest.raises(BundleError, match="golden image"):
        open_recorded(tiny_bundle(), tmp_path)


def test_damaged_or_unwritable_record_is_no_obstacle(monkeypatch, tmp_path):
    children = count_children(monkeypatch)
    open_recorded(tiny_bundle(), tmp_path)
    (record,) = tmp_path.glob("*.json")
    for damage in ("{", '{"engine": "steam"}'):
        record.write_text(damage)
        open_recorded(tiny_bundle(), tmp_path)
    assert len(children) == 3
    (tmp_path / "file").touch()
    assert open_recorded(tiny_bundle(), tmp_path / "file").engine == "onnx"


def test_serving_a_directory_makes_no_folder_outside_of_a_run(tmp_path):
    def hold(folder):
        model = shutil.copytree(tiny_bundle(), folder / "artifacts/model")
        holder = ModelHolder(
            str(model),
            cache=tmp_path / "here/.rootstock/models",
            connect=lambda: None,
            engine="onnx",
            proof=BOUNDS,
        )
        holder.load()

    hold(tmp_path / "elsewhere")
    assert not list(tmp_path.rglob(".rootstock"))
    (tmp_path / "run/.rootstock").mkdir(parents=True)
    hold(tmp_path / "run")
    assert len(list((tmp_path / "run/.rootstock/models/.proofs").iterdir())) == 1


def test_a_model_that_never_answers_is_rejected(copy):
    bundle = read_bundle(make_endless(copy()))
    started = time.monotonic()
    with pytest.raises(BundleError, match="did not answer its golden images within 5 seconds"):
        prove(bundle, "onnx", "auto", ProofLimits(seconds=5))
    assert time.monotonic() - started < 20


def test_a_model_that_takes_all_memory_is_rejected(copy):
    bundle = read_bundle(make_greedy(copy()))
    with pytest.raises(BundleError):
        prove(bundle, "onnx", "auto", BOUNDS)


def test_secrets_do_not_reach_the_process_that_proves(monkeypatch, copy):
    from rootstock.service.models import proof

    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    seen = {}
    run = proof.subprocess.run
    monkeypatch.setattr(
        proof.subprocess, "run", lambda *a, **k: seen.update(k["env"]) or run(*a, **k)
    )
    prove(read_bundle(tiny_bundle()), "onnx", "auto", BOUNDS)
    assert "PATH" in seen
    assert not any("MLFLOW" in name for name in seen)


def test_version_after_a_hanging_one_is_served(tmp_path):
    registry = FolderRegistry(tmp_path / "registry")
    swaps = []
    holder = ModelHolder(
        "models:/flowers@champion",
        cache=tmp_path / "cache",
        connect=lambda: registry,
        engine="onnx",
        proof=ProofLimits(seconds=6),
        on_swap=swaps.append,
    )
    endless = make_endless(shutil.copytree(tiny_bundle(), tmp_path / "endless"))
    later = write_tiny_bundle(tmp_path / "later", strategy="full_finetune").directory
    for number, folder in enumerate((tiny_bundle(), endless, later), start=1):
        run_id = f"run{number}"
        registry.register("flowers", folder, run_id=run_id, tags={}, description="")
    registry.set_alias("flowers", "champion", "1")
    holder.load()
    registry.set_alias("flowers", "champion", "2")
    with pytest.raises(BundleError, match="did not answer"):
        holder.refresh()
    assert (holder.refused.version, holder.predictor.info["version"]) == ("2", "1")
    assert holder.refresh() is False  # it is not tried at every check
    registry.set_alias("flowers", "champion", "3")
    assert holder.refresh() is True
    assert (holder.refused, holder.predictor.info["version"]) == (None, "3")
    assert swaps == ["swapped", "refused", "swapped"]


def test_full_disk_that_mlflow_reports_is_refusal(tmp_path):
    registry = FolderRegistry(tmp_path / "registry")
    registry.register("flowers", tiny_bundle(), run_id="run1", tags={}, description="")
    registry.set_alias("flowers", "champion", "1")

    def full(entry, target):
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise TrackingError("cannot download") from error

    registry.download = full
    holder = ModelHolder(
        "models:/flowers@champion", cache=tmp_path / "cache", connect=lambda: registry
    )
    with pytest.raises(BundleError, match="cannot be stored in .*No space left"):
        holder.load()
    assert holder.refused.version == "1"
