import pytest

from rootstock.assess.candidates import list_candidates, split_candidate


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
