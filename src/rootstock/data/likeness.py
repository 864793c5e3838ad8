"""Decide whether two images show the same picture, pixel by pixel at a common size.

Compressed, resized, turned and mirrored copies agree in fine detail, even in parts that look flat.
Two shots of one fixed scene agree only in its edges: their noise differs. If one shot shows a
scratch that the other lacks, a part of the picture differs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
from PIL import Image

from rootstock.data.candidates import TURNS, Pairs, turn
from rootstock.data.decode import decode_image, no_warnings
from rootstock.data.limits import DecodeLimits
from rootstock.data.read import read_file
from rootstock.errors import ImageError
from rootstock.system.cpu import usable_cores
from rootstock.system.progress import Progress

SIDE_PIXELS = 96
"""Side of the grey picture that is compared; smaller images use a half or a quarter of it."""
COLOUR_SIDE_PIXELS = 12
SIDES = ((128, 96), (64, 48), (0, 24))
"""Smallest short side of both images, and the side at which they are then compared."""
BLOCK_PIXELS = 6
MAX_DIFFERENCE = 6.0
"""Mean absolute difference in grey levels; a copy at a fifth of the size reaches 4.5."""
MIN_LOCAL_DIFFERENCE = 3.0
"""Mean absolute difference of a block above which its detail is compared."""
MAX_LOCAL_SHARE = 0.4
"""Share of a block's detail that the other may lack: .15 in copies, .9 if one has a scratch."""
MIN_DETAIL = 0.3
"""Grey levels of detail in the flatter half; pictures with less are not compared."""
MIN_DETAIL_CORRELATION = 0.1
"""Correlation in the flatter half: below .05 for two shots of a scene, .15 or more for copies."""
MAX_COLOUR_DIFFERENCE = 16.0
"""Difference of a block in Cb or Cr; a grey copy of a coloured picture still is a copy."""
_GREY_LEVELS = 3.0
_BATCH_PAIRS = 16
_LENGTH = SIDE_PIXELS**2 + 2 * COLOUR_SIDE_PIXELS**2

ReadFile = Callable[[int], np.ndarray | None]


class Likeness:
    """Compares the files at ``paths``; ``short sides`` are in pixels.

    Call it with candidates to get bool[M]: which pairs are the same picture. Each file is decoded
    once per call into a temporary file, so memory use does not grow with the number of files.
    """

    def __init__(
        self, paths: Sequence[str], short_sides: Sequence[int], limits: DecodeLimits
    ) -> None:
        self._paths, self._limits = paths, limits
        self._short_sides = np.array(short_sides)

    def __call__(self, pairs: Pairs) -> np.ndarray:
        same = np.zeros(len(pairs.first), bool)
        if not len(same):
            return same
        numbers, rows = np.unique(np.stack([pairs.first, pairs.second]), return_inverse=True)
        first, second = rows.reshape(2, -1)
        with tempfile.TemporaryFile(prefix="rootstock-") as file:
            stored = np.memmap(file, np.uint8, "w+", shape=(len(numbers), _LENGTH))
            usable = self._decode(numbers, stored)
            sides = self._short_sides[numbers]
            shorter = np.minimum(sides[first], sides[second])
            shorter[~(usable[first] & usable[second])] = -1

            def compare(batch: np.ndarray, way: int, side: int) -> None:
                one, other = stored[first[batch]], stored[second[batch]]
                same[batch] = _are_one_picture(one, other, way, side)

            with ThreadPoolExecutor(usable_cores()) as pool:
                for done in [pool.submit(compare, *work) for work in _plan(shorter, pairs.turn)]:
                    done.result()
        return same

    def _decode(self, numbers: np.ndarray, stored: np.ndarray) -> np.ndarray:
        """Write the pictures of these images; return which of them are readable."""
        usable = np.zeros(len(numbers), bool)
        bar = Progress("copies", len(numbers), "image")
        with no_warnings(), bar, ThreadPoolExecutor(usable_cores()) as pool:
            for row, picture in enumerate(_run_ahead(pool, self._read, numbers.tolist())):
                if picture is not None:
                    stored[row], usable[row] = picture, True
                bar.update()
        return usable

    def _read(self, number: int) -> np.ndarray | None:
        try:
            content = read_file(self._paths[number], self._limits).content
            image = decode_image(content, self._limits, short_side=2 * SIDE_PIXELS, rendering=None)
        except ImageError:
            return None  # changed since it was inspected
        return reduce_picture(image.pixels)


def reduce_picture(pixels: np.ndarray) -> np.ndarray:
    """Return the reduced form of an image uint8[H,W,3]: grey levels and coarse colours, uint8."""
    grey, *colours = Image.fromarray(pixels).convert("YCbCr").split()
    parts = [grey.resize((SIDE_PIXELS,) * 2, Image.Resampling.HAMMING)]
    parts += [c.resize((COLOUR_SIDE_PIXELS,) * 2, Image.Resampling.BOX) for c in colours]
    return np.concatenate([np.asarray(part).ravel() for part in parts])


