import itertools

import pytest

from rootstock.assess.profile import BackboneFacts, DatasetProfile, Probe, Similarity
from rootstock.config.choices import PRIOR_SHARES
from rootstock.errors import ArtifactError, PlanError
from rootstock.plan.pins import Pins
from rootstock.plan.planner import judge_profile, make_transfer_plan
from rootstock.plan.report import SkippedRace, render_plan
from rootstock.plan.rules import MEANING, RECIPES, TABLE
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


def a_race(winner: str, rates=()) -> Race:
    tuned = "partial_finetune" if winner == "linear_probe" else winner
    heats = [
        Heat(
            strategy=name,
            n_train=500,
            n_val=40,
            epochs=epochs,
            accuracy=0.9,
            log_loss=0.3,
            rates=rates if epochs else (),
        )
        for name, epochs in (("linear_probe", 0), (tuned, 5))
    ]
    return Race(heats=tuple(heats), winner=winner, why="on 500 images it was better.")


def plan_for(profile, **pins) -> TransferPlan:
    return make_transfer_plan(profile, pins=Pins(**pins), l2_grid=L2_GRID)


def why(plan, choice):
    return next(reason for reason in plan.reasons if reason.choice == choice)


@pytest.mark.parametrize(("cell", "strategy"), TABLE.items())
def test_every_cell_becomes_a_plan_with_reasons(cell, strategy):
    plan = plan_for(make_profile(size=cell[0], similar=cell[1], probes=()))
    assert plan.strategy == ("linear_probe" if strategy == "early_features" else strategy)
    assert cell[0] in why(plan, "strategy").why


def test_heads_are_searched_over_taps_and_strengths():
    plan = plan_for(make_profile(similar=False, probes=EARLY_PROBES))
    assert plan.taps == ("block4", "last", "block4+last", "+".join(TAPS))
    assert [c["tap"] for c in plan.head_candidates] == list(plan.taps)
    assert plan.head_candidates[0]["strengths"] == list(L2_GRID)
    assert plan.finetune is None
    assert plan.finetune_candidates == ()


def test_only_partial_finetuning_freezes():
    partial = plan_for(make_profile(size="medium"))
    full = plan_for(make_profile(size="medium", similar=False))
    assert partial.finetune.freeze_through == "block2"
    assert full.finetune.freeze_through is None


def test_fine_tuning_and_heads_use_different_input_sizes():
    assert plan_for(make_profile(size="medium")).input_size == 128
    assert plan_for(make_profile()).input_size == 224


@pytest.mark.parametrize("strategy", MEANING)
def test_every_strategy_can_be_pinned(strategy):
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
    with pytest.raises(PlanError, match=r"plan\.freeze_through is `block9`"):
        plan_for(make_profile(), strategy="partial_finetune", freeze_through="block9")


def test_fine_tuning_from_an_earlier_tap_is_rejected():
    with pytest.raises(PlanError, match="fine-tunes up to the last tap"):
        plan_for(make_profile(), strategy="full_finetune", tap="block2")


def test_same_profile_gives_same_plan_bit_for_bit():
    first, second = plan_for(make_profile()), plan_for(make_profile())
    assert first.model_dump_json() == second.model_dump_json()
    assert first.hash == second.hash


def test_a_plan_survives_the_disk(tmp_path):
    plan = plan_for(make_profile(size="medium"))
    plan.write(tmp_path / "plan.json")
    assert TransferPlan.read(tmp_path / "plan.json") == plan


@pytest.mark.parametrize("kind", [TransferPlan, DatasetProfile])
def test_an_artifact_of_another_version_is_rejected(tmp_path, kind):
    (tmp_path / "old.json").write_text('{"format_version": 0}')
    with pytest.raises(ArtifactError, match=r"an older version wrote it(.|\n)*run the stage"):
        kind.read(tmp_path / "old.json")


def test_a_missing_plan_says_which_stage_makes_it(tmp_path):
    with pytest.raises(ArtifactError, match=r"is missing(.|\n)*run the stage `plan`"):
        TransferPlan.read(tmp_path / "plan.json")


def test_plan_states_what_the_licence_allows():
    plan = plan_for(make_profile())
    assert "allow" in why(plan, "backbone").why


