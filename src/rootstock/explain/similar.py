"""Similar images: exact search among features, of the training images or of any folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from rootstock.errors import ArtifactError
from rootstock.explain.coarse import CoarseRows
from rootstock.model.known_images import unnamed
from rootstock.model.novelty import unit_rows
from rootstock.model.predictor import Predictor
from rootstock.system.arrays import read_arrays
from rootstock.system.files import write_atomic

BLOCK_ROWS = 65_536
"""Rows compared at a time, which limits memory to 330 MB for 1,280 features."""
COARSE_ROWS = 4_096
"""From this many rows, an index has coarse rows, which make a search several times as fast."""
FIRST_ROWS = 256
"""Rows with the highest bounds that are compared first, at least four per requested row."""
INDEX_HINT = "create it again with `rootstock index-images`"


@dataclass(frozen=True)
class Match:
    """A row of an index and its cosine distance: 0 is the same direction, 1 a right angle."""

    row: int
    distance: float


@dataclass(frozen=True)
class ImageIndex:
    """Features float16[N,D] of unit length, with the paths and targets (or empty) of their images.

    ``model`` is the digest of the model that computed them. ``coarse`` is None for a small index.
    """

    features: np.ndarray
    paths: Sequence[str]
    targets: Sequence[str]
    model: str
    coarse: CoarseRows | None = None

    @classmethod
    def make(
        cls, features: np.ndarray, paths: Sequence[str], targets: Sequence[str], model: str
    ) -> ImageIndex:
        """Return the index of features float[N,D] of any length."""
        rows = unit_rows(features).astype(np.float16)
        coarse = CoarseRows.make(rows) if len(rows) >= COARSE_ROWS else None
        return cls(rows, list(paths), list(targets), model, coarse)

    @classmethod
    def of_reference(cls, predictor: Predictor) -> ImageIndex:
        """Return the training images that a model carries.

        Raises:
            BundleError: It carries none, or not their names.
        """
        reference, known = predictor.bundle.reference, predictor.bundle.known_images
        if reference is None or known is None:
            raise unnamed()
        paths = [image.path for image in known.images]
        targets = [image.target for image in known.images]
        return cls(reference.features, paths, targets, predictor.bundle.digest)

    def search(self, features: np.ndarray, count: int) -> list[list[Match]]:
        """Return the nearest rows for each of features float[Q,D], nearest first.

        The search is exact: a row is skipped only if an upper bound of its similarity shows that it
        is farther away. Equal distances are in the order of the rows.
        """
        queries = unit_rows(features)
        if self.coarse is None:
            return self._search_all(queries, count)
        return [self._search_coarse(self.coarse, query, count) for query in queries]

    def _search_all(self, queries: np.ndarray, count: int) -> list[list[Match]]:
        best = np.zeros((len(queries), 0), np.float32)
        rows = np.zeros((len(queries), 0), np.int64)
        for start in range(0, len(self.features), BLOCK_ROWS):
            block = self.features[start : start + BLOCK_ROWS].astype(np.float32)
            best = np.concatenate([best, queries @ block.T], axis=1)
            numbers = np.arange(start, start + len(block))
            rows = np.concatenate([rows, np.tile(numbers, (len(queries), 1))], axis=1)
            if best.shape[1] > count:
                keep = np.argpartition(-best, count - 1, axis=1)[:, :count]
                best = np.take_along_axis(best, keep, axis=1)
                rows = np.take_along_axis(rows, keep, axis=1)
        return [_sort(*pair, count) for pair in zip(rows, best, strict=True)]

    def _search_coarse(self, coarse: CoarseRows, query: np.ndarray, count: int) -> list[Match]:
        bounds = coarse.bounds(query)
        n_first = min(max(FIRST_ROWS, 4 * count), len(bounds))
        first = np.argpartition(-bounds, n_first - 1)[:n_first]
        best = self._compare(query, first)
        least = np.partition(best, -count)[-count] if len(best) >= count else -np.inf
        bounds[first] = -np.inf
        others = np.flatnonzero(bounds >= least)
        rows = np.concatenate([first, others])
        return _sort(rows, np.concatenate([best, self._compare(query, others)]), count)

    def _compare(self, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return the cosines float32[M] of a query with some rows."""
        parts = [np.zeros(0, np.float32)]
        for start in range(0, len(rows), BLOCK_ROWS):
            block = self.features[rows[start : start + BLOCK_ROWS]].astype(np.float32)
            parts.append(np.vecdot(block, query))
        return np.concatenate(parts)

    def write(self, folder: Path) -> None:
        """Write the index to a folder, which may exist already."""
        folder.mkdir(parents=True, exist_ok=True)
        with write_atomic(folder / "features.safetensors") as temporary:
            coarse = self.coarse.arrays() if self.coarse else {}
            save_file({"features": self.features, **coarse}, temporary)
        facts = {"model": self.model, "paths": list(self.paths), "targets": list(self.targets)}
        with write_atomic(folder / "index.json") as temporary:
            temporary.write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path, predictor: Predictor) -> ImageIndex:
        """Read what `write` wrote for the same model.

        Raises:
            ArtifactError: There is no index, it is damaged, or another model made it.
        """
        try:
            facts = json.loads((folder / "index.json").read_bytes())
            arrays = read_arrays(folder / "features.safetensors")
            features, coarse = arrays["features"], CoarseRows.from_arrays(arrays)
            index = cls(features, facts["paths"], facts["targets"], facts["model"], coarse)
        except FileNotFoundError as error:
            raise ArtifactError(f"{error.filename} is missing", hint=INDEX_HINT) from None
        except (KeyError, OSError, TypeError, ValueError) as error:
            raise ArtifactError(f"{folder} is not an index: {error}", hint=INDEX_HINT) from None
        if index.model != predictor.bundle.digest:
            raise ArtifactError(f"{folder} was made with another model", hint=INDEX_HINT)
        counts = {len(features), len(index.paths), len(index.targets)}
        if coarse is not None:
            counts.add(coarse.codes.shape[1])
        if len(counts) > 1:
            raise ArtifactError(
                f"{folder} is not an index: its files do not match", hint=INDEX_HINT
            )
        return index


def _sort(rows: np.ndarray, likeness: np.ndarray, count: int) -> list[Match]:
    order = np.lexsort((rows, -likeness))[:count]
    return [Match(int(rows[i]), float(1 - likeness[i])) for i in order]


def precision_at(index: ImageIndex, counts: Sequence[int]) -> dict[str, dict[int, float]]:
    """Return, by target, how many of an image's nearest images have its target, on average.

    Each image of the index is searched among the others (retrieval by leave-one-out).
    """
    most = max(counts)
    sums: dict[str, list[np.ndarray]] = {}
    for number, matches in _search_others(index, most):
        same = np.array([index.targets[one.row] == index.targets[number] for one in matches])
        sums.setdefault(index.targets[number], []).append(same)
    return {
        target: {count: float(np.mean([one[:count].mean() for one in found])) for count in counts}
        for target, found in sorted(sums.items())
    }


def _search_others(index: ImageIndex, count: int) -> Iterator[tuple[int, list[Match]]]:
    for start in range(0, len(index.features), 256):
        part = index.features[start : start + 256]
        for offset, matches in enumerate(index.search(part, count + 1)):
            others = [one for one in matches if one.row != start + offset]
            yield start + offset, others[:count]
