import pytest

from rootstock.assess.choose import list_candidates, pick_backbone, split_candidate
from rootstock.assess.profile import BackboneScore
from rootstock.errors import BackboneError


def score(name, accuracy, *, gflop=1.0, excluded=""):
    return BackboneScore(
        candidate=name, name=name, accuracy=accuracy, noise=0.02, gflop=gflop, excluded=excluded
    )


def test_the_best_probe_wins_beyond_the_noise():
    winner, why = pick_backbone([score("small", 0.8, gflop=0.1), score("large", 0.9)])
    assert winner.name == "large"
    assert "best probe of 2" in why


def test_within_the_noise_the_cheaper_backbone_wins():
    winner, why = pick_backbone([score("small", 0.89, gflop=0.1), score("large", 0.9)])
    assert winner.name == "small"
    assert "10%" in why


def test_excluded_backbones_are_not_taken_and_all_reasons_are_said():
    out = score("large", 0.9, excluded="too slow")
    assert pick_backbone([score("small", 0.1), out])[0].name == "small"
    with pytest.raises(BackboneError, match=r"none of the 1(.|\n)*large: too slow"):
        pick_backbone([out])


def test_auto_lists_the_files_beside_the_configured_one(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors").touch()
    own = str(tmp_path / "b.safetensors")
    found = list_candidates("auto", weights=own, name="")
    assert found == [own, "embedded", str(tmp_path / "a.safetensors")]


def test_a_list_is_taken_as_it_is_after_the_configured_one():
    assert list_candidates(("hub:resnet50", "embedded"), weights="embedded", name="x") == [
        "embedded",
        "hub:resnet50",
    ]
    assert list_candidates("auto", weights="hub", name="resnet50")[:2] == [
        "hub:resnet50",
        "embedded",
    ]


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [("hub:resnet50", ("hub", "resnet50")), ("embedded", ("embedded", "")), ("w.st", ("w.st", ""))],
)
def test_a_candidate_names_weights_and_model(candidate, expected):
    assert split_candidate(candidate) == expected