def test_without_probes_no_accuracy_is_promised():
    plan = plan_for(make_profile(probes=()))
    assert all(candidate.expected_accuracy is None for candidate in plan.candidates)
    assert "unknown" in render_plan(plan, make_profile(probes=()))


def test_report_marks_cell_and_gives_every_reason():
    for size, similar in itertools.product(("small", "medium", "large"), (True, False)):
        profile = make_profile(size=size, similar=similar)
        plan = plan_for(profile)
        text = render_plan(plan, profile)
        assert text.count("(here)") == 1
        assert all(reason.why in text for reason in plan.reasons)


def test_evidence_overrules_table_and_reason_says_so():
    plan = plan_for(make_profile(similar=False))
    assert plan.evidence.ruled == "early_features"
    assert plan.strategy == "linear_probe"
    assert "overrules the table" in why(plan, "strategy").why


def test_the_winner_of_a_race_is_the_plan():
    race = a_race("partial_finetune")
    plan = make_transfer_plan(make_profile(), pins=Pins(), l2_grid=L2_GRID, race=race)
    assert plan.strategy == "partial_finetune"
    assert "Race: on 500 images" in why(plan, "strategy").why
    assert "**Race**: `partial_finetune` won" in render_plan(plan, make_profile())


def test_pin_overrides_a_race():
    race = a_race("partial_finetune")
    pins = Pins(strategy="linear_probe")
    plan = make_transfer_plan(make_profile(), pins=pins, l2_grid=L2_GRID, race=race)
    assert plan.strategy == "linear_probe"


def test_strategy_over_minutes_gives_way_to_cheaper_one():
    limits = {"full_finetune": "it is slow", "partial_finetune": "this one too"}
    profile = make_profile(size="large", probes=())
    plan = make_transfer_plan(profile, pins=Pins(), l2_grid=L2_GRID, too_slow=limits)
    assert plan.strategy == "linear_probe"
    assert "it is slow" in why(plan, "strategy").why


def test_report_shows_minutes_latency_and_backbones():
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


def test_a_plan_says_what_it_was_made_of():
    profile = make_profile(size="medium", similar=False)
    scores = (BackboneScore(candidate="hub", weights_sha256="w" * 64),)
    race = a_race("linear_probe")
    plan = make_transfer_plan(
        profile, pins=Pins(), l2_grid=L2_GRID, race=race, backbones=scores, budget_minutes=9.0
    )
    facts = plan.model_dump()
    assert {name: facts[name] for name in ("size_class", "similar", "similarity_score")} == {
        "size_class": "medium",
        "similar": False,
        "similarity_score": 0.2,
    }
    assert (plan.data_hash, plan.weights_sha256) == ("d" * 64, "w" * 64)
    assert (plan.backbone, plan.weights, plan.budget_minutes) == ("mobilenetv2_100", "hub", 9.0)
    assert (plan.race, plan.backbones, plan.evidence.ruled) == (race, scores, "probe_then_finetune")
    assert [candidate.strategy for candidate in plan.candidates] == list(MEANING)


def test_the_recipe_is_that_of_the_strategy():
    plan = plan_for(make_profile(size="medium"))
    assert plan.finetune.model_dump() == {
        "freeze_through": "block2",
        "batchnorm": "eval",
        "layer_decay": RECIPES["partial_finetune"].layer_decay,
        "head_multiplier": RECIPES["partial_finetune"].head_multiplier,
        "epochs": RECIPES["partial_finetune"].epochs["medium"],
        "augmentation": "medium",
        "flip": True,
        "norm_only": False,
    }
    assert plan_for(make_profile(size="medium", classes=("1", "2"))).finetune.flip is False
    assert plan_for(make_profile(size="large", similar=False)).finetune.augmentation == "light"


def test_pooling_of_probes_is_that_of_plan():
    profile = make_profile().model_copy(update={"pooling": "both"})
    plan = plan_for(profile)
    assert plan.pooling == why(plan, "pooling").value == "both"
    assert not [one for one in plan_for(make_profile()).reasons if one.choice == "pooling"]


def test_normalisation_layers_are_trained_if_that_is_pinned():
    plan = plan_for(make_profile(), strategy="norm_finetune")
    assert plan.finetune.norm_only
    assert plan.finetune.freeze_through is None
    assert next(one.value for one in plan.reasons if one.choice == "freezing") == (
        "all but normalisation layers"
    )


