"""Exported models answer like the model, and describe themselves."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest

from rootstock.cli.export import FORMATS as NAMES
from rootstock.cli.main import main
from rootstock.errors import BundleError
from rootstock.export.formats import FORMATS
from rootstock.export.write import PROOF, export_model
from rootstock.model.predictor import Predictor
from tests.bundles import CLASSES, jpeg, tiny_bundle, twin_bundle

CONTENTS = [jpeg(seed) for seed in range(12)]


@pytest.fixture(scope="module")
def predictor():
    return Predictor(tiny_bundle(), engine="onnx")


def test_onnx_says_what_is_needed_to_use_it(predictor, tmp_path):
    done = export_model(predictor, "onnx", tmp_path / "out", contents=CONTENTS)
    said = {entry.key: entry.value for entry in onnx.load(str(done.path)).metadata_props}
    assert json.loads(said["names"]) == CLASSES
    assert json.loads(said["preprocess"])["input_size"] == predictor.bundle.preprocess.input_size
    assert float(said["temperature"]) == predictor.bundle.facts.calibration["temperature"]
    assert said["licence"] == predictor.bundle.facts.card["license"]
    assert done.proof.agreement == 1.0
    assert json.loads((tmp_path / "out" / PROOF).read_text())["model"] == predictor.bundle.digest


def test_ten_lines_of_documentation_give_models_answer(predictor, tmp_path):
    """Use only the file's content, without Rootstock."""
    done = export_model(predictor, "onnx", tmp_path / "out")
    session = onnxruntime.InferenceSession(str(done.path))
    said = session.get_modelmeta().custom_metadata_map
    prepared = predictor.bundle.preprocess.normalise(predictor.prepare(CONTENTS[0]))
    (logits,) = session.run(["logits"], {"images": prepared})
    scaled = logits[0] / float(said["temperature"])
    shares = np.exp(scaled - scaled.max()) / np.exp(scaled - scaled.max()).sum()
    (answer,) = predictor.predict(CONTENTS[:1])
    assert json.loads(said["names"])[int(shares.argmax())] == answer.label
    assert shares.max() == pytest.approx(answer.probability, abs=1e-5)


@pytest.mark.parametrize("name", ["torchscript", "timm"])
def test_formats_of_torch_give_the_recorded_outputs(predictor, tmp_path, name):
    done = export_model(predictor, name, tmp_path / "out", contents=CONTENTS)
    assert done.proof.largest_difference < 1e-3
    assert done.path.exists()


def test_int8_is_measured_on_unseen_images(predictor, tmp_path):
    done = export_model(predictor, "onnx-int8", tmp_path / "out", contents=CONTENTS)
    assert done.proof.n_images == len(CONTENTS) // 2
    assert done.proof.agreement is not None
    kinds = {node.op_type for node in onnx.load(str(done.path)).graph.node}
    assert "QuantizeLinear" in kinds
    with pytest.raises(BundleError, match="calibrated on real images"):
        export_model(predictor, "onnx-int8", tmp_path / "other")


def test_a_models_own_twin_needs_no_images(tmp_path):
    twin = Predictor(twin_bundle(), engine="onnx")
    done = export_model(twin, "onnx-int8", tmp_path / "out")
    assert done.path.read_bytes() == twin.bundle.twin_path.read_bytes()
    other = export_model(twin, "onnx-int8", tmp_path / "other", contents=CONTENTS)
    assert other.path.read_bytes() != done.path.read_bytes()


def test_what_is_in_the_folder_stays(predictor, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(BundleError, match="is not empty"):
        export_model(predictor, "onnx", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("name", ["tensorrt", "tflite", "coreml"])
def test_format_needing_another_tool_leaves_nothing(predictor, tmp_path, name):
    with pytest.raises(BundleError, match="Rootstock cannot write this format") as caught:
        export_model(predictor, name, tmp_path / "out", contents=CONTENTS)
    assert "export --format" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_the_command_knows_every_format():
    assert set(NAMES) == set(FORMATS)


def test_the_command_prints_what_was_measured(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    for number, content in enumerate(CONTENTS):
        (tmp_path / f"images/{number}.jpg").write_bytes(content)
    arguments = ["--model", str(tiny_bundle()), "--out", "out", "--images", "images", "--json"]
    main(["export", "--format", "onnx", *arguments])
    said = json.loads(capsys.readouterr().out)
    assert said["file"].endswith("out/model.onnx")
    assert said["n_images"] == len(CONTENTS) // 2
