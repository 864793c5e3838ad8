"""The images of a model's training, so that an evaluation can report when it uses them again.

A model stores the first 8 bytes of the SHA-256 of each file. They cannot be turned into images, but
show whether a given file was among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

HASH_BYTES = 8


@dataclass(frozen=True)
class SeenImages:
    """Short hashes of the training images and of the validation images."""

    train: frozenset[bytes]
    val: frozenset[bytes]

    @classmethod
    def of(cls, *, train: Iterable[str], val: Iterable[str]) -> SeenImages:
        """Return the short hashes of SHA-256 digests in hexadecimal digits."""
        return cls(frozenset(map(_shorten, train)), frozenset(map(_shorten, val)))

    def split(self, sha256: str) -> str:
        """Return "train" or "val" for an image of the training; empty for any other."""
        short = _shorten(sha256)
        return "train" if short in self.train else "val" if short in self.val else ""

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays that a model directory stores: uint8[N,8], sorted."""
        return {"train": _pack(self.train), "val": _pack(self.val)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> SeenImages:
        """Return the object from `arrays`.

        Raises:
            KeyError: one is missing.
        """
        return cls(_unpack(arrays["train"]), _unpack(arrays["val"]))


def _shorten(sha256: str) -> bytes:
    return bytes.fromhex(sha256[: 2 * HASH_BYTES])


def _pack(hashes: frozenset[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(sorted(hashes)), np.uint8).reshape(-1, HASH_BYTES)


def _unpack(rows: np.ndarray) -> frozenset[bytes]:
    return frozenset(row.tobytes() for row in rows)