PINS = {
    "strategy": ("strategy", "partial_finetune"),
    "tap": ("tap", "last"),
    "freezing": ("freeze_through", "block3"),
    "input size": ("input_size", 160),
    "epochs": ("epochs", 3),
    "augmentation": ("augmentation", "strong"),
    "mirroring": ("flip", False),
    "learning rate": ("learning_rates", (0.5,)),
}
"""A choice of the plan -> the pin that fixes it, and a value."""


@pytest.mark.parametrize("choice", PINS)
def test_a_pin_is_marked_with_its_choice_only(choice):
    pin, value = PINS[choice]
    plan = plan_for(make_profile(), **{"strategy": "partial_finetune", pin: value})
    assert {r.choice for r in plan.reasons if r.pinned} == {choice, "strategy"}
    free = plan_for(make_profile(size="medium"))
    assert not any(reason.pinned for reason in free.reasons)
    assert set(PINS) <= {reason.choice for reason in free.reasons}


def test_race_winner_is_trained_at_race_rates():
    def rates(n_train, winner="probe_then_finetune", **pins):
        plan = make_transfer_plan(
            make_profile(similar=False, n_train=n_train),
            pins=Pins(**pins),
            l2_grid=L2_GRID,
            race=a_race(winner, rates=(2e-4,)),
        )
        return [trial["learning_rate"] for trial in plan.finetune_candidates]

    few, many = RECIPES["probe_then_finetune"].learning_rates, (1e-4, 3e-4)
    assert rates(200) == [2e-4]
    assert rates(1000) == [2e-4]
    assert rates(5000) == [min(many)]
    assert rates(1000, learning_rates=(0.5, 0.6)) == [0.5, 0.6]
    assert rates(1000, winner="linear_probe", strategy="probe_then_finetune") == list(few)


def test_longer_search_varies_unpinned_settings():
    plan = plan_for(make_profile(), strategy="partial_finetune")
    space = plan.finetune_space
    assert set(space) == {"learning_rate", "layer_decay", "augmentation", "freeze_through"}
    low, high = RECIPES["partial_finetune"].learning_rates
    assert (space["learning_rate"].low, space["learning_rate"].high) == (low / 3, high * 3)
    assert space["learning_rate"].log
    assert (space["layer_decay"].low, space["layer_decay"].high) == (0.6, 1.0)
    assert space["freeze_through"] == TAPS[:3]
    pinned = plan_for(
        make_profile(),
        strategy="partial_finetune",
        learning_rates=(0.1, 0.2),
        augmentation="light",
        freeze_through="block1",
    ).finetune_space
    assert set(pinned) == {"learning_rate", "layer_decay"}
    assert (pinned["learning_rate"].low, pinned["learning_rate"].high) == (0.1, 0.2)


def test_too_slow_strategy_is_replaced_by_affordable_one():
    def taken(profile, *slow):
        limits = dict.fromkeys(slow, "it is slow")
        plan = make_transfer_plan(profile, pins=Pins(), l2_grid=L2_GRID, too_slow=limits)
        return plan.strategy

    large = make_profile(size="large", probes=())
    assert taken(large, "full_finetune") == "partial_finetune"
    assert taken(large, "partial_finetune") == "full_finetune"
    assert taken(make_profile(probes=()), "full_finetune") == "linear_probe"