def _plan(shorter: np.ndarray, turns: np.ndarray) -> Iterator[tuple[np.ndarray, int, int]]:
    """Yield numbers of pairs, the way to turn the second, and the side to compare them at."""
    at_most = np.inf
    for least, side in SIDES:
        for way in TURNS:
            chosen = np.flatnonzero((shorter >= least) & (shorter < at_most) & (turns == way))
            for start in range(0, len(chosen), _BATCH_PAIRS):
                yield chosen[start : start + _BATCH_PAIRS], way, side
        at_most = least


def _run_ahead(
    pool: ThreadPoolExecutor, work: ReadFile, numbers: Sequence[int]
) -> Iterator[np.ndarray | None]:
    """Yield the results in order, with few of them waiting at a time."""
    rest = iter(numbers)
    while part := list(islice(rest, 256)):
        yield from pool.map(work, part)


def _are_one_picture(one: np.ndarray, other: np.ndarray, way: int, side: int) -> np.ndarray:
    """Compare stored pictures uint8[B,L], the second ones turned; return bool[B]."""
    a, colours_a = _unpack(one, side)
    b, colours_b = _unpack(other, side)
    b, colours_b = turn(b, way), [turn(colour, way) for colour in colours_b]
    apart = _block_means(np.abs(a - b))
    detail_a, detail_b = _detail(a), _detail(b)
    energy_a, energy_b = _block_means(detail_a**2), _block_means(detail_b**2)
    shared = _block_means(detail_a * detail_b)
    lacking = (energy_a + energy_b - 2 * shared) / (energy_a + energy_b + 2)
    scratched = ((apart > MIN_LOCAL_DIFFERENCE) & (lacking > MAX_LOCAL_SHARE)).any(axis=1)
    energy = np.maximum(energy_a, energy_b)
    flatter = np.argsort(energy, axis=1, kind="stable")[:, : energy.shape[1] // 2]
    rows = np.arange(len(a))[:, None]
    mean_a, mean_b = (each[rows, flatter].mean(axis=1) for each in (energy_a, energy_b))
    correlation = shared[rows, flatter].mean(axis=1) / np.sqrt(mean_a * mean_b + 1e-9)
    both_have_detail = np.sqrt(np.minimum(mean_a, mean_b)) > MIN_DETAIL
    other_noise = both_have_detail & (correlation < MIN_DETAIL_CORRELATION)
    same = (apart.mean(axis=1) <= MAX_DIFFERENCE) & ~scratched & ~other_noise
    return same & ~_differ_in_colour(colours_a, colours_b)


def _unpack(stored: np.ndarray, side: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return grey float32[B,side,side], and Cb and Cr float32[B,12,12]."""
    grey, cb, cr = np.split(stored, [SIDE_PIXELS**2, SIDE_PIXELS**2 + COLOUR_SIDE_PIXELS**2], 1)
    factor = SIDE_PIXELS // side
    fine = grey.reshape(len(stored), side, factor, side, factor)
    levels = fine.mean(axis=(2, 4), dtype=np.float32) if factor > 1 else fine.astype(np.float32)
    colours = [
        c.reshape(-1, COLOUR_SIDE_PIXELS, COLOUR_SIDE_PIXELS).astype(np.float32) for c in (cb, cr)
    ]
    return levels.reshape(-1, side, side), colours


def _detail(grey: np.ndarray) -> np.ndarray:
    """Return the difference from the mean of each pixel's 3 x 3 neighbourhood."""
    padded = np.pad(grey, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :-2] + padded[:, 1:-1]
    rows += padded[:, 2:]
    mean = rows[:, :, :-2] + rows[:, :, 1:-1]
    mean += rows[:, :, 2:]
    mean *= np.float32(-1 / 9)
    mean += grey
    return mean


def _block_means(values: np.ndarray) -> np.ndarray:
    """Return float32[B,blocks] of values [B,S,S]."""
    count, side, _ = values.shape
    # Twice as fast as the mean over both axes of a block.
    columns = values.reshape(-1, BLOCK_PIXELS) @ np.full(BLOCK_PIXELS, BLOCK_PIXELS**-2, np.float32)
    return (
        columns.reshape(count, -1, BLOCK_PIXELS, side // BLOCK_PIXELS)
        .sum(axis=2)
        .reshape(count, -1)
    )


def _differ_in_colour(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> np.ndarray:
    """Return bool[B]; False if one of the two has no colours."""
    grey = np.zeros(len(one[0]), bool)
    for colours in (one, other):
        strength = [np.abs(colour - 128).max(axis=(1, 2)) for colour in colours]
        grey |= np.max(strength, axis=0) < _GREY_LEVELS
    apart = [np.abs(a - b).max(axis=(1, 2)) for a, b in zip(one, other, strict=True)]
    return (np.max(apart, axis=0) > MAX_COLOUR_DIFFERENCE) & ~grey
