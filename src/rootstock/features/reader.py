"""FeatureReader: returns the features of manifest rows; computes those that the store lacks."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from rootstock.backbones.card import split_taps
from rootstock.backbones.load import Backbone
from rootstock.data.manifest import ImageRow
from rootstock.data.preprocess import Preprocess
from rootstock.errors import ArtifactError
from rootstock.features.fastest import MEASURE_FROM_IMAGES, TASK_IMAGES, choose_pass
from rootstock.features.forward import Features, ForwardPass, open_passes
from rootstock.features.loading import OnImage, prepared_batches, read_prepared
from rootstock.features.rounded import open_int8
from rootstock.features.store.compaction import compact
from rootstock.features.store.store import FeatureSpace, FeatureStore
from rootstock.features.writer import FeatureWriter, store_along
from rootstock.runtimes.int8 import RECIPE
from rootstock.system.digest import digest_json
from rootstock.system.files import read_json, write_json
from rootstock.system.threads import spread

_PART_ROWS = 8_192


@dataclass(frozen=True)
class ExtractionReport:
    """The number of computed and of stored images, and the time it took.

    ``engine`` is the engine that computed them; empty if there was nothing to compute.
    """

    computed: int
    reused: int
    seconds: float
    engine: str = ""


@dataclass(frozen=True)
class SharedPass:
    """Prepared images uint8[N,S,S,3] whose features are stored while they are consumed.

    ``forwarded``: the backbone's module has already computed the features of these batches.
    """

    batches: Iterator[np.ndarray]
    forwarded: bool


@dataclass(frozen=True)
class FeatureReader:
    """The features of a backbone for images prepared in one way, with a store.

    ``root`` is the folder to which the rows' paths are relative. ``on_image`` is called with the
    images that this process decodes. The backbone runs in int8 if there are images for its
    ``calibration``.
    """

    root: Path
    backbone: Backbone
    preprocess: Preprocess
    store: FeatureStore
    on_image: OnImage | None = None
    calibration: tuple[ImageRow, ...] = ()

    @cached_property
    def network_sha256(self) -> str:
        """The digest of the network that computes the features: the weights, and their rounding."""
        sha256 = self.backbone.card.weights_sha256
        if not self.calibration:
            return sha256
        return digest_json([sha256, "int8", RECIPE, [row.sha256 for row in self.calibration]])

    @property
    def space(self) -> FeatureSpace:
        """The part of the store with these features, opened again on each call."""
        return self.store.space(
            weights_sha256=self.network_sha256, preprocess_hash=self.preprocess.hash
        )

    def extract(
        self,
        rows: Sequence[ImageRow],
        taps: Sequence[str],
        *,
        batch_size: int = 64,
        n_images: int | None = None,
        measure: bool = False,
    ) -> ExtractionReport:
        """Compute and store the features of ``rows`` at ``taps`` that are missing or damaged.

        If ``rows`` are a part of the work, ``n_images`` is the total number of images, by which
        the method is chosen; the caller must then `compact` the `space`. ``measure``: use the
        fastest engine on this machine; otherwise the preferred one, which is always the same.
        Raises:
            DataError: an image has changed or disappeared since it was indexed.
            StoreError: the store cannot be written.
        """
        started, space = time.monotonic(), self.space
        unique = _unique(rows)
        todo, needed = _missing(space, unique, taps)
        engine = ""
        if todo:
            forward = self._choose_pass(
                todo, needed, n_images or len(unique), measure=measure, batch_size=batch_size
            )
            engine = forward.name
            with FeatureWriter(space, needed, len(todo)) as writer:
                for batch, features in self._run(todo, forward, batch_size):
                    writer.add(batch, features)
        if n_images is None:
            compact(space)
        seconds = time.monotonic() - started
        return ExtractionReport(len(todo), len(unique) - len(todo), seconds, engine)

    def share(
        self,
        rows: Sequence[ImageRow],
        wanted: Sequence[ImageRow],
        taps: Sequence[str],
        *,
        batch_size: int,
    ) -> SharedPass:
        """Return the prepared images of ``rows``, decoded once for the caller and for `extract`.

        The features that `extract` would compute for ``wanted``, some of the rows, are stored once
        all batches are consumed, and have the same bits.
        Raises:
            DataError: an image has changed or disappeared since it was indexed.
            StoreError: the store cannot be written.
        """
        space, unique = self.space, _unique(wanted)
        todo, needed = _missing(space, unique, taps)
        batches = prepared_batches(
            rows, self.root, self.preprocess, batch_size=batch_size, on_image=self.on_image
        )
        if not todo:
            return SharedPass((pixels for _, pixels in batches), forwarded=False)
        forward = self._choose_pass(todo, needed, len(unique), measure=False, batch_size=batch_size)
        writer = FeatureWriter(space, needed, len(todo))
        return SharedPass(
            store_along(batches, todo, forward, writer, batch_size),
            forwarded=forward.engine == "torch" and len(todo) == len(rows),
        )

    def read(self, rows: Sequence[ImageRow], tap: str) -> np.ndarray:
        """Return stored features float16[N,C] of ``rows`` at a tap, or at taps joined by ``+``.

        Raises:
            StoreError: some are missing.
        """
        return _read(self.space, rows, tap)

    def save(self, file: BinaryIO, rows: Sequence[ImageRow], tap: str) -> None:
        """Write the result of `read` as a .npy file, part by part.

        Raises:
            StoreError: some are missing.
        """
        space = self.space
        for start in range(0, max(1, len(rows)), _PART_ROWS):
            features = _read(space, rows[start : start + _PART_ROWS], tap)
            if start == 0:
                shape = (len(rows), features.shape[1])
                header = np.lib.format.header_data_from_array_1_0(features) | {"shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(features.data)

    def write_index(self, path: Path, rows: Sequence[ImageRow], taps: Sequence[str]) -> None:
        """Write the list of the features that these rows need, with a checksum per tap."""
        space, keys = self.space, [row.sha256 for row in rows]
        index: dict[str, Any] = {
            "format_version": 1,
            "weights_sha256": self.network_sha256,
            "precision": "int8" if self.calibration else "float32",
            "preprocess": self.preprocess.to_dict(),
            "preprocess_hash": self.preprocess.hash,
            "n_images": len(keys),
            "keys_sha256": _hash_keys(rows),
            "taps": {
                tap: hashlib.sha256(space.checksums(keys, tap).tobytes()).hexdigest()
                for tap in _single_taps(taps)
            },
        }
        write_json(path, index)

    def check_index(self, path: Path, rows: Sequence[ImageRow]) -> None:
        """Check that the index was made for these images, weights and preprocessing.

        Raises:
            ArtifactError: it was made for other inputs.
        """
        index = read_json(path, made_by="features")
        expected = {
            "weights_sha256": self.network_sha256,
            "preprocess_hash": self.preprocess.hash,
            "keys_sha256": _hash_keys(rows),
        }
        for name, value in expected.items():
            if index.get(name) != value:
                raise ArtifactError(
                    f"{path} was made for other inputs: {name} differs",
                    hint="run the stage `features` again",
                )

    def _choose_pass(
        self,
        rows: Sequence[ImageRow],
        taps: Sequence[str],
        n_images: int,
        *,
        measure: bool,
        batch_size: int,
    ) -> ForwardPass:
        folder = self.store.root / ".engines"
        if self.calibration:
            return open_int8(
                self.backbone,
                self.preprocess,
                taps,
                images=lambda: read_prepared(self.calibration, self.root, self.preprocess),
                network_sha256=self.network_sha256,
                folder=folder,
            )
        measure = measure and n_images >= MEASURE_FROM_IMAGES
        probe = cache(lambda: self._prepared(rows[:2]))
        passes = open_passes(
            self.backbone,
            self.preprocess,
            taps,
            n_images=n_images,
            probe=probe,
            folder=folder,
            every=measure,
        )
        if not measure:
            return passes.variants[0]
        return choose_pass(passes, probe=probe(), folder=folder, batch_size=batch_size)

    def _run(
        self, rows: Sequence[ImageRow], forward: ForwardPass, batch_size: int
    ) -> Iterator[tuple[Sequence[ImageRow], Features]]:
        if forward.concurrent:
            # Decoding and forward pass in one task: no core waits for another.
            tasks = [rows[at : at + TASK_IMAGES] for at in range(0, len(rows), TASK_IMAGES)]
            features = spread(lambda task: forward.run(self._prepared(task)), tasks)
            yield from zip(tasks, features, strict=True)
        else:
            batches = prepared_batches(
                rows, self.root, self.preprocess, batch_size=batch_size, on_image=self.on_image
            )
            yield from ((batch, forward.run(pixels)) for batch, pixels in batches)

    def _prepared(self, rows: Sequence[ImageRow]) -> np.ndarray:
        return read_prepared(rows, self.root, self.preprocess, self.on_image)


def _unique(rows: Sequence[ImageRow]) -> list[ImageRow]:
    return list({row.sha256: row for row in rows}.values())


def _missing(
    space: FeatureSpace, rows: Sequence[ImageRow], taps: Sequence[str]
) -> tuple[list[ImageRow], list[str]]:
    """Return the rows and taps with missing or damaged features."""
    keys = [row.sha256 for row in rows]
    missing = {tap: space.missing(keys, tap, verify=True) for tap in _single_taps(taps)}
    todo = [rows[i] for i in sorted(set().union(*missing.values()))]
    return todo, [tap for tap in missing if missing[tap]]


def _read(space: FeatureSpace, rows: Sequence[ImageRow], tap: str) -> np.ndarray:
    keys = [row.sha256 for row in rows]
    parts = [space.read(keys, name) for name in split_taps(tap)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _single_taps(taps: Sequence[str]) -> list[str]:
    """Return the stored taps: taps joined by ``+`` are stored separately."""
    return list(dict.fromkeys(name for tap in taps for name in split_taps(tap)))


def _hash_keys(rows: Sequence[ImageRow]) -> str:
    return hashlib.sha256("".join(row.sha256 for row in rows).encode()).hexdigest()