def test_report_rows_match_plan_and_profile():
    profile = make_profile(
        similarity=Similarity(
            score=0.25,
            similar=False,
            threshold=0.5,
            method="batchnorm",
            quarters=(0.1, 0.2, 0.3, 0.4),
            n_images=77,
        )
    )
    plan = make_transfer_plan(
        profile, pins=Pins(input_size=96), l2_grid=L2_GRID, race=a_race("partial_finetune")
    )
    text = render_plan(plan, profile, picture="plots/depth.png", minutes={"full_finetune": 2.0})
    lines = text.splitlines()
    assert "| small | linear_probe | **early_features** (here) |" in lines
    assert "| medium | partial_finetune | probe_then_finetune |" in lines
    assert "| linear_probe | 500 | 40 | only the head | 0.900 | 0.300 |" in lines
    assert "| partial_finetune | 500 | 40 | 5 | 0.900 | 0.300 |" in lines
    assert "| block2 | 0.600 | 0.010 |  |" in lines
    assert any(line.startswith("| input size | 96 (pinned) |") for line in lines)
    assert any("0.100, 0.200, 0.300, 0.400 (measured on 77 images)" in line for line in lines)
    assert "The similarity is 0.25, measured by batchnorm." in lines
    costs = {c.strategy: c for c in plan.candidates}
    minutes = costs["full_finetune"].reference_minutes
    low, high = costs["full_finetune"].expected_accuracy
    assert f"| full_finetune | {low:.3f} to {high:.3f} | prior | 2.0 | {minutes:.1f} |" in lines
    assert any(line.startswith("| **partial_finetune** | ") for line in lines)
    assert any("| not measured |" in line for line in lines if "| linear_probe | " in line)
    assert "![divergence and probes by depth](plots/depth.png)" in lines
    assert "Backbones compared" not in text
    assert "Serving one image" not in text


def test_report_says_what_plan_itself_has_taken():
    profile = make_profile()
    plan = plan_for(profile)
    times = {"assessment": (None, 0.53), "race": (4.0, 5.21), "training": (0.01, None)}
    lines = render_plan(plan, profile, times=times).splitlines()
    assert "| assessment | not estimated | 0.5 |" in lines
    assert "| race | 4.0 | 5.2 |" in lines
    assert "| training | under 0.1 | in reports/forecast.json |" in lines
    assert "Time on this machine" not in render_plan(plan, profile)


def test_report_states_why_there_was_no_race():
    profile = make_profile()  # its probes leave a doubt
    assert "not run, so the choice is not confirmed" in render_plan(plan_for(profile), profile)
    sure = make_profile(probes=())
    skipped = SkippedRace(("linear_probe", "full_finetune"), 4.0)
    text = render_plan(plan_for(sure), sure, skipped_race=skipped)
    assert "not needed. A race of `linear_probe` and `full_finetune` would" in text
    assert "at most about 4.0 minutes here" in text
    assert "| tap |" in text  # a choice of the plan
    assert "| tap | cross-validated" not in text
    assert "unknown" in text


def test_the_hash_of_a_plan_knows_every_choice():
    hashes = [
        plan_for(make_profile(), **pins).hash
        for pins in ({}, {}, {"input_size": 96}, {"strategy": "full_finetune"})
    ]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3
    assert all(len(value) >= 12 for value in hashes)


def test_strategy_and_evidence_use_profile_numbers():
    profile = make_profile(similar=False, n_train=40, median_per_class=5.0, probes=EARLY_PROBES)
    assert judge_profile(profile, shares=PRIOR_SHARES).contest == ()
    profile = make_profile(similar=False, median_per_class=3.0, probes=EARLY_PROBES)
    assert judge_profile(profile, shares=PRIOR_SHARES).contest == ()
    profile = make_profile(similar=False, probes=EARLY_PROBES)
    evidence = judge_profile(profile, shares=PRIOR_SHARES)
    assert evidence.contest == ("early_features", "probe_then_finetune")
    assert "0.800 (± 0.028)" in evidence.why  # of 200 probed images
    assert "change this by -1.0 to +13.0 points" in evidence.why  # dissimilar: a quarter more
    poor = dict.fromkeys(PRIOR_SHARES, (-1.0, -0.5))
    assert judge_profile(profile, shares=poor).contest == ()


@pytest.mark.parametrize(("n_train", "words"), [(2000, "As in the race"), (2001, "Low, for many")])
def test_race_rates_have_the_reason_of_size(n_train, words):
    profile = make_profile(n_train=n_train)
    race = a_race("partial_finetune")
    plan = make_transfer_plan(profile, pins=Pins(), l2_grid=L2_GRID, race=race)
    assert why(plan, "learning rate").why.startswith(words)


@pytest.mark.parametrize("tap", ["block4", "last"])
def test_every_block_or_whole_backbone_may_be_frozen(tap):
    profile = make_profile(size="medium")
    assert plan_for(profile, freeze_through=tap).finetune.freeze_through == tap
