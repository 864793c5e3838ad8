"""docs/explanation/backbones.md lists the tested families, with the networks' figures."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rootstock.backbones.card import BackboneCard
from rootstock.backbones.create import BEYOND_TIMM, create_module
from rootstock.backbones.load import build_backbone, load_backbone
from tests.backbones.families import FAMILIES

PAGE = (Path(__file__).parents[2] / "docs/explanation/backbones.md").read_text(encoding="utf-8")
ROWS = re.findall(
    r"^\| ([^|]+) \| `([^`]+)` \| (\w+) \| (\d+) \| (\d+) \| ([\d.]+) M \|$", PAGE, re.M
)
CARD = json.loads(re.search(r"```json\n(.*?)```", PAGE, re.S)[1])


def test_the_page_lists_the_families_of_the_contract():
    assert [(row[0], row[1]) for row in ROWS] == [(f.name, f.architecture) for f in FAMILIES]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_library_taps_and_parameters_are_those_of_network(row):
    _, architecture, library, taps, _, millions = row
    with torch.device("meta"):
        module = create_module(architecture, num_classes=1000)
    home = BEYOND_TIMM.get(architecture, "timm")
    assert library.lower() in home
    assert int(taps) == len(module.feature_info) + 1
    assert millions == f"{sum(p.numel() for p in module.parameters()) / 1e6:.1f}"


@pytest.mark.parametrize("number", range(len(FAMILIES)), ids=[f.name for f in FAMILIES])
def test_the_smallest_input_is_the_smallest(number):
    family, size = FAMILIES[number], int(ROWS[number][4])
    module = create_module(family.architecture, num_classes=0, **family.kwargs).eval()
    with torch.inference_mode():
        assert module(torch.zeros(1, 3, size, size)).isfinite().all()
        if size != module.feature_info[-1]["reduction"]:
            with pytest.raises(RuntimeError, match=r"size"):
                module(torch.zeros(1, 3, size - 1, size - 1))


def test_the_cards_keys_are_explained():
    computed = {"name", "weights", "weights_sha256"}
    explained = set(re.findall(r"`([a-z_]+)`", "".join(re.findall(r"^\| (`[^|]+) \|", PAGE, re.M))))
    assert set(BackboneCard.model_fields) - computed <= explained
    assert set(CARD) <= set(BackboneCard.model_fields)


def test_the_example_card_loads_its_weights(tmp_path):
    weights = tmp_path / "flowers.safetensors"
    weights.with_suffix(".json").write_text(json.dumps(CARD))
    save_file(build_backbone(BackboneCard.model_validate(CARD)).module.state_dict(), weights)
    assert load_backbone(str(weights), "").card.num_classes == CARD["num_classes"]
