"""Other people write cards: errors about names and arguments include a hint."""

import pytest
import torch
from pydantic import ValidationError
from torchvision import models

from rootstock.backbones.card import EXAMPLE_CARD, BackboneCard
from rootstock.backbones.create import (
    BEYOND_TIMM,
    RESERVED,
    create_module,
    require_taps,
)
from rootstock.backbones.load import Backbone
from rootstock.errors import BackboneError
from tests.bundles import tiny_backbone


@pytest.mark.parametrize(
    ("name", "guess"),
    [
        ("resnet81", "resnet18"),
        ("lenet", "lenet5"),
        ("torchvision/alexnett", "torchvision/alexnet"),
        ("squeezenet1_1", "torchvision/squeezenet1_1"),
    ],
)
def test_an_unknown_architecture_guesses_what_was_meant(name, guess):
    with pytest.raises(BackboneError, match=f"unknown architecture '{name}'") as caught:
        create_module(name)
    assert caught.value.hint.startswith("did you mean ")
    assert guess in caught.value.hint


@pytest.mark.parametrize("name", ["", "hf-hub:owner/name", "qqqqqqqq"])
def test_unknown_name_hints_at_list_of_names(name):
    with pytest.raises(BackboneError, match=r"unknown architecture(.|\n)*list_models"):
        create_module(name)


@pytest.mark.parametrize(
    ("architecture", "argument", "guess"),
    [
        ("vit_tiny_patch16_224", "img_sizes", "img_size"),
        ("zfnet", "hiden", "hidden"),
        ("resnet18", "zero_init", "zero_init_last"),
    ],
)
def test_an_unknown_argument_guesses_what_was_meant(architecture, argument, guess):
    with pytest.raises(BackboneError, match=f"{architecture} cannot be built with") as caught:
        create_module(architecture, **{argument: 64})
    assert argument in caught.value.message
    assert guess in caught.value.hint


def test_unknown_argument_lists_known_arguments():
    with pytest.raises(BackboneError, match="arguments: num_classes, batch_norm"):
        create_module("lenet5", qqqq=1)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"img_size": "large"},
        {"patch_size": 0},
        {"depth": "four"},
        {"embed_dim": 191},
        {"act_layer": "nonsense"},
        {"block_fn": 3},
    ],
)
def test_wrong_value_of_argument_is_error_of_ours(kwargs):
    with pytest.raises(BackboneError, match="vit_tiny_patch16_224 cannot be built with"):
        create_module("vit_tiny_patch16_224", **kwargs)


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_arguments_that_load_or_change_kind_are_rejected(name):
    with pytest.raises(BackboneError, match=f"resnet18 must not get {name}"):
        create_module("resnet18", **{name: True})


def test_auxiliary_classifiers_stay_off():
    with pytest.raises(BackboneError, match="multiple values for keyword argument 'aux_logits'"):
        create_module("torchvision/googlenet", aux_logits=True)


def test_a_network_without_taps_is_rejected():
    with pytest.raises(BackboneError, match=r"no features at depth: it has no forward_features"):
        require_taps(torch.nn.Linear(1, 1), "linear")


@pytest.mark.parametrize("value", [(1, 2), object(), torch.nn.ReLU, {1: 2}])
def test_a_card_takes_plain_json_values_only(value):
    with pytest.raises(ValidationError, match="architecture_kwargs"):
        BackboneCard.model_validate(EXAMPLE_CARD | {"architecture_kwargs": {"act_layer": value}})


@pytest.mark.parametrize("architecture", sorted(BEYOND_TIMM))
def test_networks_beyond_timm_lose_and_get_a_classifier(architecture):
    module = create_module(architecture, num_classes=0).eval()
    images = torch.randn(1, 3, 96, 96)
    with torch.inference_mode():
        bare = module(images)
        module.reset_classifier(3)
        assert bare.shape == (1, module.head_hidden_size)
        assert module(images).shape == (1, 3)


@pytest.mark.parametrize("name", sorted(n for n in BEYOND_TIMM if n.startswith("torchvision/")))
def test_weights_of_torchvision_fit_and_give_its_logits(name):
    extra = {"aux_logits": False, "init_weights": False} if "googlenet" in name else {}
    original = models.get_model(name.partition("/")[2], num_classes=5, **extra).eval()
    module = create_module(name, num_classes=5).eval()
    module.load_state_dict(original.state_dict())
    images = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        assert torch.equal(module(images), original(images))


def test_vision_transformers_take_sizes_that_plans_choose():
    torch.manual_seed(0)
    module = create_module("vit_tiny_patch16_224", depth=2, img_size=64).eval()
    fixed = create_module(
        "vit_tiny_patch16_224", depth=2, img_size=64, dynamic_img_size=False, dynamic_img_pad=False
    ).eval()
    fixed.load_state_dict(module.state_dict())
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(module(images), fixed(images))
        assert module(torch.randn(1, 3, 100, 100)).isfinite().all()


def test_input_too_small_for_network_is_reported():
    module = create_module("inception_v3", num_classes=10)
    card = BackboneCard.model_validate(
        tiny_backbone().card.model_dump() | {"name": "inception", "input_size": (3, 299, 299)}
    )
    backbone = Backbone(card, module)
    with pytest.raises(
        BackboneError, match="inception cannot read images of 32 x 32 pixels"
    ) as told:
        backbone.require_size(32)
    assert "299" in told.value.hint
    backbone.require_size(107)
