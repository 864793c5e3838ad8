"""torchvision's published weights become a backbone with the right preparation."""

import hashlib

import pytest
import torch
from torchvision import models

from rootstock.backbones import published
from rootstock.backbones.load import load_backbone
from rootstock.errors import BackboneError, WeightsUnavailable


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """Publish weights of a torchvision network at a file URL, and return that network."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "cache"))

    def make(name, *, hashed=True):
        torch.manual_seed(0)
        options = {"init_weights": False, "aux_logits": True} if name == "googlenet" else {}
        network = models.get_model(name, **options).eval()
        torch.save(network.state_dict(), tmp_path / "weights")
        digest = hashlib.sha256((tmp_path / "weights").read_bytes()).hexdigest()
        path = (tmp_path / "weights").rename(
            tmp_path / f"{name}-{digest[:8] if hashed else '0' * 8}.pth"
        )
        transforms = models.get_model_weights(name).DEFAULT.transforms()
        monkeypatch.setattr(published, "find_weights", lambda short: (path.as_uri(), transforms))
        return network

    return make


@pytest.mark.parametrize(("name", "mean"), [("squeezenet1_1", 0.485), ("googlenet", 0.5)])
def test_published_weights_give_the_same_logits(publish, name, mean):
    network = publish(name)
    backbone = load_backbone("torchvision", name)
    assert backbone.card.mean[0] == pytest.approx(mean)
    assert (backbone.card.architecture, backbone.card.input_size[1]) == (f"torchvision/{name}", 224)
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        network.transform_input = False
        expected = network(images)
        found = backbone.module.forward_head(backbone.module.forward_features(images))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_damaged_file_is_rejected(publish):
    publish("squeezenet1_1", hashed=False)
    with pytest.raises(BackboneError, match="its hash is not in its name"):
        load_backbone("torchvision", "torchvision/squeezenet1_1")


def test_other_names_are_rejected_with_those_there_are():
    with pytest.raises(BackboneError, match=r"resnet18(.|\n)*alexnet, googlenet, squeezenet1_0"):
        load_backbone("torchvision", "resnet18")


def test_a_server_that_does_not_answer_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "cache"))
    transforms = models.get_model_weights("alexnet").DEFAULT.transforms()
    url = "http://127.0.0.1:9/alexnet-00000000.pth"
    monkeypatch.setattr(published, "find_weights", lambda short: (url, transforms))
    with pytest.raises(
        WeightsUnavailable, match="cannot download the pretrained weights of alexnet"
    ):
        load_backbone("torchvision", "alexnet")
