import numpy as np
import pytest

from rootstock.review import build
from rootstock.review.build import find_copies
from rootstock.review.findings import gather_findings
from rootstock.review.record import (
    Burst,
    CurvePoint,
    DataReview,
    Feasibility,
    Outlier,
    Shortcut,
    Suspect,
    Target,
)
from rootstock.review.report import render_review
from rootstock.tasks.single_label.task import SingleLabel
from tests.data.folders import photo, write_classes
from tests.data.test_broken_folders import index
from tests.plan.test_planner import make_profile

NOTHING = {"feasibility": None, "suspects": (), "outliers": (), "bursts": (), "shortcuts": ()}
CLEAN = {
    "leaks_across_given_splits": [],
    "label_conflicts": [],
    "duplicate_groups": [],
    "quarantined": [],
    "quarantine_reasons": {},
    "warnings": [],
}


def findings(profile=None, summary=CLEAN, **answers):
    found = gather_findings(a_review(**answers), profile or make_profile(), summary)
    return [finding.what for finding in found]


def test_clean_data_have_no_findings():
    assert findings() == []


def test_every_warning_of_the_index_is_a_finding():
    assert findings(summary=CLEAN | {"warnings": ["the folder a|b is ignored"]}) == [
        r"The folder a\|b is ignored."
    ]


def test_leaks_come_first():
    summary = CLEAN | {
        "leaks_across_given_splits": [["test/a.jpg", "train/a.jpg"]],
        "duplicate_groups": [["test/a.jpg", "train/a.jpg"]],
    }
    found = findings(summary=summary)
    assert "`test/a.jpg` and `train/a.jpg`" in found[0]
    assert len(found) == 1


def test_leaking_copies_need_an_action():
    leak, held = ["test/a.jpg", "train/a.jpg"], ["train/b.jpg", "train/c.jpg", "train/d.jpg"]
    summary = CLEAN | {"leaks_across_given_splits": [leak], "duplicate_groups": [leak, held]}
    first, second = gather_findings(a_review(), make_profile(), summary)
    assert "Keep all copies of an image in one split" in first.todo
    assert second.what.startswith("2 more images are copies")


def test_contradictory_copies_are_not_to_be_deleted():
    pair = ["good/a.jpg", "scratched/b.jpg"]
    summary = CLEAN | {"label_conflicts": [pair], "duplicate_groups": [pair]}
    (only,) = gather_findings(a_review(), make_profile(), summary)
    assert "both labels may be right" in only.todo
    assert "emove" not in only.todo


def test_every_question_can_become_a_finding():
    profile = make_profile(
        imbalance=40.0,
        train_per_class={"ants": 400, "bees": 10},
        short_side_quantiles=(20, 30, 32, 40, 50),
    )
    point = CurvePoint(n_images=100, accuracy=0.8, low=0.7, high=0.9)
    found = findings(
        profile,
        CLEAN | {"quarantined": [1], "quarantine_reasons": {"truncated": 1}},
        feasibility=Feasibility(ceiling=0.95, measured=(point,), extrapolated=(point,), targets=()),
        suspects=(Suspect(path="a", label="ants", suggested="bees", confidence=0.9),),
        outliers=(Outlier(path="b", label="ants", score=9.0),),
        bursts=(Burst(label="ants", paths=("c", "d"), splits=("test", "train")),),
        shortcuts=(Shortcut(fact="size", accuracy=0.9, chance=0.5, example="all"),),
    )
    text = " ".join(found)
    for word in (
        "The size predicts the class",
        "left out",
        "40 times",
        "bees",
        "tiny",
        "1 of 200 labels looks wrong",
        "1 image looks unlike all others",
        "1 burst (longest: 2 files); 1 divided",
    ):
        assert word in text


def a_review(**answers):
    return DataReview(
        data_hash="d", backbone="net", n_reviewed=200, findings=(), **(NOTHING | answers)
    )


def test_empty_review_reports_no_findings():
    text = render_review(a_review(), make_profile(), pictures={}, minutes={"linear_probe": 0.5})
    assert "No findings." in text
    assert "| linear_probe | 0.5 |" in text


def test_page_shows_targets_and_pictures():
    point = CurvePoint(n_images=100, accuracy=0.8, low=0.7, high=0.9)
    curve = Feasibility(
        ceiling=0.95,
        measured=(point,),
        extrapolated=(point,),
        targets=(Target(accuracy=0.9, n_images=1200), Target(accuracy=0.99, n_images=None)),
    )
    suspects = tuple(
        Suspect(path=f"{n}.jpg", label="ants", suggested="bees", confidence=0.9) for n in range(20)
    )
    text = render_review(
        a_review(feasibility=curve, suspects=suspects),
        make_profile(),
        pictures={"curve": "plots/curve.png"},
        minutes={},
    )
    assert "about 1,200 training images" in text
    assert "out of reach" in text
    assert "(plots/curve.png)" in text
    assert "5 more are in" in text
    assert "errors of the features" in text


def test_the_page_names_copies_the_contradictory_ones_first(tmp_path):
    root = write_classes(tmp_path / "images", {"ants": 6, "bees": 6})
    (root / "ants" / "again.png").write_bytes(photo(0))
    (root / "bees" / "twin.png").write_bytes(photo(1))
    copies = find_copies(index(root))
    assert [group.labels for group in copies] == [("ants", "bees"), ("ants",)]
    text = render_review(a_review(copies=tuple(copies)), make_profile(), pictures={}, minutes={})
    assert "| ants/1.png, bees/twin.png | ants, bees |" in text
    assert "| ants/0.png, ants/again.png | ants |" in text


def test_cut_list_of_doubts_is_not_count():
    doubt = Suspect(path="a.jpg", label="ants", suggested="bees", confidence=0.9)
    assert any("50 or more of" in text for text in findings(suspects=(doubt,) * 50))
    assert any(text.startswith("49 of") for text in findings(suspects=(doubt,) * 49))


def test_small_class_is_left_out_of_curve(tmp_path):
    rows = index(write_classes(tmp_path / "images", {"a": 40, "b": 40, "rare": 4})).rows()
    features = np.random.default_rng(0).normal(size=(len(rows), 8)).astype(np.float32)
    curve = build._feasibility(SingleLabel(), rows, features, None, 3, 0, np.arange(len(rows)))
    assert curve.left_out == ("rare",)
    text = render_review(a_review(feasibility=curve), make_profile(), pictures={}, minutes={})
    assert "Not included, because they have too few images: rare." in text


@pytest.mark.parametrize(("n_strata", "words"), [(1, "of 1 classes"), (2, ""), (0, "")])
def test_page_states_how_many_classes_were_reviewed(n_strata, words):
    profile = make_profile()
    assert len(profile.train_per_class) == 2
    text = render_review(a_review(n_strata=n_strata), profile, pictures={}, minutes={})
    assert (f"200 images {words} were" in text) == bool(words)


def test_corrections_are_a_finding_without_removed_images():
    summary = CLEAN | {
        "corrected": 3,
        "removed": 1,
        "quarantined": [{"path": "a.png", "reason": "removed"}],
        "quarantine_reasons": {"removed": 1},
        "warnings": ["new names that only corrections.csv has: wasp"],
    }
    first, second = gather_findings(a_review(), make_profile(), summary)
    assert "`rootstock corrections list`" in first.todo
    assert second.what == "3 labels corrected and 1 image removed by `corrections.csv`."
