"""A stage whose inputs have not changed is not run again: what DVC does, without DVC."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import rootstock
from rootstock.errors import ArtifactError
from rootstock.system.files import read_json, sha256_file, write_json


def run_unless_kept(
    stage: Callable[[], object],
    record: Path,
    *,
    inputs: Mapping[str, Any],
    outputs: Sequence[Path],
) -> None:
    """Call ``stage`` unless ``record`` says that these inputs gave the files that are there.

    ``inputs`` are what JSON can hold; the code of Rootstock counts as one. Folders among the
    ``outputs`` stand for all the files below them.
    """
    inputs = {**json.loads(json.dumps(inputs, default=str)), "code": _code()}
    try:
        if read_json(record, made_by="") == {"inputs": inputs, "outputs": _hashes(outputs)}:
            return
    except ArtifactError:
        pass  # there is none yet, or it is damaged
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


@cache
def _code() -> str:
    digest = hashlib.sha256()
    # The cards of the embedded weights are JSON, and hold the weights' hash.
    for path in sorted(Path(rootstock.__file__).parent.rglob("*")):
        if path.suffix in (".py", ".json"):
            digest.update(path.read_bytes())
    return digest.hexdigest()
