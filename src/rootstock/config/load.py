"""params.yaml and ``key=value`` overrides in, Config out.

All problems are reported at once, each with its place, the rule, and the key that was probably
meant.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from rootstock.config.schema import Config
from rootstock.errors import ConfigError


def load_config(path: Path | None, *, overrides: Sequence[str] = ()) -> Config:
    """Read params.yaml (None: all defaults) and apply ``section.key=value`` overrides.

    Raises:
        ConfigError: the file is missing, is not YAML, or any key or value is wrong; the
            message lists every problem found.
    """
    tree = {} if path is None else _read_yaml(path)
    where = "--set" if path is None else str(path)
    for override in overrides:
        _apply_override(tree, override)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        problems = "\n".join(f"  {_explain(item)}" for item in error.errors())
        raise ConfigError(
            f"{where} has {error.error_count()} problem(s):\n{problems}",
            hint="`rootstock params` lists every key with its bounds and default",
        ) from None


def describe_keys() -> Iterator[tuple[str, str, str]]:
    """Yield (dotted key, default, description) for every key of params.yaml."""
    yield from _describe(Config, "")


def _describe(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _describe(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(field.default), field.description or ""


class _StrictLoader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice: YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in keys:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            keys.add(key)
        return super().construct_mapping(node, deep=deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)  # noqa: S506 - it is safe
    except FileNotFoundError:
        raise ConfigError(
            f"there is no {path}", hint="run from the project's folder, or leave it out"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold sections such as `data:`, not {tree!r}")
    return tree


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(
            f"the override {override!r} is not of the form key=value",
            hint="for example --set plan.strategy=linear_probe",
        )
    *sections, last = key.strip().split(".")
    for section in sections:
        branch = tree.setdefault(section, {})
        if not isinstance(branch, dict):
            raise ConfigError(f"{key}: `{section}` is a value, not a section")
        tree = branch
    try:
        tree[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"the value of the override {override!r} is not valid: {error}") from None


def _explain(item: typing.Mapping[str, Any]) -> str:
    # pydantic puts the branch of a union into the place; users only know the keys.
    known = {part for key, _, _ in describe_keys() for part in key.split(".")}
    place = [str(part) for part in item["loc"] if isinstance(part, int) or part in known]
    if item["type"] == "extra_forbidden":
        key = ".".join(str(part) for part in item["loc"])
        return f"{key}: no such key{_did_you_mean(key)}"
    return f"{'.'.join(place)}: {item['msg']}, got {item['input']!r}"


def _did_you_mean(key: str) -> str:
    keys = [known for known, _, _ in describe_keys()]
    sections = sorted({known.split(".")[0] for known in keys})
    close = difflib.get_close_matches(key, keys + sections, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""
