"""Each key of params.yaml is mapped to a test that fails if the key has no effect."""

import ast
from pathlib import Path

import pytest

from rootstock.config.describe import describe_keys

TESTS = Path(__file__).parents[1]
STAGES = "workflow/test_settings.py"
PINNED = f"{STAGES}::test_a_pinned_choice_is_that_of_the_plan"
LIMITS = f"{STAGES}::test_an_image_over_a_limit_is_quarantined"
SIZES = f"{STAGES}::test_the_borders_of_the_sizes_are_settings"
HANDED = f"{STAGES}::test_a_setting_of_fine_tuning_is_handed_over"
STAGE_RUNS = "workflow/test_run.py"
TRAINING = "training/test_settings.py"
SPREAD = "integrations/test_connect.py::test_the_search_is_spread_as_its_settings_say"

NOTICED_BY = {
    "seed": [
        f"{STAGES}::test_another_seed_splits_other_images_off",
        f"{STAGES}::test_what_the_plan_chose_is_handed_over",
        f"{TRAINING}::test_another_seed_shows_the_images_in_another_order",
    ],
    "quality": ["plan/test_quality.py::test_fast_trains_a_head_where_balanced_fine_tunes"],
    "data.root": ["workflow/test_run.py::test_a_champion_of_other_classes_is_not_replaced"],
    "data.layout": [f"{STAGES}::test_the_layout_says_what_the_folders_are"],
    "data.licence": [f"{STAGES}::test_card_has_licence_and_source_of_images"],
    "data.source": [f"{STAGES}::test_card_has_licence_and_source_of_images"],
    "data.val_fraction": [f"{STAGES}::test_fractions_say_how_many_images_are_split_off"],
    "data.test_fraction": [f"{STAGES}::test_fractions_say_how_many_images_are_split_off"],
    "data.max_bytes": [LIMITS],
    "data.max_pixels": [LIMITS],
    "data.max_aspect_ratio": [LIMITS],
    "data.truncated": [f"{STAGES}::test_truncated_file_is_used_if_set"],
    "data.near_duplicate_bits": [f"{STAGES}::test_near_duplicate_bits_follow_the_setting"],
    "data.duplicates": ["data/test_groups.py::test_setting_decides_which_copies_are_grouped"],
    "data.group": ["data/test_groups.py::test_groups_by_name_stay_in_one_split"],
    "data.geometry": ["workflow/test_geometry.py::test_geometry_that_is_set_is_trained_and_served"],
    "data.min_per_class": [f"{STAGES}::test_class_of_fewer_images_than_least_is_error"],
    "data.workers": [f"{STAGES}::test_index_process_count_follows_the_setting"],
    "backbone.name": [f"{STAGES}::test_the_backbone_is_the_one_that_is_named"],
    "backbone.weights": [f"{STAGES}::test_the_backbone_is_the_one_that_is_named"],
    "backbone.candidates": [
        "workflow/test_race.py::test_every_candidate_is_assessed_or_reported_missing"
    ],
    "assess.small_below": [SIZES],
    "assess.small_per_class_below": [SIZES],
    "assess.large_from": [SIZES],
    "assess.similar_from": [f"{STAGES}::test_similarity_begins_where_the_setting_says"],
    "assess.sample": [f"{STAGES}::test_probe_image_count_follows_the_setting"],
    "assess.review_images": [f"{STAGES}::test_review_uses_image_count_and_target"],
    "assess.target_accuracy": [f"{STAGES}::test_review_uses_image_count_and_target"],
    "assess.probe_folds": [f"{STAGES}::test_probe_fold_count_follows_the_setting"],
    "plan.strategy": [
        PINNED,
        "workflow/test_run.py::test_each_strategy_ends_in_a_model_that_predicts",
    ],
    "plan.tap": [
        PINNED,
        "workflow/test_run.py::test_head_on_joined_taps_becomes_model_that_predicts",
    ],
    "plan.freeze_through": [PINNED, f"{STAGES}::test_what_the_plan_chose_is_handed_over"],
    "plan.input_size": [PINNED],
    "plan.augmentation": [
        PINNED,
        f"{STAGES}::test_what_the_plan_chose_is_handed_over",
        f"{TRAINING}::test_an_augmented_training_shows_changed_images",
    ],
    "plan.flip": [
        PINNED,
        f"{STAGES}::test_what_the_plan_chose_is_handed_over",
        f"{TRAINING}::test_a_training_that_mirrors_shows_mirror_images",
    ],
    "plan.race": [f"{STAGES}::test_doubt_is_raced_unless_setting_forbids_it"],
    "plan.shares": [f"{STAGES}::test_shares_set_the_expected_fine_tuning_gain"],
    "plan.ledger": [f"{STAGES}::test_run_is_added_to_ledger_that_is_named"],
    "plan.budget.minutes": [
        PINNED,
        "workflow/test_race.py::test_a_limit_of_minutes_rules_out_fine_tuning",
        "workflow/test_run.py::test_budget_ends_fine_tuning_and_model_is_written",
    ],
    "plan.max_latency_ms": [f"{STAGES}::test_a_backbone_over_a_limit_is_rejected"],
    "plan.max_params": [f"{STAGES}::test_a_backbone_over_a_limit_is_rejected"],
    "features.store": [f"{STAGES}::test_features_use_batch_size_and_store"],
    "features.batch_size": [f"{STAGES}::test_features_use_batch_size_and_store"],
    "features.device": [f"{STAGES}::test_features_are_computed_on_device_that_is_named"],
    "train.l2_grid": [PINNED],
    "train.class_weight": [
        f"{STAGES}::test_class_weight_lifts_rare_class_of_head",
        f"{STAGES}::test_class_weight_is_handed_over_to_fine_tuning",
        f"{TRAINING}::test_balanced_classes_weigh_equally_in_loss",
        f"{TRAINING}::test_adjusted_logits_include_class_shares",
        f"{TRAINING}::test_balanced_sampling_shows_the_rare_class_as_often",
    ],
    "train.mixup": [
        HANDED,
        f"{TRAINING}::test_mixup_shows_mixed_images_and_their_shared_labels",
        "training/test_mix.py::test_auto_mixes_large_data_only",
    ],
    "train.cutmix": [
        HANDED,
        f"{TRAINING}::test_cutmix_shows_boxes_and_shared_labels",
    ],
    "train.local_warp": [
        HANDED,
        "training/test_augment.py::test_local_warp_is_bounded_and_keeps_border",
    ],
    "train.channel_shift": [
        HANDED,
        "training/test_augment.py::test_channels_are_shifted_apart_up_to_their_share",
    ],
    "train.epochs": [PINNED, HANDED],
    "train.learning_rates": [PINNED],
    "train.trials": [
        "workflow/test_run.py::test_extra_trials_come_from_the_search_space",
        "workflow/test_run.py::test_fewer_trials_than_planned_are_the_first_ones",
    ],
    "train.ensemble": [
        "workflow/test_ensemble.py::test_ensemble_is_served_if_it_is_better_beyond_chance",
        "workflow/test_ensemble.py::test_one_network_is_kept_if_gain_may_be_chance",
    ],
    "train.batch_size": [
        HANDED,
        f"{TRAINING}::test_step_takes_batch_size_images",
    ],
    "train.mlp_hidden": ["workflow/test_run.py::test_head_with_hidden_layer_can_be_served"],
    "train.views": ["workflow/test_run.py::test_helpful_views_are_kept_with_their_cost"],
    "train.unknown_share": [
        f"{STAGES}::test_bundle_keeps_the_share_of_unknown",
        "model/test_novelty.py::test_smaller_share_of_unknown_has_farther_limit",
    ],
    "train.recompute": [
        HANDED,
        "training/test_finetune.py::test_recomputing_activations_gives_the_same_weights",
    ],
    "train.micro_batch": [
        HANDED,
        f"{TRAINING}::test_network_gets_at_most_a_micro_batch",
    ],
    "train.optimizer": [
        HANDED,
        f"{TRAINING}::test_step_is_no_longer_than_clipped_gradient_allows",
    ],
    "train.ema_decay": [
        HANDED,
        "training/test_finetune.py::test_averaged_weights_lag_behind_the_last_ones",
    ],
    "train.weight_decay": [
        HANDED,
        f"{TRAINING}::test_weight_decay_shrinks_weights_and_no_biases",
    ],
    "train.label_smoothing": [
        HANDED,
        f"{TRAINING}::test_label_smoothing_gives_every_class_share_of_target",
    ],
    "train.patience": [
        HANDED,
        "training/test_finetune.py::test_training_stops_when_validation_gets_no_better",
    ],
    "train.device": [
        f"{STAGES}::test_training_runs_on_the_device_that_is_named",
        f"{STAGES}::test_workers_and_device_of_trial_are_handed_over",
    ],
    "export.int8": ["workflow/test_twin.py::test_trained_model_has_twin_unless_never_is_set"],
    "export.max_loss": ["model/test_twin.py::test_a_score_that_falls_beyond_chance_is_rejected"],
    "search.engine": ["integrations/test_connect.py::test_sequential_engine_needs_no_ray"],
    "search.concurrent": [
        SPREAD,
        "integrations/ray/test_search.py::test_one_process_runs_trial_after_trial",
    ],
    "search.cpus_per_trial": [
        SPREAD,
        "integrations/ray/test_search.py::test_trial_has_cores_that_it_asks_for",
    ],
    "search.gpus_per_trial": [
        SPREAD,
        "integrations/ray/test_search.py::test_too_many_gpus_is_rejected",
    ],
    "search.workers_per_trial": [
        f"{STAGES}::test_workers_and_device_of_trial_are_handed_over",
        "integrations/ray/test_search.py::test_team_shares_trial_and_killed_member_is_replaced",
    ],
    "search.max_failures": [
        SPREAD,
        "integrations/ray/test_search.py::test_trial_that_always_dies_is_given_up",
    ],
    "tracking.enabled": ["integrations/test_connect.py::test_tracking_off_connects_nothing"],
    "tracking.experiment": [
        "integrations/test_connect.py::test_runs_use_experiment_and_patience_of_settings"
    ],
    "tracking.patience": [
        "integrations/test_connect.py::test_runs_use_experiment_and_patience_of_settings",
        "integrations/mlflow/test_outage.py::test_server_restart_neither_loses_nor_doubles_entries",
    ],
    "features.pooling": ["workflow/test_run.py::test_head_reads_means_and_maxima_if_configured"],
    "features.precision": [
        "workflow/test_int8_features.py::test_head_on_int8_features_is_served_in_int8"
    ],
    "backbone.require_commercial": [
        "workflow/test_start.py::test_weights_without_commercial_rights_are_rejected_if_set"
    ],
    "data.columns": ["data/test_columns.py::test_columns_may_have_other_names"],
    "data.time": ["data/test_temporal.py::test_the_newest_images_are_the_test_split"],
    "task.threshold": ["tasks/test_multi_label.py::test_thresholds_give_what_is_asked"],
    "task.name": ["tasks/test_second_task.py::test_the_numbers_are_learnt_and_written"],
    "registry.name": [f"{STAGES}::test_version_is_registered_under_name_that_is_given"],
    "registry.gate.metric": [f"{STAGES}::test_gate_compares_by_metric_that_is_given"],
    "registry.gate.rule": [f"{STAGE_RUNS}::test_another_gate_is_passed_once_more"],
    "registry.reference": [
        "workflow/test_run.py::test_model_names_the_training_images_that_it_carries"
    ],
    "registry.gate.max_robustness_loss": [
        "workflow/test_robustness.py::test_model_that_corruptions_fool_more_is_rejected"
    ],
    "registry.gate.min_gain": [f"{STAGE_RUNS}::test_another_gate_is_passed_once_more"],
}


def test_every_setting_has_a_test_that_notices_it():
    assert sorted(NOTICED_BY) == sorted(key.name for key in describe_keys())
    assert all(NOTICED_BY.values())


@pytest.mark.parametrize("test", sorted({test for tests in NOTICED_BY.values() for test in tests}))
def test_a_test_that_is_named_is_there(test):
    path, _, name = test.partition("::")
    module = ast.parse((TESTS / path).read_text(encoding="utf-8"))
    assert name in {node.name for node in module.body if isinstance(node, ast.FunctionDef)}
