import itertools

import pytest

from rootstock.assess.profile import BackboneFacts, DatasetProfile, Probe, Similarity
from rootstock.errors import ArtifactError, PlanError
from rootstock.plan.pins import Pins
from rootstock.plan.planner import make_transfer_plan
from rootstock.plan.report import render_plan
from rootstock.plan.rules import MEANING, TABLE
from rootstock.plan.transfer_plan import BackboneScore, Heat, Race, TransferPlan

TAPS = ("block1", "block2", "block3", "block4", "last")
L2_GRID = (0.01, 1.0)


def make_profile(*, size="small", similar=True, weights="hub", **changes) -> DatasetProfile:
    facts = {
        "data_hash": "d" * 64,
        "classes": ("ants", "bees"),
        "n_train": 200,
        "n_val": 40,
        "n_test": 40,
        "n_quarantined": 1,
        "train_per_class": {"ants": 100, "bees": 100},
        "median_per_class": 100.0,
        "imbalance": 1.0,
        "short_side_quantiles": (90, 95, 100, 110, 400),
        "size_class": size,
        "thresholds": {"small_below": 1000, "small_per_class_below": 10, "large_from": 20_000},
        "similarity": Similarity(
            score=0.8 if similar else 0.2, similar=similar, threshold=0.5, method="batchnorm"
        ),
        "probes": tuple(
            Probe(tap=tap, accuracy=0.5 + 0.1 * depth, std=0.01, n_images=200)
            for depth, tap in enumerate(TAPS)
        ),
        "backbone": BackboneFacts(
            name="mobilenetv2_100",
            architecture="mobilenetv2_100",
            weights=weights,
            weights_sha256="w" * 64,
            pretrained_on="ImageNet-1k",
            license="Apache-2.0",
            input_size=224,
            taps=TAPS,
            parameters=2_200_000,
            gflop_per_megapixel=12.0,
        ),
    }
    return DatasetProfile(**(facts | changes))


EARLY_PROBES = tuple(
    Probe(tap=tap, accuracy=accuracy, std=0.01, n_images=200)
    for tap, accuracy in zip(TAPS, (0.5, 0.6, 0.7, 0.8, 0.55), strict=True)
)


def a_race(winner: str) -> Race:
    heats = [
        Heat(strategy=name, n_train=500, n_val=40, epochs=5, accuracy=0.9, log_loss=0.3)
        for name in ("linear_probe", "partial_finetune")
    ]
    return Race(heats=tuple(heats), winner=winner, why="on 500 images it was better.")


def plan_for(profile, **pins) -> TransferPlan:
    return make_transfer_plan(profile, pins=Pins(**pins), l2_grid=L2_GRID)


def why(plan, choice):
    return next(reason for reason in plan.reasons if reason.choice == choice)


@pytest.mark.parametrize(("cell", "strategy"), TABLE.items())
def test_every_cell_becomes_a_plan_with_reasons(cell, strategy):
    plan = plan_for(make_profile(size=cell[0], similar=cell[1], probes=()))
    assert plan.strategy == strategy
    assert cell[0] in why(plan, "strategy").why


def test_heads_are_searched_over_taps_and_strengths():
    plan = plan_for(make_profile(similar=False, probes=EARLY_PROBES))
    assert plan.taps == ("block4", "block3", "block2", "block4+last")
    assert [c["tap"] for c in plan.head_candidates] == list(plan.taps)
    assert plan.head_candidates[0]["strengths"] == list(L2_GRID)
    assert plan.finetune is None
    assert plan.finetune_candidates == ()


def test_only_partial_finetuning_freezes():
    partial = plan_for(make_profile(size="medium"))
    full = plan_for(make_profile(size="medium", similar=False))
    assert partial.finetune.freeze_through == "block2"
    assert full.finetune.freeze_through is None


def test_fine_tuning_takes_the_size_of_the_images_and_heads_that_of_the_card():
    assert plan_for(make_profile(size="medium")).input_size == 128
    assert plan_for(make_profile()).input_size == 224


@pytest.mark.parametrize("strategy", MEANING)
def test_every_strategy_can_be_pinned_and_is_recorded_as_such(strategy):
    plan = plan_for(make_profile(), strategy=strategy)
    assert plan.strategy == strategy
    assert why(plan, "strategy").pinned
    assert "linear_probe" in why(plan, "strategy").why


@pytest.mark.parametrize(
    ("pins", "field", "value"),
    [
        ({"tap": "block2", "strategy": "early_features"}, "taps", ("block2",)),
        ({"tap": "last+block2", "strategy": "early_features"}, "taps", ("block2+last",)),
        ({"input_size": 160}, "input_size", 160),
        ({"strategy": "full_finetune", "learning_rates": (0.1,)}, "finetune_candidates",
         ({"learning_rate": 0.1},)),
    ],
)  # fmt: skip
def test_a_pinned_choice_is_kept(pins, field, value):
    assert getattr(plan_for(make_profile(), **pins), field) == value


@pytest.mark.parametrize(
    ("pins", "choice"),
    [
        ({"freeze_through": "block3"}, "freezing"),
        ({"augmentation": "none"}, "augmentation"),
        ({"flip": False}, "mirroring"),
        ({"epochs": 3}, "epochs"),
    ],
)
def test_a_pinned_fine_tuning_choice_is_recorded(pins, choice):
    plan = plan_for(make_profile(), strategy="partial_finetune", **pins)
    reason = why(plan, choice)
    assert reason.pinned
    assert str(next(iter(pins.values()))) in reason.value


