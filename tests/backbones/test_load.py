import json
import shutil
import time

import pytest
import timm
import torch
from safetensors.torch import save_file

from rootstock.backbones import hub
from rootstock.backbones.card import BackboneCard
from rootstock.backbones.create import create_module
from rootstock.backbones.device import pick_device
from rootstock.backbones.load import (
    Backbone,
    build_module,
    load_backbone,
)
from rootstock.backbones.taps import module_stages
from rootstock.errors import BackboneError, WeightsUnavailable
from tests.bundles import tiny_backbone

FAMILIES = ["mobilenetv3_small_100", "xception41", "lenet5", "torchvision/squeezenet1_1"]
"""Members that the contract does not test, one of each kind."""


def backbone_of(architecture) -> Backbone:
    module = create_module(architecture, num_classes=7)
    card = BackboneCard(
        name=architecture,
        architecture=architecture,
        num_classes=7,
        input_size=(3, 224, 224),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        interpolation="bicubic",
        crop_pct=0.9,
        pretrained_on="nothing",
        license="none",
    )
    return Backbone(card, module)


@pytest.fixture
def weights(tmp_path):
    """A copy of the tiny weights and their card that a test may damage."""
    source = tiny_backbone().card.weights
    for suffix in ("safetensors", "json"):
        shutil.copy(source.replace("safetensors", suffix), tmp_path / f"tiny.{suffix}")
    return tmp_path / "tiny.safetensors"


@pytest.mark.parametrize("taps", [("block1", "block3"), ("block2", "last"), ("block1", "last")])
def test_joined_taps_are_their_features_side_by_side(taps):
    backbone = tiny_backbone()
    images = torch.randn(2, 3, 32, 32)
    parts = backbone.features(images, taps)
    joined = "+".join(taps)
    with torch.inference_mode():
        found = backbone.feature_module(joined)(images)
    torch.testing.assert_close(found, torch.cat([parts[name] for name in taps], dim=1))
    assert found.shape[1] == backbone.width(joined)
    torch.testing.assert_close(backbone.features(images, [joined])[joined], found)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_every_tap_of_a_family_gives_features(architecture):
    backbone = backbone_of(architecture)
    images = torch.randn(2, 3, 224, 224)
    found = backbone.features(images, backbone.tap_names)
    assert [tuple(found[t.name].shape) for t in backbone.taps] == [
        (2, t.channels) for t in backbone.taps
    ]


@pytest.mark.parametrize("architecture", FAMILIES)
def test_a_feature_module_gives_what_the_backbone_gives(architecture):
    backbone = backbone_of(architecture)
    images = torch.randn(2, 3, 224, 224)
    for tap in (backbone.tap_names[1], "last"):
        module = backbone.feature_module(tap).eval()
        with torch.inference_mode():
            torch.testing.assert_close(module(images), backbone.features(images, [tap])[tap])


@pytest.mark.parametrize("architecture", FAMILIES)
def test_stages_follow_the_depth_of_the_taps(architecture):
    module = build_module(backbone_of(architecture).card)
    stages = module_stages(module)
    order = [f"block{n + 1}" for n in range(len(module.feature_info))] + ["last"]
    assert set(stages.values()) <= set(order)
    names = [info["module"] for info in module.feature_info]
    assert [stages[name] for name in names] == order[: len(names)]


def test_an_unknown_tap_lists_the_taps():
    with pytest.raises(BackboneError, match=r"no tap 'block99'(.|\n)*block1"):
        tiny_backbone().features(torch.zeros(1, 3, 64, 64), ["block99"])


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(BackboneError, match="none.safetensors does not exist"):
        load_backbone(str(tmp_path / "none.safetensors"), "")


def test_a_file_that_could_hold_code_is_rejected(tmp_path):
    (tmp_path / "model.pth").write_bytes(b"x")
    with pytest.raises(
        BackboneError, match=r"model.pth is not a .safetensors file(.|\n)*can contain"
    ):
        load_backbone(str(tmp_path / "model.pth"), "")


def test_a_missing_card_comes_with_an_example(weights):
    weights.with_suffix(".json").unlink()
    with pytest.raises(BackboneError, match=r"tiny.json is missing(.|\n)*\"architecture\""):
        load_backbone(str(weights), "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": None}, "card .*tiny.json is incomplete: mean"),
        ({"crop_pct": 2}, "incomplete: crop_pct"),
        ({"architecture": "resnet1"}, r"unknown architecture 'resnet1'(.|\n)*did you mean resnet1"),
        ({"architecture": "resnet18"}, "does not fit the architecture of its card"),
        ({"num_classes": 11}, "does not fit the architecture of its card"),
        ({"architecture_kwargs": {"magic": 1}}, "cannot be built with {'magic': 1}"),
        ({"architecture_kwargs": {"num_classes": 3}}, "num_classes has a separate field"),
        ({"architecture_kwargs": {"checkpoint_path": "x.pth"}}, "must not get checkpoint_path"),
    ],
)
def test_a_wrong_card_is_explained(weights, change, message):
    path = weights.with_suffix(".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BackboneError, match=message):
        load_backbone(str(weights), "")


@pytest.mark.parametrize("text", ["[1, 2]", "{"])
def test_card_that_is_not_object_is_explained(weights, text):
    weights.with_suffix(".json").write_text(text)
    with pytest.raises(BackboneError, match=r"tiny.json is not a JSON object"):
        load_backbone(str(weights), "")


def test_damaged_weights_are_explained(weights):
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(BackboneError, match="is not a safetensors file"):
        load_backbone(str(weights), "")


def test_half_precision_weights_are_computed_in_single(tmp_path, weights):
    state = {k: v.half() for k, v in timm.create_model("test_efficientnet").state_dict().items()}
    save_file({k: v for k, v in state.items() if "num_batches" not in k}, weights)
    path = weights.with_suffix(".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_classes": 1000}))
    parameters = load_backbone(str(weights), "").module.parameters()
    assert {parameter.dtype for parameter in parameters} == {torch.float32}


def test_an_unknown_hub_name_guesses_what_was_meant():
    with pytest.raises(BackboneError, match=r"no model 'resnet51'(.|\n)*did you mean resnet"):
        load_backbone("hub", "resnet51")


@pytest.mark.parametrize("name", ["lenet5", "torchvision/alexnet"])
def test_networks_beyond_timm_are_not_requested_from_hub(name):
    with pytest.raises(BackboneError, match=rf"no weights for {name}(.|\n)*safetensors file"):
        load_backbone("hub", name)


def test_unreachable_hub_is_error_within_ten_seconds(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(hub, "_is_cached", lambda _: False)
    started = time.monotonic()
    with pytest.raises(
        WeightsUnavailable,
        match=r"cannot download the pretrained weights of resnet18(.|\n)*NAME.json",
    ):
        load_backbone("hub", "resnet18")
    assert time.monotonic() - started < 10


def test_an_offline_hub_says_so_at_once(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(hub, "_is_cached", lambda _: False)
    with pytest.raises(WeightsUnavailable, match="HF_HUB_OFFLINE is set"):
        load_backbone("hub", "resnet18")


@pytest.mark.parametrize(
    ("device", "message"), [("gpu", "unknown device 'gpu'"), ("cuda", "there is no GPU")]
)
def test_a_wrong_device_is_explained(device, message):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(BackboneError, match=message):
        pick_device(device)
