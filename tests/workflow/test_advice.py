"""A whole run is proposed if the plan would change, or many labels of a tuned backbone did."""

from dataclasses import replace

import pytest

from rootstock.config.choices import PRIOR_SHARES
from rootstock.data.label_corrections import ORIGINAL, REMOVE, Correction
from rootstock.data.manifest import ImageRow, Manifest
from rootstock.plan.rules import is_finetune
from rootstock.workflow.advice import advise_run
from rootstock.workflow.corrections import ProjectLabels
from tests.plan.test_planner import make_profile, plan_for

IMAGES = 900


def row(number, split="train"):
    target = ("ants", "bees")[number % 2]
    name, digest = f"{number}.png", f"{number:064x}"
    return ImageRow(name, digest, 1, 9, 9, "RGB", "PNG", target, target, split, number, "")


@pytest.fixture
def labels(tmp_path):
    """900 training images and a test image, just under the border of small data."""
    rows = [*map(row, range(IMAGES)), row(IMAGES, "test")]
    return ProjectLabels(tmp_path, Manifest(tuple(rows)), ())


def correct(labels, *numbers, new="wasps", old="ants"):
    rows = [
        Correction(f"{number:064x}", old, new, "Ada", "2026-11-30T09:00:00+00:00")
        for number in numbers
    ]
    return replace(labels, corrections=(*labels.corrections, *rows))


def advise(labels, profile=None, *, plan=None, pinned=False):
    profile = profile or make_profile(n_train=IMAGES, median_per_class=450.0)
    return advise_run(
        labels,
        profile,
        plan or plan_for(profile),
        (),
        shares=PRIOR_SHARES,
        pinned=pinned,
        last_minutes=2.0,
    )


def test_without_changed_labels_nothing_is_proposed(labels):
    advice = advise(labels)
    assert (advice.pays, advice.changed, advice.n_train) == (False, 0, IMAGES)
    assert not advise(correct(labels, IMAGES)).changed  # a test image
    assert not advise(correct(labels, 0, new="ants")).changed  # it was confirmed


def test_a_few_corrections_are_for_a_new_head(labels):
    advice = advise(correct(labels, 0, 2, 4))
    assert (advice.pays, advice.changed) == (False, 3)
    assert "A new head learns these labels" in advice.why
    assert advice.minutes == 2.0
    assert advice.points[0] < advice.points[1]


def test_more_images_that_change_plan_are_worth_run(labels):
    added = correct(labels, *range(2000, 2200), new="bees", old="")
    advice = advise(added)
    assert (advice.pays, advice.changed, advice.n_train) == (True, 200, 1100)
    assert "With 1,100 training images the plan would no longer be the same" in advice.why
    assert advice.minutes > 0
    assert not advise(added, pinned=True).pays


def test_backbone_tuned_on_changed_labels_needs_a_run(labels):
    profile = make_profile(size="medium", n_train=IMAGES, median_per_class=450.0)
    profile = profile.model_copy(update={"thresholds": profile.thresholds | {"small_below": 100}})
    plan = plan_for(profile)
    assert is_finetune(plan.strategy)
    some = correct(labels, *range(0, 2 * 40, 2))
    assert not advise(some, profile, plan=plan).pays
    many = correct(labels, *range(0, 2 * 50, 2))
    advice = advise(many, profile, plan=plan)
    assert advice.pays
    assert "labels of which 6 % have changed" in advice.why


def test_correction_undone_after_the_index_is_a_changed_label(labels):
    rows = list(labels.manifest.images)
    rows[0] = rows[0]._replace(target="wasps", stratum="wasps")
    indexed = Manifest(tuple(rows), originals={rows[0].path: "ants"})
    corrected = correct(replace(labels, manifest=indexed), 0)
    assert advise(corrected).changed == 0
    assert advise(correct(corrected, 0, new=ORIGINAL, old="wasps")).changed == 1
    assert advise(correct(correct(labels, 0), 0, new=ORIGINAL, old="wasps")).changed == 0


def test_removed_images_are_not_counted_as_training_images(labels):
    advice = advise(correct(labels, 0, 2, new=REMOVE))
    assert (advice.changed, advice.n_train) == (2, IMAGES - 2)
