"""URIs of registered models."""

import pytest

from rootstock.errors import ConfigError
from rootstock.registry.model_uri import parse_model_uri


def test_model_uris_are_split():
    assert parse_model_uri("models:/flowers@champion") == ("flowers", "champion", "")
    assert parse_model_uri("models:/flowers/3") == ("flowers", "", "3")


@pytest.mark.parametrize(
    "uri",
    [
        "flowers",
        "models:/flowers",
        "models:/flowers/latest",
        "models:/a/b@c",
        "models:/@x",
        "models:/..@x",
        "models:/.a/3",
    ],
)
def test_other_model_uris_are_rejected(uri):
    with pytest.raises(ConfigError, match=r"is not the address of a reg.*\n.*models:/NAME@ALIAS"):
        parse_model_uri(uri)
