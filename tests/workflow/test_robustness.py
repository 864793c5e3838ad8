"""How easily a model is fooled: as a command, and at the gate."""

import json

import numpy as np
import pytest

from rootstock.cli.main import main
from rootstock.config.load import load_config
from rootstock.config.paths import Paths
from rootstock.heads.linear import LinearHead
from rootstock.model.predictor import Predictor
from rootstock.tasks.single_label.task import SingleLabel
from rootstock.training.network import TransferNet
from rootstock.workflow.fragility import refuse_fragile
from rootstock.workflow.index import index_labelled
from tests.bundles import CLASSES, jpeg, tiny_backbone, tiny_bundle, write_tiny_bundle


@pytest.fixture
def labelled(tmp_path):
    """Return a folder of images whose classes are the tiny model's answers."""
    predictor = Predictor(tiny_bundle())
    for seed in range(400, 424):
        content = jpeg(seed)
        folder = tmp_path / "images" / predictor.predict([content])[0].label
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{seed}.jpg").write_bytes(content)
    return tmp_path / "images"


def list_rows(root, tmp_path):
    config = load_config(None, overrides=[f"data.root={json.dumps(str(root))}"])
    return index_labelled(config, Paths(tmp_path / "index"), SingleLabel()).rows()


def test_model_that_corruptions_fool_more_is_rejected(labelled, tmp_path):
    weights = np.zeros((len(CLASSES), tiny_backbone().width("last")), np.float32)
    head = LinearHead(weights, np.array([1, 0, 0], np.float32))
    always_one = TransferNet.build(tiny_backbone(), tap="last", head=head)
    weak = Predictor(write_tiny_bundle(tmp_path / "weak", network=always_one))
    strong = Predictor(tiny_bundle())
    rows = list_rows(labelled, tmp_path)
    refusal = refuse_fragile(weak, strong, rows, labelled, 0.0)
    assert "max_robustness_loss" in refusal
    assert not refuse_fragile(strong, weak, rows, labelled, 0.0)
    assert not refuse_fragile(weak, strong, rows, labelled, 1.0)


def test_command_writes_a_report_of_the_folder(labelled, tmp_path, capsys):
    out = tmp_path / "out"
    main(
        ["robustness", str(labelled), "--model", str(tiny_bundle()), "--out", str(out)]
        + ["--images", "6", "--json"]
    )
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["n_images"] == 6
    assert numbers["clean"] == 1.0
    assert numbers == json.loads((out / "robustness.json").read_text())
    assert "# Robustness" in (out / "robustness.md").read_text()
