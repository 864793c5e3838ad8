import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from rootstock.cli.main import main
from rootstock.config.load import load_config
from rootstock.config.paths import Paths
from rootstock.errors import ArtifactError, BackboneError, ConfigError, DataError
from rootstock.workflow.start import check_start
from tests.bundles import tiny_backbone
from tests.data.folders import write_classes


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("key", ["train.device", "features.device"])
def test_missing_gpu_is_reported_with_its_setting(key, tmp_path):
    config = load_config(None, overrides=[f"{key}=cuda"])
    with pytest.raises(
        ConfigError, match=f"{key}: device 'cuda' was requested, but there is no GPU"
    ):
        check_start(config, Paths(tmp_path / "out"))


@pytest.mark.parametrize("key", ["train.device", "features.device"])
def test_an_unknown_device_is_told_with_its_setting(key, tmp_path):
    config = load_config(None, overrides=[f"{key}=gpu"])
    with pytest.raises(ConfigError, match=f"{key}: unknown device 'gpu'"):
        check_start(config, Paths(tmp_path / "out"))


@pytest.mark.parametrize("place", [".", "run1", "ants/run1", "../link/run1"])
def test_results_stay_out_of_folder_of_images(tmp_path, place):
    root = write_classes(tmp_path / "images", {"ants": 1})
    (tmp_path / "link").symlink_to(root)
    with pytest.raises(DataError, match="is inside the folder of the images"):
        check_start(load_config(None, overrides=[f"data.root={root}"]), Paths(root / place))


def test_results_may_be_next_to_a_table(tmp_path):
    (tmp_path / "labels.csv").write_text("path,label\n")
    config = load_config(None, overrides=[f"data.root={tmp_path}/labels.csv"])
    check_start(config, Paths(tmp_path))


def test_missing_weights_are_reported(tmp_path):
    config = load_config(None, overrides=[f"backbone.weights={tmp_path}/net.safetensors"])
    with pytest.raises(BackboneError, match=r"net\.safetensors does not exist"):
        check_start(config, Paths(tmp_path / "out"))


def test_unwritable_place_is_reported(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtifactError, match="cannot write to .*file is a file"):
        check_start(load_config(None), Paths(tmp_path / "file/out"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("command", ["plan", "train"])
def test_command_is_rejected_before_image_is_read(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "images", {"ants": 6, "bees": 6})
    with pytest.raises(SystemExit) as caught:
        main([command, "images", "--out", "run", "--set", "train.device=cuda"])
    assert "there is no GPU" in str(caught.value.code)
    assert not (tmp_path / "run/artifacts").exists()


def test_weights_without_commercial_rights_are_rejected_if_set(tmp_path):
    weights = tmp_path / "own.safetensors"
    weights.touch()
    card = json.loads(Path(tiny_backbone().card.weights).with_suffix(".json").read_text())
    own = f"backbone.weights={weights}"
    asked = "backbone.require_commercial=true"
    for licence, refused in (("CC-BY-NC-4.0", True), ("MIT", False)):
        weights.with_suffix(".json").write_text(json.dumps(card | {"license": licence}))
        check_start(load_config(None, overrides=[own]), Paths(tmp_path))
        with pytest.raises(BackboneError, match=licence) if refused else nullcontext():
            check_start(load_config(None, overrides=[own, asked]), Paths(tmp_path))
