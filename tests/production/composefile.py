"""docker-compose.yml as Compose reads it: anchors merged, settings filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yml"
_SETTING = re.compile(r"\$(?:(\$)|\{(\w+)(?::-((?:[^{}]|\$\{[^{}]*\})*))?\})")
"""`${NAME:-default}`; the default may contain another one, as in Compose."""


def read_compose(settings: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the file with `${NAME:-default}` filled from `settings` first, and `$$` as `$`."""

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: filled(item) for key, item in value.items()}
        if isinstance(value, list):
            return [filled(item) for item in value]
        return _fill(value, settings or {}) if isinstance(value, str) else value

    return filled(yaml.safe_load(COMPOSE_FILE.read_text(encoding="utf-8")))


def settings_of_the_file() -> dict[str, str]:
    """Return every setting with its default."""
    found = _SETTING.findall(COMPOSE_FILE.read_text(encoding="utf-8"))
    return {name: _fill(default, {}) for escaped, name, default in found if not escaped}


def _fill(text: str, settings: Mapping[str, str]) -> str:
    def chosen(found: re.Match[str]) -> str:
        escaped, name, default = found.groups()
        return "$" if escaped else settings.get(name, _fill(default or "", settings))

    return _SETTING.sub(chosen, text)


def built_environment(dockerfile: Path) -> dict[str, str]:
    """Return the values of a Dockerfile's ENV lines."""
    text = dockerfile.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^ENV (.+)$", text, flags=re.MULTILINE)
    return dict(pair.split("=", 1) for line in lines for pair in line.split())
