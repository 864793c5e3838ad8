from functools import partial

import pytest

from rootstock.config.choices import PRIOR_SHARES
from rootstock.plan import rules


@pytest.mark.parametrize(
    ("size", "similar", "expected"),
    [
        ("small", True, "linear_probe"),
        ("small", False, "early_features"),
        ("medium", True, "partial_finetune"),
        ("medium", False, "probe_then_finetune"),
        ("large", True, "full_finetune"),
        ("large", False, "full_finetune"),
    ],
)
def test_every_cell_of_the_table_is_reached(size, similar, expected):
    assert rules.choose_strategy(size, similar=similar) == expected


def test_every_strategy_is_explained_and_in_the_table():
    assert set(rules.TABLE.values()) == set(rules.MEANING) - {"norm_finetune"}  # pinned only


TAPS = ["block1", "block2", "block3", "block4", "last"]


def test_only_early_features_looks_below_the_last_tap():
    assert rules.candidate_taps("linear_probe", TAPS, {}) == ["last"]
    assert rules.candidate_taps("full_finetune", TAPS, {}) == ["last"]


def test_early_features_tries_the_best_probed_taps_first():
    accuracy = {"block1": 0.2, "block2": 0.9, "block3": 0.5, "block4": 0.8, "last": 0.99}
    found = rules.candidate_taps("early_features", TAPS, accuracy)
    assert found == ["block2", "block4", "block3", "block2+last", "+".join(TAPS)]


def test_early_features_without_evidence_takes_the_deepest_taps():
    assert rules.candidate_taps("early_features", TAPS, {}, keep=1) == [
        "block4",
        "block4+last",
        "+".join(TAPS),
    ]


def test_free_head_choice_compares_kinds_and_joins():
    accuracy = {"block1": 0.2, "block2": 0.9, "block3": 0.5, "block4": 0.8, "last": 0.99}
    every = "+".join(TAPS)
    taps = partial(rules.candidate_taps, taps=TAPS, probe_accuracy=accuracy, pinned=False)
    assert taps("linear_probe") == ["last", "block2", "block2+last", every]
    assert taps("early_features") == ["block2", "last", "block2+last", every]
    assert taps("full_finetune") == ["last"]
    assert taps("linear_probe", probe_accuracy={}) == ["last"]
    two = partial(rules.candidate_taps, "linear_probe", ["block1", "last"], pinned=False)
    assert two({"block1": 0.5}) == ["last", "block1", "block1+last"]


def test_a_backbone_of_one_tap_has_nothing_earlier():
    assert rules.candidate_taps("early_features", ["last"], {}) == ["last"]


@pytest.mark.parametrize(
    ("taps", "expected"),
    [
        (TAPS, "block2"),
        (["block1", "last"], "block1"),
        ([f"block{i}" for i in range(1, 6)] + ["last"], "block3"),
    ],
)
def test_the_lower_half_of_the_blocks_is_frozen(taps, expected):
    assert rules.freeze_through(taps) == expected


@pytest.mark.parametrize(
    ("short_side", "card", "expected"),
    [(32, 224, 128), (130, 224, 160), (224, 224, 224), (3000, 224, 224), (64, 96, 96)],
)
def test_small_images_are_fine_tuned_at_small_size(short_side, card, expected):
    assert rules.finetune_input_size(short_side, card) == expected


@pytest.mark.parametrize(
    ("classes", "safe"),
    [
        (["0", "1", "12"], False),
        (["a", "b"], False),
        (["left hand", "right_hand"], False),
        (["turn-left", "straight"], False),
        (["ants", "bees"], True),
        (["7", "ants"], True),
        (["brightness", "leftover"], True),
    ],
)
def test_mirroring_is_unsafe_for_characters_and_sides(classes, safe):
    assert rules.mirror_is_safe(classes) is safe


def test_heads_are_expected_near_their_probe():
    low, high = rules.expected_accuracy(
        "early_features",
        "small",
        shares=PRIOR_SHARES,
        probe_last=0.5,
        probe_early=0.8,
        error=0.02,
    )
    assert (low, high) == (pytest.approx(0.8 - 1.645 * 0.02), pytest.approx(0.8 + 1.645 * 0.02))


def test_noise_widens_expected_fine_tuning_range():
    ranges = [
        rules.expected_accuracy(
            "full_finetune",
            "small",
            shares={"small": (0.0, 0.4)},
            probe_last=0.5,
            probe_early=0.5,
            error=error,
        )
        for error in (0.0, 0.1)
    ]
    assert ranges[0] == (pytest.approx(0.5), pytest.approx(0.7))
    half = (0.1**2 + (1.645 * 0.1) ** 2) ** 0.5
    assert ranges[1] == (pytest.approx(0.6 - half), pytest.approx(0.6 + half))


def test_dissimilar_data_expect_larger_fine_tuning_gain():
    near, far = (
        rules.expected_accuracy(
            "full_finetune",
            "medium",
            shares=rules.expected_shares(PRIOR_SHARES, similar=similar),
            probe_last=0.9,
            probe_early=0.9,
            error=0.01,
        )
        for similar in (True, False)
    )
    assert far > near


def test_expected_accuracy_stays_a_probability():
    for probe in (0.0, 1.0):
        for strategy in rules.MEANING:
            low, high = rules.expected_accuracy(
                strategy,
                "small",
                shares=PRIOR_SHARES,
                probe_last=probe,
                probe_early=probe,
                error=0.1,
            )
            assert 0.0 <= low <= high <= 1.0


def test_fine_tuning_costs_more_than_a_head():
    costs = [
        rules.training_gflop(
            strategy,
            n_train=100,
            n_val=10,
            epochs=5,
            n_rates=1,
            gflop_probe=1.0,
            gflop_finetune=1.0,
        )
        for strategy in ("linear_probe", "partial_finetune", "full_finetune")
    ]
    assert costs == [110, 110 + 5 * 210, 110 + 5 * 310]


def test_many_images_are_tuned_at_lower_rates():
    for strategy in rules.RECIPES:
        few, many = (rules.learning_rates(strategy, n) for n in (1_000, 10_000))
        assert max(many) < max(few)
        assert min(many) < min(few)
    assert rules.learning_rates("linear_probe", 1_000) == ()


def test_expected_gain_on_dissimilar_data_is_bounded():
    shares = {"small": (0.5, 0.9)}
    assert rules.expected_shares(shares, similar=False) == {"small": (0.75, 0.95)}
    assert rules.expected_shares(shares, similar=True) == shares
