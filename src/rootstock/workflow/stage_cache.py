"""Skip a stage if its inputs have not changed: what DVC does, without DVC."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rootstock.errors import ArtifactError
from rootstock.system.files import read_json, sha256_file, write_json


def run_if_changed(
    stage: Callable[[], object],
    record: Path,
    *,
    code: str,
    inputs: Mapping[str, Any],
    outputs: Sequence[Path],
) -> None:
    """Call ``stage`` unless ``record`` shows the present outputs were made from the same inputs.

    ``code`` is the digest of the stage's code, ``inputs`` are values for JSON. A folder among the
    ``outputs`` means all files below it.
    """
    inputs = {**json.loads(json.dumps(inputs, default=str)), "code": code}
    try:
        if read_json(record, made_by="") == {"inputs": inputs, "outputs": _hashes(outputs)}:
            return
    except ArtifactError:
        pass  # it does not exist yet, or is damaged
    stage()
    write_json(record, {"inputs": inputs, "outputs": _hashes(outputs)})


def _hashes(outputs: Sequence[Path]) -> dict[str, str]:
    return {str(path): sha256_file(path) for path in _files(outputs)}


def _files(outputs: Sequence[Path]) -> Iterator[Path]:
    for path in outputs:
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.is_file())
        elif path.is_file():
            yield path
