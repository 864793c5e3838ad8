"""The map of the features: every image is a point, with similar images close together."""

from __future__ import annotations

import hashlib
import importlib.util
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from rootstock.backbones.card import split_taps
from rootstock.data.manifest import ImageRow
from rootstock.errors import ArtifactError
from rootstock.features.store.store import FeatureSpace, FeatureStore
from rootstock.system.arrays import read_arrays
from rootstock.system.files import write_atomic

METHODS = ("pca", "tsne", "umap")
_PACKAGES = {"tsne": "sklearn", "umap": "umap"}
MAX_SLOW_IMAGES = 5_000
"""t-SNE and UMAP of more images take minutes: the others are placed near the most similar ones."""
NEAREST = 3
"""How many similar images decide where an image is placed."""
PCA_WIDTH = 50
"""Components that t-SNE and UMAP start from."""
_BLOCK_ROWS = 8_192
_VERSION = 1


@dataclass(frozen=True)
class FeatureMap:
    """``points`` float32[M,2] in 0..1 of the images ``rows`` int64[M] of the manifest."""

    rows: np.ndarray
    points: np.ndarray


def installed_methods() -> list[str]:
    """Return the methods whose packages are installed; `pca` needs none."""
    return [
        name
        for name in METHODS
        if name not in _PACKAGES or importlib.util.find_spec(_PACKAGES[name]) is not None
    ]


class FeatureMaps:
    """Computed maps; ``folder`` stores them by their inputs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # A slow method does not keep others waiting.
        self._locks = {method: threading.Lock() for method in METHODS}
        self._last: dict[str, tuple[str, FeatureMap]] = {}

    def get(
        self, rows: Sequence[ImageRow], store: Path, index: Mapping[str, Any], method: str
    ) -> FeatureMap:
        """Return the map of the usable images whose features are stored.

        ``index`` is the content of artifacts/features.json.
        Raises:
            ArtifactError: there are no features, or the method is not installed.
        """
        with self._locks.get(method, self._locks["pca"]):
            tap = _deepest(index["taps"])
            key = _digest(rows, str(index["weights_sha256"]), str(index["preprocess_hash"]), tap)
            key = f"{method}-{key}"
            last = self._last.get(method)
            if last is None or last[0] != key:
                last = (key, self._read(key) or self._make(key, rows, store, index, method))
                self._last[method] = last
            return last[1]

    def _read(self, key: str) -> FeatureMap | None:
        try:
            arrays = read_arrays(self._folder / f"{key}.safetensors")
            return FeatureMap(arrays["rows"], arrays["points"])
        except (KeyError, OSError, ValueError):
            return None

    def _make(
        self,
        key: str,
        rows: Sequence[ImageRow],
        store: Path,
        index: Mapping[str, Any],
        method: str,
    ) -> FeatureMap:
        space = FeatureStore(store).space(
            weights_sha256=index["weights_sha256"], preprocess_hash=index["preprocess_hash"]
        )
        tap = _deepest(index["taps"])
        numbers = np.array([n for n, row in enumerate(rows) if not row.quarantine], np.int64)
        digests = np.array([rows[n].sha256 for n in numbers.tolist()])
        missing = space.missing(digests.tolist(), tap)
        numbers = np.delete(numbers, missing)
        digests = np.delete(digests, missing)
        if len(numbers) < 3:
            raise ArtifactError(
                "the map needs the features of the images, which are not stored",
                hint="run the stage `features`: dvc repro features",
            )
        points = place(_Stored(space, digests.tolist(), tap), method)
        found = FeatureMap(numbers, points)
        try:
            with write_atomic(self._folder / f"{key}.safetensors") as temporary:
                save_file({"rows": numbers, "points": points}, temporary)
        except ArtifactError:
            pass  # computed again next time
        return found


@dataclass(frozen=True)
class _Stored:
    """Stored features, read in blocks of rows: all of them may not fit in memory."""

    space: FeatureSpace
    digests: list[str]
    tap: str

    def __len__(self) -> int:
        return len(self.digests)

    def block(self, start: int) -> np.ndarray:
        """Return features float32[M,C] from this row on."""
        return self.space.read(self.digests[start : start + _BLOCK_ROWS], self.tap).astype(
            np.float32
        )


def place(features: Any, method: str) -> np.ndarray:
    """Return points float32[N,2] in 0..1 for features with a length and `block`.

    Raises:
        ArtifactError: the method is not installed.
    """
    if method not in installed_methods():
        raise ArtifactError(
            f"the method {method!r} is not installed; available: {', '.join(installed_methods())}",
            hint="pip install umap-learn, or choose another method",
        )
    if method == "pca":
        return _to_unit(project(features, 2))
    components = project(features, PCA_WIDTH)
    some = np.unique(np.linspace(0, len(components) - 1, MAX_SLOW_IMAGES).round().astype(int))
    run: Callable[[np.ndarray], np.ndarray] = _run_tsne if method == "tsne" else _run_umap
    points = run(components[some])
    return _to_unit(
        points if len(some) == len(components) else _place_rest(components, some, points)
    )


def _place_rest(components: np.ndarray, some: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return points for all components [N,W]: each near those of the most similar ones that have.

    ``points`` [S,2] belong to the rows ``some`` int64[S], which keep them.
    """
    known = components[some]
    squares = np.square(known).sum(axis=1)
    placed = np.empty((len(components), points.shape[1]))
    for start in range(0, len(components), _BLOCK_ROWS):
        block = components[start : start + _BLOCK_ROWS]
        distances = squares - 2.0 * block @ known.T  # without the block's own squares
        nearest = np.argpartition(distances, NEAREST - 1, axis=1)[:, :NEAREST]
        own = np.square(block).sum(axis=1, keepdims=True)
        gaps = np.maximum(np.take_along_axis(distances, nearest, axis=1) + own, 0.0)
        weights = 1.0 / (np.sqrt(gaps) + 1e-9)
        weights /= weights.sum(axis=1, keepdims=True)
        placed[start : start + _BLOCK_ROWS] = (points[nearest] * weights[..., None]).sum(axis=1)
    placed[some] = points
    return placed


