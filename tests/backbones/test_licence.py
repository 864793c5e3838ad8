import pytest

from rootstock.backbones.licence import (
    allows_commercial_use,
    describe_licence,
    require_commercial_use,
)
from rootstock.errors import BackboneError


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("Apache-2.0", True),
        ("apache-2.0", True),
        ("MIT", True),
        ("CC-BY-NC-4.0", False),
        ("cc-by-nc-sa-4.0", False),
        ("unknown", None),
        ("research use only", None),
    ],
)
def test_what_a_licence_allows(licence, allowed):
    assert allows_commercial_use(licence) is allowed


def test_a_licence_is_told_in_words():
    assert describe_licence("Apache-2.0") == "licence Apache-2.0, which allows commercial use"
    assert "read it before" in describe_licence("our own")


@pytest.mark.parametrize("licence", ["CC-BY-NC-4.0", "our own"])
def test_unknown_licence_is_rejected_for_commercial_use(licence):
    require_commercial_use("network", "MIT")
    with pytest.raises(BackboneError, match=rf"network have the licence {licence}"):
        require_commercial_use("network", licence)
