"""A bundle is written completely or not at all, and read only if every file is unchanged."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from rootstock.errors import BundleError
from rootstock.model.bundle import ModelBundle, largest_difference, read_bundle
from rootstock.model.bundle_writer import copy_with_card
from rootstock.model.predictor import Predictor
from rootstock.model.seen import SeenImages
from rootstock.system.files import sha256_file, write_json
from tests.bundles import CLASSES, jpeg, tiny_bundle, tiny_network, write_tiny_bundle


@pytest.fixture
def folder(tmp_path):
    """A copy of the tiny bundle that a test may damage."""
    return shutil.copytree(tiny_bundle(), tmp_path / "model")


def change(folder, file, edit):
    """Edit a JSON file of a bundle and update its checksum."""
    tree = json.loads((folder / file).read_text())
    edit(tree)
    write_json(folder / file, tree)
    sums = json.loads((folder / "checksums.json").read_text())
    sums[file] = sha256_file(folder / file)
    write_json(folder / "checksums.json", sums)


def test_a_bundle_holds_what_was_written():
    bundle = read_bundle(tiny_bundle())
    assert isinstance(bundle, ModelBundle)
    assert bundle.names == CLASSES
    assert bundle.strategy == "linear_probe"
    assert bundle.facts.calibration == {"temperature": 1.5}
    assert bundle.lineage == {"data_hash": "d"}
    assert [sample.target for sample in bundle.golden] == CLASSES
    assert bundle.golden_bytes(bundle.golden[1]) == jpeg(101)


def test_card_does_not_reveal_weights_path():
    facts = read_bundle(tiny_bundle()).facts
    assert facts.card["architecture"] == "test_efficientnet"
    assert "weights" not in facts.card
    assert facts.card["weights_sha256"]


def test_every_file_but_the_checksums_has_a_checksum():
    folder = tiny_bundle()
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    sums = json.loads((folder / "checksums.json").read_text())
    assert files - {"checksums.json"} == set(sums)
    assert {"bundle.json", "model.onnx", "model.safetensors", "golden/0.jpg"} < set(sums)


def test_nothing_of_this_machine_is_in_onnx_file():
    content = (tiny_bundle() / "model.onnx").read_bytes()
    assert b"site-packages" not in content
    assert b".py" not in content


def test_reading_and_predicting_need_no_torch():
    code = (
        "import sys; from pathlib import Path; from rootstock.model.predictor import Predictor;"
        "p = Predictor(Path(sys.argv[1]), engine='onnx');"
        "assert not {'torch', 'timm', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tiny_bundle())], check=True, timeout=60)


def test_the_same_network_gives_the_same_bytes(tmp_path):
    again = write_tiny_bundle(tmp_path / "again", with_reference=True)
    assert again.digest == read_bundle(tiny_bundle()).digest


def test_an_older_bundle_is_replaced_whole(folder):
    (folder / "stray.txt").write_text("left over")
    write_tiny_bundle(folder, strategy="full_finetune")
    assert read_bundle(folder).strategy == "full_finetune"
    assert not (folder / "stray.txt").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_folder_with_other_files_does_not_change(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="it is not a model, and was not changed"):
        write_tiny_bundle(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_a_file_in_the_way_is_rejected(tmp_path):
    (tmp_path / "model").write_text("")
    with pytest.raises(BundleError, match="is a file, not a directory"):
        write_tiny_bundle(tmp_path / "model")


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("rootstock.model.bundle_writer.largest_difference", lambda *_: 0.5)
    with pytest.raises(BundleError, match="ONNX and PyTorch differ by 0.5"):
        write_tiny_bundle(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_older_bundle(folder, monkeypatch):
    monkeypatch.setattr("rootstock.model.bundle_writer.largest_difference", lambda *_: float("nan"))
    with pytest.raises(BundleError, match="differ by nan"):
        write_tiny_bundle(folder, strategy="full_finetune")
    assert read_bundle(folder).strategy == "linear_probe"


def test_a_bundle_without_golden_images_is_not_written(tmp_path):
    with pytest.raises(BundleError, match="needs at least one golden image"):
        write_tiny_bundle(tmp_path / "model", golden=[])


def test_classes_must_fit_the_network(tmp_path):
    with pytest.raises(BundleError, match="the network has 3 outputs for 2 names"):
        write_tiny_bundle(tmp_path / "model", names=["a", "b"])


@pytest.mark.parametrize(("name", "file"), [("a/B.JPG", "0.jpg"), ("x.jpg~", "0"), ("..", "0")])
def test_golden_images_get_plain_names(tmp_path, name, file):
    bundle = write_tiny_bundle(tmp_path / "model", golden=[(name, jpeg(0), "iris")])
    assert bundle.golden[0].file == file


def test_class_that_was_never_seen_can_be_exported(tmp_path):
    network = tiny_network()
    with torch.no_grad():
        network.head.bias[1] = -1e4
    bundle = write_tiny_bundle(tmp_path / "model", network=network)
    assert bundle.golden[0].logits[1] == pytest.approx(-1e4, rel=1e-2)


def test_a_head_of_large_terms_can_be_exported(tmp_path):
    network = tiny_network()
    with torch.no_grad():
        network.head.weight.mul_(300)
    bundle = write_tiny_bundle(tmp_path / "model", network=network)
    assert max(bundle.golden[0].sizes) > 100


def test_differences_count_in_proportion_to_large_terms():
    found, expected = np.array([5.0, 1.0]), np.array([5.5, 1.0])
    assert largest_difference(found, expected, np.array([2.0, 2.0])) == 0.5
    assert largest_difference(found, expected, np.array([1000.0, 2.0])) == 0.005


def test_more_than_eight_golden_images_are_left_out(tmp_path):
    golden = [(f"{i}.jpg", jpeg(i), "iris") for i in range(10)]
    assert len(write_tiny_bundle(tmp_path / "model", golden=golden).golden) == 8


def test_writing_leaves_the_network_as_it_was(tmp_path):
    network = tiny_network().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    write_tiny_bundle(tmp_path / "model", network=network)
    assert network.training
    assert all(torch.equal(before[name], now) for name, now in network.state_dict().items())


def test_writing_prints_nothing(tmp_path, capfd):
    write_tiny_bundle(tmp_path / "model")
    assert capfd.readouterr() == ("", "")


def test_an_absent_directory_is_named(tmp_path):
    with pytest.raises(BundleError, match="there is no model directory .*nowhere"):
        read_bundle(tmp_path / "nowhere")


FILES = ["bundle.json", "checksums.json", "model.onnx", "model.safetensors", "golden/golden.json"]


@pytest.mark.parametrize("file", [*FILES, "golden/2.jpg"])
def test_a_missing_file_is_named(folder, file):
    (folder / file).unlink()
    with pytest.raises(BundleError, match=f"{file} is missing"):
        read_bundle(folder)


@pytest.mark.parametrize("file", [*FILES, "golden/2.jpg"])
def test_a_damaged_file_is_named(folder, file):
    content = bytearray((folder / file).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (folder / file).write_bytes(content)
    with pytest.raises(BundleError, match=f"{file} (is damaged|has format_version)"):
        read_bundle(folder)


@pytest.mark.parametrize("file", [f for f in FILES if f != "checksums.json"] + ["golden/2.jpg"])
def test_a_missing_checksum_names_the_file(folder, file):
    sums = json.loads((folder / "checksums.json").read_text())
    del sums[file]
    write_json(folder / "checksums.json", sums)
    with pytest.raises(BundleError, match=f"has no checksum of {file}"):
        read_bundle(folder)


def test_a_checksum_outside_the_directory_is_rejected(folder):
    sums = json.loads((folder / "checksums.json").read_text())
    write_json(folder / "checksums.json", sums | {"../other": "0" * 64})
    with pytest.raises(BundleError, match=r"names '\.\./other', outside the model"):
        read_bundle(folder)


def test_another_format_version_comes_before_everything_else(folder):
    (folder / "bundle.json").write_text('{"format_version": 3}')
    with pytest.raises(BundleError, match="format_version 3, but this .* reads 2"):
        read_bundle(folder)


def test_a_missing_key_is_named(folder):
    change(folder, "bundle.json", lambda tree: tree.pop("calibration"))
    with pytest.raises(BundleError, match=r"bundle\.json: calibration: Field required"):
        read_bundle(folder)


def test_a_class_too_few_is_found(folder):
    change(folder, "bundle.json", lambda tree: tree["names"].pop())
    with pytest.raises(BundleError, match=r"golden\.json has 3 outputs for the 2 names"):
        read_bundle(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"names": ["iris"]}, "a classifier needs at least two classes, but this one has 1"),
        ({"names": ["iris", "rose", "iris"]}, "the class 'iris' is listed more than once"),
        ({"calibration": {}}, "the temperature must be from 0.001 to 1000, but is None"),
        ({"calibration": {"temperature": -1}}, "from 0.001 to 1000, but is -1"),
        ({"task": "astrology"}, "there is no task 'astrology'"),
    ],
)
def test_facts_invalid_for_the_task_are_rejected(folder, changes, words):
    change(folder, "bundle.json", lambda tree: tree.update(changes))
    with pytest.raises(BundleError, match=words):
        read_bundle(folder)


def test_other_preprocessing_than_at_training_is_rejected(folder):
    change(folder, "bundle.json", lambda tree: tree["preprocess"].update(crop_pct=0.5))
    with pytest.raises(BundleError, match="this version of Rootstock prepares images as"):
        read_bundle(folder)


@pytest.mark.parametrize("wrong", [{"crop_pct": 7.0}, {"colour": "red"}, {"mean": None}])
def test_preprocessing_that_makes_no_sense_is_rejected(folder, wrong):
    change(folder, "bundle.json", lambda tree: tree["preprocess"].update(wrong))
    with pytest.raises(BundleError, match=r"bundle\.json: preprocess is wrong"):
        read_bundle(folder)


def test_weights_are_those_of_the_network():
    from safetensors.numpy import load_file

    stored = load_file(tiny_bundle() / "model.safetensors")
    for name, value in tiny_network().state_dict().items():
        np.testing.assert_array_equal(stored[name], value.numpy())


def test_a_damaged_reference_is_named(folder):
    sums = json.loads((folder / "checksums.json").read_text())
    (folder / "reference.safetensors").write_bytes(b"rubbish")
    sums["reference.safetensors"] = sha256_file(folder / "reference.safetensors")
    write_json(folder / "checksums.json", sums)
    with pytest.raises(BundleError, match=r"reference.safetensors is damaged"):
        read_bundle(folder).reference  # noqa: B018 - read when it is asked for


@pytest.mark.parametrize("file", ["model.safetensors", "golden/2.jpg"])
def test_rubbish_with_valid_checksum_is_rejected(folder, file):
    sums = json.loads((folder / "checksums.json").read_text())
    (folder / file).write_bytes(b"rubbish")
    write_json(folder / "checksums.json", sums | {file: sha256_file(folder / file)})
    with pytest.raises(BundleError, match=file.rpartition("/")[2]) as caught:
        Predictor(folder)
    assert caught.value.hint


def test_a_reference_of_another_width_is_rejected(folder):
    change(folder, "bundle.json", lambda tree: tree.update(feature_width=tree["feature_width"] + 1))
    with pytest.raises(BundleError, match=r"reference.safetensors does not fit bundle.json"):
        read_bundle(folder).reference  # noqa: B018 - read when it is asked for


def test_a_model_without_a_reference_has_none(tmp_path):
    assert write_tiny_bundle(tmp_path / "model").reference is None


def test_format_1_facts_mean_one_class_per_image(folder):
    facts = json.loads((folder / "bundle.json").read_text())

    def as_it_was(tree):
        tree |= {"format_version": 1, "classes": tree.pop("names"), "temperature": 2.5}
        del tree["task"], tree["calibration"]

    change(folder, "bundle.json", as_it_was)
    found = read_bundle(folder).facts
    assert (found.names, found.calibration) == (facts["names"], {"temperature": 2.5})
    assert found.task == "single_label"


def test_every_file_is_readable_as_the_umask_says(tmp_path):
    before = os.umask(0o022)
    try:
        write_tiny_bundle(tmp_path / "model", with_reference=True)
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "model").rglob("*") if path.is_file()]
    assert "model.safetensors" in {path.name for path in files}
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o644"}


@pytest.mark.parametrize("name", ["reference.safetensors", "golden/9.jpg", "notes.txt"])
def test_a_file_that_is_not_listed_is_rejected(tmp_path, name):
    bundle = write_tiny_bundle(tmp_path / "model")
    (bundle.directory / name).write_bytes(b"")
    with pytest.raises(BundleError, match=f"{name} is not part of the model"):
        read_bundle(bundle.directory)


def test_a_link_that_is_not_listed_is_rejected(folder, tmp_path):
    (folder / "elsewhere").symlink_to(tmp_path)
    with pytest.raises(BundleError, match="elsewhere is not part of the model"):
        read_bundle(folder)


def test_files_of_mlflow_and_macos_are_ignored(folder):
    (folder / "registered_model_meta").write_text("model_name: tiny")
    (folder / "golden/.DS_Store").write_bytes(b"")
    assert read_bundle(folder).names == CLASSES


def test_bundle_knows_images_it_was_made_with(tmp_path):
    train, val, other = (digit * 64 for digit in "1a5")
    bundle = write_tiny_bundle(tmp_path / "model", seen=SeenImages.of(train=[train], val=[val]))
    seen = read_bundle(bundle.directory).seen
    assert [seen.split(one) for one in (train, val, other)] == ["train", "val", ""]
    assert read_bundle(tiny_bundle()).seen is None


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 8, b"\x02" + bytes(7) + b"[]", b"\x02" + bytes(7) + b"{}"]
)
def test_damaged_arrays_are_rejected(tmp_path, content):
    bundle = write_tiny_bundle(tmp_path / "model", with_reference=True)
    path = bundle.directory / "reference.safetensors"
    path.write_bytes(content)
    sums = json.loads((bundle.directory / "checksums.json").read_text())
    write_json(bundle.directory / "checksums.json", sums | {path.name: sha256_file(path)})
    with pytest.raises(BundleError, match="reference.safetensors is damaged"):
        _ = read_bundle(bundle.directory).reference


def test_a_registered_copy_keeps_card_and_test_metrics(tmp_path):
    bundle = read_bundle(tiny_bundle())
    assert (bundle.model_card, bundle.metrics) == ("", bundle.facts.metrics)
    copy_with_card(bundle, tmp_path / "copy", "# Card", {"accuracy": 0.75, "n_test": 8})
    copy = read_bundle(tmp_path / "copy")
    assert copy.model_card == "# Card"
    assert copy.metrics["accuracy"] == 0.75
    assert copy.metrics["n_test"] == 8
    (tmp_path / "copy/evaluation.json").write_text('{"accuracy": 1.0}')
    with pytest.raises(BundleError, match="evaluation.json is damaged"):
        read_bundle(tmp_path / "copy")
