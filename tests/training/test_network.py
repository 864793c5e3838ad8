import numpy as np
import pytest
import torch

from rootstock.heads.linear import LinearHead
from rootstock.training.network import TransferNet
from tests.bundles import tiny_backbone, tiny_network

IMAGES = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("tap", ["block2", "last"])
def test_logits_are_those_of_head_on_backbones_features(tap):
    backbone = tiny_backbone()
    features = backbone.features(IMAGES, [tap])[tap].numpy()
    random = np.random.default_rng(0)
    head = LinearHead(
        random.normal(size=(3, features.shape[1])).astype(np.float32), np.ones(3, np.float32)
    )
    network = TransferNet.build(backbone, tap=tap, head=head)
    with torch.inference_mode():
        found = network(IMAGES).numpy()
    np.testing.assert_allclose(found, head.outputs(features), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tap", ["block2", "last"])
def test_card_rebuilds_the_network_for_its_weights(tap):
    original = tiny_network(tap)
    card = tiny_backbone().card.model_dump(mode="json")
    rebuilt = TransferNet.from_card(card, tap=tap, n_outputs=3)
    rebuilt.load_state_dict(original.state_dict())
    with torch.inference_mode():
        assert torch.equal(rebuilt(IMAGES), original(IMAGES))


def test_training_does_not_change_the_backbone():
    backbone = tiny_backbone()
    before = {name: value.clone() for name, value in backbone.module.state_dict().items()}
    network = tiny_network()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    after = backbone.module.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