def test_an_unknown_tap_lists_those_there_are():
    with pytest.raises(PlanError, match=r"plan\.tap is `blok2`(.|\n)*block1, block2"):
        plan_for(make_profile(), tap="blok2")


def test_an_unknown_freezing_depth_is_an_error():
    with pytest.raises(PlanError, match=r"plan\.freeze_through is `last`"):
        plan_for(make_profile(), strategy="partial_finetune", freeze_through="last")


def test_fine_tuning_from_an_earlier_tap_is_refused():
    with pytest.raises(PlanError, match="fine-tunes through the last tap"):
        plan_for(make_profile(), strategy="full_finetune", tap="block2")


def test_the_same_profile_gives_the_same_plan_bit_for_bit():
    first, second = plan_for(make_profile()), plan_for(make_profile())
    assert first.model_dump_json() == second.model_dump_json()
    assert first.hash == second.hash


def test_a_plan_survives_the_disk(tmp_path):
    plan = plan_for(make_profile(size="medium"))
    plan.write(tmp_path / "plan.json")
    assert TransferPlan.read(tmp_path / "plan.json") == plan


@pytest.mark.parametrize("kind", [TransferPlan, DatasetProfile])
def test_an_artifact_of_another_version_is_refused(tmp_path, kind):
    (tmp_path / "old.json").write_text('{"format_version": 0}')
    with pytest.raises(ArtifactError, match=r"an older one wrote it(.|\n)*run the stage"):
        kind.read(tmp_path / "old.json")


def test_a_missing_plan_says_which_stage_makes_it(tmp_path):
    with pytest.raises(ArtifactError, match=r"is missing(.|\n)*run the stage `plan`"):
        TransferPlan.read(tmp_path / "plan.json")


def test_the_embedded_backbone_is_called_a_demo_in_plain_words():
    plan = plan_for(make_profile(weights="embedded"))
    assert "right for a demo" in why(plan, "backbone").why


def test_without_probes_no_accuracy_is_promised():
    plan = plan_for(make_profile(probes=()))
    assert all(candidate.expected_accuracy is None for candidate in plan.candidates)
    assert "not known" in render_plan(plan, make_profile(probes=()))


def test_the_report_marks_the_cell_and_tells_every_reason():
    for size, similar in itertools.product(("small", "medium", "large"), (True, False)):
        profile = make_profile(size=size, similar=similar)
        plan = plan_for(profile)
        text = render_plan(plan, profile)
        assert text.count("(here)") == 1
        assert all(reason.why in text for reason in plan.reasons)


def test_evidence_overrules_the_table_and_the_reason_says_so():
    plan = plan_for(make_profile(similar=False))
    assert plan.evidence.ruled == "early_features"
    assert plan.strategy == "linear_probe"
    assert "overrules the table" in why(plan, "strategy").why


def test_the_winner_of_a_race_is_the_plan():
    race = a_race("partial_finetune")
    plan = make_transfer_plan(make_profile(), pins=Pins(), l2_grid=L2_GRID, race=race)
    assert plan.strategy == "partial_finetune"
    assert "The race: on 500 images" in why(plan, "strategy").why
    assert "won by `partial_finetune`" in render_plan(plan, make_profile())


def test_a_pin_stands_above_a_race():
    race = a_race("partial_finetune")
    pins = Pins(strategy="linear_probe")
    plan = make_transfer_plan(make_profile(), pins=pins, l2_grid=L2_GRID, race=race)
    assert plan.strategy == "linear_probe"


def test_a_strategy_over_the_minutes_gives_way_to_a_cheaper_one():
    limits = {"full_finetune": "it is slow", "partial_finetune": "this one too"}
    profile = make_profile(size="large", probes=())
    plan = make_transfer_plan(profile, pins=Pins(), l2_grid=L2_GRID, too_slow=limits)
    assert plan.strategy == "linear_probe"
    assert "it is slow" in why(plan, "strategy").why


def test_the_report_tells_minutes_latency_and_compared_backbones():
    profile = make_profile()
    name, own = profile.backbone.name, profile.backbone.weights_sha256
    scores = (
        BackboneScore(candidate="a.safetensors", weights_sha256=own, name=name, accuracy=0.9),
        BackboneScore(candidate="b.safetensors", weights_sha256="b", name=name, accuracy=0.8),
        BackboneScore(candidate="hub:x", excluded="no hub here"),
    )
    plan = make_transfer_plan(
        profile, pins=Pins(), l2_grid=L2_GRID, backbones=scores, backbone_why="the best."
    )
    text = render_plan(
        plan,
        profile,
        minutes={"linear_probe": 1.25},
        latency_ms=3.14,
        machine="box",
        backbones_here={own: (7.51, 0.3)},
    )
    assert why(plan, "backbone").why.startswith("the best. It was pretrained")
    assert all(part in text for part in ("| 1.2 |", "3.1 ms", "(box)", "not used: no hub here"))
    rows = [line for line in text.splitlines() if ".safetensors" in line and "| 0.00 |" in line]
    assert [row.split(" | ")[0] for row in rows] == ["| **a.safetensors**", "| b.safetensors"]
    assert "| 7.5 ms | 0.3 minutes |" in rows[0]
    assert "| not measured | not measured |" in rows[1]
