"""Write a table of answers for any number of images, in bounded memory; resume a stopped run.

The answers are written in parts next to the table, and joined at the end. A part is used again if
model, options and files have not changed, so a killed run loses at most one part.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from rootstock.errors import ArtifactError
from rootstock.model.answer_files import answer_files, open_for_files
from rootstock.model.engine import PrecisionChoice
from rootstock.model.predictor import Predictor
from rootstock.ports.spread import InProcess, Spreader
from rootstock.system.digest import digest_json
from rootstock.system.files import write_atomic
from rootstock.system.tables import DAMAGE
from rootstock.tasks import answer_type
from rootstock.tasks.task import AnswerOptions

PART_IMAGES = 1_000
"""Answers that are in memory at the same time, and that a stopped run loses."""
ENDINGS = (".csv", ".parquet")
PATH, ERROR, REASON, EMBEDDING = "path", "error", "reason", "embedding"
_KEY = b"rootstock_key"


class Part(NamedTuple):
    """Files of one part: their names in the table, and their paths."""

    names: tuple[str, ...]
    paths: tuple[Path, ...]
    target: Path
    key: str


class Counts(NamedTuple):
    """The number of answered images, of unusable images and of unknown ones."""

    images: int
    failed: int
    unknown: int


@dataclass(frozen=True)
class AnswerTable:
    """Writes the answers of the model in ``directory`` to ``path``, a .csv or .parquet file."""

    directory: Path
    path: Path
    options: AnswerOptions
    embeddings: bool = False
    """Whether to write the features float32[D] of each image too; only for Parquet."""
    precision: PrecisionChoice = "float32"
    """The precision of the model; with "auto" each machine uses the faster one."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot be written.

        Raises:
            ArtifactError: another suffix, a folder at the path, or embeddings for CSV.
        """
        if self.path.suffix.lower() not in ENDINGS:
            raise ArtifactError(
                f"{self.path} must end in {' or '.join(ENDINGS)}",
                hint=f"name it {self.path.stem or 'answers'}.parquet",
            )
        if self.path.is_dir():
            raise ArtifactError(f"{self.path} is a folder", hint="name a file in the folder")
        if self.embeddings and not self._is_parquet:
            raise ArtifactError(
                "features cannot be written to a CSV file", hint="name a file that ends in .parquet"
            )

    def write(
        self,
        names: Sequence[str],
        paths: Sequence[Path],
        *,
        spreader: Spreader | None = None,
        on_part: Callable[[int], None] | None = None,
    ) -> Counts:
        """Answer the files ``paths``; ``names`` are their names in the table.

        ``spreader`` answers the parts, on machines that see the same files; None: this process.
        ``on_part`` is called with the number of images of each finished part.
        Raises:
            ArtifactError: the table or a part of it cannot be written.
            BundleError: the model is damaged.
        """
        _open.cache_clear()  # the folder may contain another model now
        digest = _open(self.directory, self.precision).bundle.digest
        parts, missing = [], []
        for start in range(0, len(names), PART_IMAGES):
            within = slice(start, start + PART_IMAGES)
            target = self.folder / f"{start:09}.parquet"
            parts.append(self._part(tuple(names[within]), tuple(paths[within]), target, digest))
        for part in parts:
            if _read_key(part.target) != part.key:
                missing.append(part)
            elif on_part:
                on_part(len(part.names))
        if missing:
            with (spreader or InProcess()).spread(self._write_part, missing) as done:
                for images in done:
                    if on_part:
                        on_part(images)
        counts = self._join([part.target for part in parts])
        shutil.rmtree(self.folder, ignore_errors=True)
        return counts

    @property
    def folder(self) -> Path:
        """The folder of the parts until all are finished."""
        return self.path.with_name(f"{self.path.name}.parts")

    @property
    def _is_parquet(self) -> bool:
        return self.path.suffix.lower() == ".parquet"

    def _part(
        self, names: tuple[str, ...], paths: tuple[Path, ...], target: Path, digest: str
    ) -> Part:
        asked = [self.options, self.embeddings, self.precision]
        facts = [digest, *asked, names, list(map(_stamp, paths))]
        return Part(names, paths, target, digest_json(facts))

    def _write_part(self, part: Part) -> int:
        """Answer the images of a part and write it; return their number."""
        predictor = _open(self.directory, self.precision)
        empty = dict.fromkeys(answer_type(predictor.task.name)().columns())
        rows: list[dict[str, Any]] = []
        answers = answer_files(predictor, part.paths, self.options)
        for name, (answer, features) in zip(part.names, answers, strict=True):
            row: dict[str, Any] = {PATH: name}
            row |= empty if answer.error else answer.columns()
            row |= {"novelty": answer.novelty}
            if self.embeddings:
                row[EMBEDDING] = features
            error = answer.error
            row |= {ERROR: error and error.detail, REASON: error and error.reason}
            rows.append(row)
        # Columns that only some answers have, such as sets, are empty in other rows.
        columns = dict.fromkeys(column for row in rows for column in row)
        table = pa.table(
            {
                column: pa.array(
                    [row.get(column) for row in rows],
                    pa.list_(pa.float32()) if column == EMBEDDING else None,
                )
                for column in columns
            }
        ).replace_schema_metadata({_KEY: part.key})
        with write_atomic(part.target) as temporary:
            pa.parquet.write_table(table, temporary, compression="zstd", write_page_checksum=True)
        return len(rows)

    def _join(self, parts: Sequence[Path]) -> Counts:
        images = failed = unknown = 0
        schema = pa.unify_schemas(
            [pa.parquet.read_schema(part).remove_metadata() for part in parts],
            promote_options="permissive",
        )
        # A column without a single value has no type.
        schema = pa.schema(
            [
                field.with_type(pa.string()) if pa.types.is_null(field.type) else field
                for field in schema
            ]
        )
        writer = pa.parquet.ParquetWriter if self._is_parquet else pa.csv.CSVWriter
        with write_atomic(self.path) as temporary, writer(temporary, schema) as file:
            for part in parts:
                with pa.parquet.ParquetFile(part, page_checksum_verification=True) as source:
                    table = source.read()
                whole = {
                    field.name: table[field.name].cast(field.type)
                    if field.name in table.column_names
                    else pa.nulls(len(table), field.type)
                    for field in schema
                }
                images += len(table)
                failed += len(table) - table[ERROR].null_count
                unknown += pc.sum(whole["unknown"].cast(pa.bool_())).as_py() or 0
                file.write_table(pa.table(whole, schema=schema))
        return Counts(images, failed, unknown)


@lru_cache(maxsize=1)
def _open(directory: Path, precision: PrecisionChoice) -> Predictor:
    """Return the model, opened once per process."""
    return open_for_files(directory, precision)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns


def _read_key(path: Path) -> str:
    """Return the key of an existing part; empty if it is missing or damaged."""
    try:
        metadata = pa.parquet.read_schema(path).metadata or {}
    except DAMAGE:
        return ""
    return metadata.get(_KEY, b"").decode()
