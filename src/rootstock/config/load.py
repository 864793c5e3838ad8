"""Read params.yaml and ``key=value`` overrides into a Config.

All problems are reported at once, each with its key, the rule, and a suggestion for a
misspelt key.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rootstock.config.describe import describe_keys, did_you_mean, show_value
from rootstock.config.schema import Config
from rootstock.errors import ConfigError

MAX_PROBLEMS, MAX_NAME_CHARACTERS = 20, 100
"""Problems that a message shows: the file may contain anything."""
MAX_FILE_BYTES = 1_000_000
_FAULTS = (
    *(yaml.YAMLError, ArithmeticError, AttributeError, LookupError, RecursionError),
    *(TypeError, ValueError),
)
"""Errors that PyYAML raises for text that is not YAML, or not a value of the type it names."""


def load_config(path: Path | None, *, overrides: Sequence[str] = ()) -> Config:
    """Read params.yaml (None: all defaults) and apply ``section.key=value`` overrides.

    Raises:
        ConfigError: the file is missing, is not YAML, or a key or value is wrong. The message
          lists every problem.
    """
    tree = {} if path is None else _read_yaml(path)
    where = "--set" if path is None else str(path)
    for override in overrides:
        _apply_override(tree, override)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        problems = list(islice(_explain(error.errors(include_url=False)), MAX_PROBLEMS + 1))
        count = f"{len(problems)} problems" if len(problems) > 1 else "a problem"
        if len(problems) > MAX_PROBLEMS:
            count, problems[MAX_PROBLEMS:] = f"more than {MAX_PROBLEMS} problems", ["and more"]
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise ConfigError(
            f"{where} has {count}:\n{lines}",
            hint="`rootstock params` lists every key with its default and its allowed values",
        ) from None


class _StrictLoader(yaml.SafeLoader):
    """A safe loader that refuses a duplicate key: YAML would silently take the last value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[Any] = set()
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
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
        if len(text) > MAX_FILE_BYTES:
            raise ConfigError(
                f"{path} has more than {MAX_FILE_BYTES:,} bytes; this is too large for a "
                "parameter file",
                hint="name another file (--params), or delete the lines that do not belong there",
            )
        tree = yaml.load(text.decode(), Loader=_StrictLoader)  # noqa: S506 - it is safe
    except FileNotFoundError:
        raise ConfigError(
            f"{path} does not exist", hint="run from the project's folder, or leave it out"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror or error}",
            hint="check that it is a file and that you have permission to read it",
        ) from None
    except _FAULTS as error:
        raise ConfigError(
            f"{path} is not valid YAML: {error or type(error).__name__}",
            hint="write sections of keys, such as `train: {epochs: 3}`, in UTF-8; put text that "
            "looks like a number, a date or a tag into quotes",
        ) from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{path} must hold sections such as `data:`, not {show_value(tree)}",
            hint="`rootstock params` lists every section and its keys",
        )
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
            raise ConfigError(
                f"{key}: `{section}` is a value, not a section",
                hint="`rootstock params` lists every section and its keys",
            )
        tree = branch
    try:
        tree[last] = yaml.safe_load(text)
    except _FAULTS as error:
        raise ConfigError(
            f"the override {show_value(override)!r} has a value that is not valid YAML: "
            f"{error or type(error).__name__}",
            hint="put text that looks like a number, a date or a tag into quotes",
        ) from None


def _explain(errors: Sequence[typing.Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each wrong key; a union type has one error for each of its types."""
    keys = {key.name: key for key in describe_keys()}
    seen = set()
    for item in errors:
        place = [str(part) for part in item["loc"]]
        longest = max(
            (n for n in range(1, len(place) + 1) if ".".join(place[:n]) in keys), default=0
        )
        key = keys.get(".".join(place[:longest]))
        # pydantic names the branch of the union; users know only keys and positions in a list
        rest = [str(part) for part in item["loc"][longest:] if isinstance(part, int)]
        name = ".".join([*place[:longest], *rest] if key else place)[:MAX_NAME_CHARACTERS]
        if name in seen:
            continue
        seen.add(name)
        value = show_value(item["input"])
        if item["type"] == "extra_forbidden":
            sections = sorted({known.split(".")[0] for known in keys})
            yield f"{name}: no such key{did_you_mean(name, (*keys, *sections))}"
        elif item["type"] == "value_error":
            yield f"{name}: {item['msg'].removeprefix('Value error, ')}"
        elif key is None:
            yield f"{name}: must be a section of keys, got {value}"
        else:
            yield f"{name}: must be {key.allowed}, got {value}" + did_you_mean(value, key.choices)