def project(features: Any, width: int) -> np.ndarray:
    """Return the first principal components float32[N,W] of the rows, computed in blocks."""
    starts = range(0, len(features), _BLOCK_ROWS)
    total: Any = 0.0
    squares: Any = 0.0
    for start in starts:
        block = features.block(start)
        total = total + block.sum(axis=0, dtype=np.float64)
        squares = squares + (block.T @ block).astype(np.float64)
    mean = total / len(features)
    covariance = squares / len(features) - np.outer(mean, mean)
    _, axes = np.linalg.eigh(covariance)
    axes = axes[:, ::-1][:, :width]
    # The direction of an axis is arbitrary: make its largest part positive.
    largest = np.abs(axes).max(axis=0)
    signs = np.sign(np.where(np.abs(axes) == largest, axes, 0).sum(axis=0))
    axes = (axes * np.where(signs == 0, 1, signs)).astype(np.float32)
    centre = mean.astype(np.float32)
    return np.concatenate([(features.block(start) - centre) @ axes for start in starts])


def _run_tsne(components: np.ndarray) -> np.ndarray:
    from sklearn.manifold import TSNE

    perplexity = min(30.0, max(2.0, (len(components) - 1) / 3))
    return TSNE(2, init="pca", perplexity=perplexity, random_state=0).fit_transform(components)


def _run_umap(components: np.ndarray) -> np.ndarray:
    import umap  # type: ignore[import-not-found]

    # The same map every time needs a seed, with which umap uses one processor core.
    return umap.UMAP(random_state=0, n_jobs=1).fit_transform(components)


def _to_unit(points: np.ndarray) -> np.ndarray:
    """Return the points in 0..1, without letting a few outliers squeeze all others together."""
    low, high = np.quantile(points, [0.002, 0.998], axis=0)
    span = np.maximum(high - low, 1e-9)
    return np.clip((points - low) / span, 0, 1).astype(np.float32)


def _deepest(taps: Mapping[str, Any]) -> str:
    """Return the tap of the map: the network's last one if it is stored."""
    names = [name for tap in taps for name in split_taps(tap)]
    if not names:
        raise ArtifactError("no features are stored", hint="run the stage `features` again")
    return "last" if "last" in names else names[-1]


def _digest(rows: Sequence[ImageRow], *parts: str) -> str:
    digest = hashlib.sha256("\0".join([str(_VERSION), *parts]).encode())
    for row in rows:
        digest.update(f"{row.sha256}{bool(row.quarantine)}".encode())
    return digest.hexdigest()[:32]
