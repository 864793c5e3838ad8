"""The model card: its statements on data, plan, and model."""

import pytest

from rootstock.data.manifest import ImageRow, Manifest
from rootstock.model.card import render_card
from tests.bundles import tiny_backbone

METRICS = {
    "n_test": 100,
    "accuracy": 0.9,
    "accuracy_low": 0.82,
    "accuracy_high": 0.95,
    "balanced_accuracy": 0.88,
    "macro_f1": 0.87,
    "ece": 0.04,
}
REASON = {"pinned": False, "why": "Because."}


def a_manifest(n_classes=2):
    rows = [
        ImageRow(f"{n}.jpg", f"{n:064}", 1, 9, 9, "RGB", "JPEG", f"c{n % n_classes:02}",
                 f"c{n % n_classes:02}", split, n, "" if n else "empty")
        for n, split in enumerate(["train"] * 60 + ["val"] * 20 + ["test"] * 10)
    ]  # fmt: skip
    return Manifest(tuple(rows))


def card(*, manifest=None, facts=None, lineage=None, strategy="linear_probe"):
    return render_card(
        name="insects",
        manifest=manifest or a_manifest(),
        facts={
            "task": "single_label",
            "names": ["c00", "c01"],
            "card": tiny_backbone().card.model_dump(mode="json"),
            "strategy": strategy,
            "preprocess": {"input_size": 64},
            "unknown_share": 0.02,
            "lineage": {"data_hash": "d" * 64, "seed": 7} | (lineage or {}),
        }
        | (facts or {}),
        plan={
            "strategy": "linear_probe",
            "reasons": [
                {"choice": "strategy", "value": "linear_probe", **REASON},
                {"choice": "backbone", "value": "tiny (/home/me/tiny.safetensors)", **REASON},
                {"choice": "size", "value": "small", **REASON},
            ],
        },
        metrics=METRICS,
        rows=[{"class": "c00", "recall": "0.5", "images": "40"}],
        licence="CC0",
        source="a meadow",
    )


def test_the_card_counts_images_and_classes():
    lines = card().splitlines()
    assert lines[0] == "# Model card: insects"
    counts = "59 for training, 20 for validation, 10 for the test"
    assert f"- 89 images: {counts}. 1 of 90 files were quarantined." in lines
    assert "- Classes: c00 (44), c01 (45)." in lines
    assert "- Source of the images: a meadow. Licence of the images: CC0." in lines


def test_no_more_than_twenty_classes_are_listed():
    assert ", c19 (4)." in card(manifest=a_manifest(20))
    text = card(manifest=a_manifest(22))
    assert ", c19 (4) and 2 more." in text
    assert "c20" not in text


def test_card_gives_reasons_without_local_paths():
    lines = card().splitlines()
    assert "- Strategy: linear_probe. Because." in lines
    assert "- Backbone: tiny. Because." in lines
    assert "- size: small. Because." not in lines
    assert "/home/me" not in "\n".join(lines)


@pytest.mark.parametrize(("strategy", "said"), [("linear_probe", False), ("full_finetune", True)])
def test_model_of_another_strategy_than_planned_is_explained(strategy, said):
    assert ("did not improve the head" in card(strategy=strategy)) is said


def test_card_names_what_model_was_made_of():
    lineage = {"git_commit": "c" * 40, "plan_hash": "p" * 64, "weights_sha256": "w" * 64}
    text = card(lineage=lineage)
    assert f"Commit `{'c' * 40}`, data `{'d' * 12}`, plan `{'p' * 12}`" in text
    assert f"weights `{'w' * 12}`, seed 7." in text
    assert "- The images were not versioned by DVC" in text
    assert "Commit not recorded" in card()


def test_backbone_and_its_licence_are_named():
    text = card()
    assert "Backbone `tiny`, pretrained on nothing, licence Apache-2.0, which allows" in text
    assert "commercial use; from" in text
    facts = tiny_backbone().card.model_dump(mode="json") | {"name": "", "source": ""}
    text = card(facts={"card": facts})
    assert "Backbone `test_efficientnet`" in text
    assert "allows commercial use." in text
