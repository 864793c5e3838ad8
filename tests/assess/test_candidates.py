import pytest

from rootstock.assess.candidates import list_candidates, split_candidate


def test_auto_lists_files_next_to_configured_one(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors").touch()
    own = str(tmp_path / "b.safetensors")
    found = list_candidates("auto", weights=own, name="")
    assert found == [own, "packaged:tf_efficientnet_lite0", str(tmp_path / "a.safetensors")]


def test_candidate_list_follows_the_configured_backbone():
    chosen = ("hub:resnet50", "packaged:x")
    assert list_candidates(chosen, weights="packaged", name="x") == ["packaged:x", "hub:resnet50"]
    assert list_candidates("auto", weights="hub", name="resnet50")[:2] == [
        "hub:resnet50",
        "packaged:tf_efficientnet_lite0",
    ]


def test_automatic_weights_are_listed_once_by_name():
    name = "tf_efficientnet_lite0"
    assert list_candidates("auto", weights="auto", name=name) == [f"packaged:{name}"]


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [
        ("hub:resnet50", ("hub", "resnet50")),
        ("packaged:x", ("packaged", "x")),
        ("w.st", ("w.st", "")),
    ],
)
def test_a_candidate_names_weights_and_model(candidate, expected):
    assert split_candidate(candidate) == expected
