"""Addresses of registered models: ``models:/NAME@ALIAS`` and ``models:/NAME/VERSION``."""

from __future__ import annotations

import re
from typing import NamedTuple

from rootstock.errors import ConfigError
from rootstock.ports.registry import is_token


class ModelName(NamedTuple):
    """A registered model, by alias or by version; the other field is empty."""

    name: str
    alias: str
    version: str


def parse_model_uri(uri: str) -> ModelName:
    """Split ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.

    Raises:
        ConfigError: the address does not have this form.
    """
    match = re.fullmatch(r"models:/([^/@:]+)(?:@([^/@]+)|/(\d+))", uri)
    if not match or not all(is_token(part) for part in match.groups() if part):
        raise ConfigError(
            f"{uri!r} is not the address of a registered model",
            hint="write models:/NAME@ALIAS such as models:/rootstock@champion, or "
            "models:/NAME/VERSION such as models:/rootstock/3",
        )
    return ModelName(*match.groups(default=""))
