"""Small data sets written to disk for the tests."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def photo(seed: int, *, side: int = 48) -> bytes:
    """Return a PNG of smooth coloured blobs; each seed gives another picture."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


def flip_two_bits(path: Path, *, seed: int) -> None:
    """Damage a file like a bad disk."""
    content = bytearray(path.read_bytes())
    for place in np.random.default_rng(seed).integers(0, 8 * len(content), 2):
        content[place // 8] ^= 1 << (place % 8)
    path.write_bytes(content)


def write_classes(root: Path, counts: dict[str, int], *, seed: int = 0) -> Path:
    """Write ``root/<class>/<n>.png``; return the root."""
    number = seed * 10_000
    for label, count in counts.items():
        (root / label).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            (root / label / f"{index}.png").write_bytes(photo(number))
            number += 1
    return root
