"""Registry names become parts of paths, so they have to be plain words."""

import pytest

from rootstock.errors import TrackingError
from rootstock.ports.registry import RegistryEntry


@pytest.mark.parametrize(
    "odd", ["../x", "x/../../../../victim", "/etc", "..", ".x", "a\\b", "a\n", ""]
)
def test_odd_names_are_rejected(odd):
    for fields in ({"name": odd}, {"version": odd}, {"aliases": (odd,)}, {"run_id": odd}):
        if fields == {"run_id": ""}:
            continue  # a version without a run
        with pytest.raises(TrackingError, match="the registry contains"):
            RegistryEntry(**{"name": "flowers", "version": "1"} | fields)


@pytest.mark.parametrize("plain", ["flowers", "my model", "v1.2-b_3", "0123abc", "blüten"])
def test_plain_names_are_taken(plain):
    assert RegistryEntry(plain, plain, plain, (plain,)).name == plain
