"""Measure the feature store at a million rows: open, read, append, look up, memory, upkeep.

    python benchmarks/store.py --rows 1000000

Keys are synthetic; rows are 1,280 float16 values. Reads are compared with those of a plain
np.memmap of the same file in the same run. The last part extracts real features, cold and with 1 %
more images. The disk needs 3.2 times the size of the store.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rootstock.backbones.packaged import DEFAULT_NAME
from rootstock.features.store.key_index import KEY
from rootstock.features.store.segment import Segment
from rootstock.features.store.store import FeatureSpace, FeatureStore

WIDTH, SEGMENT_ROWS, POOL = 1_280, 512, 4_096
TAP = "last"
SIZES = (10_000, 100_000)


def main() -> None:
    """Print one table per question."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument(
        "--images", type=int, default=2_000, help="images to extract; 0 skips this part"
    )
    parser.add_argument("--folder", type=Path, help="working folder; default: a temporary one")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        work, folder, *numbers = options.child
        {"write": write, "probe": probe}[work](Path(folder), *map(int, numbers))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        print(f"{options.rows:,} x {WIDTH} float16, {os.cpu_count()} cores\n")
        root = Path(scratch)
        measure_appends(root, options.rows)
        measure_upkeep_and_opening(root, options.rows)
        measure_reads(root / "main", options.rows)
        measure_lookups(root / "main", options.rows)
        measure_collection(root / "main", options.rows)
        if options.images:
            measure_growth(root, options.images)


def measure_appends(root: Path, rows: int) -> None:
    """Append with one writer, then with four, syncing each append; this makes the store."""
    print(f"| writers | rows | seconds | rows/s | MB/s |  (segments of {SEGMENT_ROWS})")
    print("| --- | --- | --- | --- | --- |")
    for writers, folder, count in ((1, root / "one", rows // 10), (4, root / "main", rows)):
        cuts = np.linspace(0, count, writers + 1).astype(int)
        started = time.perf_counter()
        ready = [start("write", folder, a, b) for a, b in zip(cuts, cuts[1:], strict=False)]
        spent = [float(process.communicate()[0]) for process in ready]
        seconds, wall = max(spent), time.perf_counter() - started
        print(
            f"| {writers} | {count:,} | {seconds:.1f} | {count / seconds:,.0f} "
            f"| {count * WIDTH * 2 / seconds / 1e6:,.0f} |  (with start-up {wall:.1f} s)"
        )


def measure_upkeep_and_opening(root: Path, rows: int) -> None:
    """Open the store in new processes before and after its segments are merged."""
    from rootstock.features.store.compaction import compact

    print("\n| store | segments | opened in s | first batch of 256 in ms | own memory MB ", end="")
    print("| after 100 batches | mapped MB |\n| --- | --- | --- | --- | --- | --- | --- |")
    show(f"{rows:,} rows, as appended", root / "main", rows)
    started = time.perf_counter()
    merged = compact(space(root / "main"), grace_s=0)
    seconds = time.perf_counter() - started
    compact(space(root / "main"), grace_s=0)
    show(f"{rows:,} rows, merged", root / "main", rows)
    evict(root / "main")
    show(f"{rows:,} rows, merged, not in the file cache", root / "main", rows)
    for size in SIZES:
        if size < rows:
            write(root / str(size), 0, size, quiet=True)
            compact(space(root / str(size)), grace_s=0)
            show(f"{size:,} rows, merged", root / str(size), size)
    print(f"\nmerging {merged} segments: {seconds:.1f} s, {rows / seconds:,.0f} rows/s")


def show(name: str, folder: Path, rows: int) -> None:
    """Print a row of the table of openings."""
    facts = json.loads(start("probe", folder, rows).communicate()[0])
    print(
        f"| {name} | {facts['segments']} | {facts['open']:.3f} | {facts['first']:.1f} "
        f"| {facts['own']:.1f} | {facts['own_later']:.1f} | {facts['mapped_later']:.0f} |"
    )


def measure_reads(folder: Path, rows: int) -> None:
    """Read random batches from the merged store and from a plain map of the same file."""
    store, keys = space(folder), make_keys(0, rows)
    largest = max(store.taps()[0].latest(), key=lambda segment: len(segment.sums))
    plain = plain_map(largest)
    inside = np.flatnonzero(store.rows(keys, TAP).places >> 40 == 0)
    started = time.perf_counter()
    assert store.missing(keys, TAP, verify=True) == []
    seconds = time.perf_counter() - started
    print(f"\nreading and checking all rows for the first time: {seconds:.2f} s, ", end="")
    print(f"{rows * WIDTH * 2 / seconds / 1e9:.2f} GB/s")
    places = store.rows(keys, TAP)
    random = np.random.default_rng(1)
    print("\n| random batch | np.memmap GB/s | by position | ratio | by key | ratio |")
    print("| --- | --- | --- | --- | --- | --- |")
    for values in (plain, *(segment.values for segment in places.segments)):
        values.reshape(-1).view(np.uint8)[::4096].sum()  # maps every page
    for size in (64, 256, 1_024, 4_096):
        turns = min(200, max(20, 50_000 // size))
        index = [random.choice(inside, size) for _ in range(turns)]
        bare = [random.integers(0, len(plain), size) for _ in range(turns)]
        named = [keys[chosen] for chosen in index]
        assert (store.read(named[0], TAP) == make_values(index[0])).all()
        median = time_in_turns(
            turns,
            lambda i, bare=bare: plain[bare[i]],
            lambda i, index=index: places.take(index[i]),
            lambda i, named=named: store.read(named[i], TAP),
        )
        gigabytes = [size * WIDTH * 2 / seconds / 1e9 for seconds in median]
        print(
            f"| {size:,} | {gigabytes[0]:.2f} | {gigabytes[1]:.2f} "
            f"| {gigabytes[1] / gigabytes[0]:.2f} | {gigabytes[2]:.2f} "
            f"| {gigabytes[2] / gigabytes[0]:.2f} |"
        )


def measure_lookups(folder: Path, rows: int) -> None:
    """Look up which of these keys are missing."""
    print("\n| which of these are missing? | missing | seconds |\n| --- | --- | --- |")
    stored, new = make_keys(0, rows), make_keys(rows, rows + rows // 100)
    texts = [bytes(row).hex() for row in stored.view(np.uint8).reshape(-1, 32)]
    for name, keys in (
        (f"{rows:,} stored keys, as bytes", stored),
        (f"{rows:,} stored keys, as text", texts),
        (f"{rows:,} stored keys and 1 % new ones", np.concatenate([stored, new])),
    ):
        fresh = space(folder)
        started = time.perf_counter()
        missing = len(fresh.missing(keys, TAP))
        print(f"| {name} | {missing:,} | {time.perf_counter() - started:.2f} |")


def measure_collection(folder: Path, rows: int) -> None:
    """Collect garbage while a manifest needs every second image."""
    from rootstock.data.manifest import ImageRow, Manifest
    from rootstock.features.store.compaction import collect

    kept = make_keys(0, rows).view(np.uint8).reshape(-1, 32)[::2]
    manifest = Manifest(
        tuple(
            ImageRow("", bytes(row).hex(), 1, 8, 8, "RGB", "PNG", "a", "a", "train", 0, "")
            for row in kept
        )
    )
    started = time.perf_counter()
    done = collect(FeatureStore(folder), [manifest], grace_s=0)
    seconds = time.perf_counter() - started
    print(f"\ncollecting {done.rows:,} rows of {rows:,}: {seconds:.1f} s")


def measure_growth(root: Path, images: int) -> None:
    """Extract with the embedded backbone: everything, nothing new, and 1 % new."""
    from PIL import Image

    from rootstock.backbones.load import load_backbone
    from rootstock.data.build_manifest import build_manifest
    from rootstock.data.layout import find_images
    from rootstock.data.limits import DecodeLimits
    from rootstock.features.reader import FeatureReader
    from rootstock.tasks.single_label.task import SingleLabel

    folder, random = root / "images", np.random.default_rng(0)

    def draw(label: str, first: int, count: int) -> None:
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
            coarse.resize((500, 375)).save(folder / label / f"{number}.jpg", quality=90)

    backbone = load_backbone("packaged", DEFAULT_NAME, device="cpu")
    store = FeatureStore(root / "grown")
    print(f"\n| {images:,} JPEG photos of 500 x 375 | computed | seconds | of the cold run |")
    print("| --- | --- | --- | --- |")
    cold = None
    for name, more in (("cold", images), ("again", 0), ("1 % more", images // 100)):
        for label in ("a", "b"):
            draw(label, len(list(folder.glob("*/*"))), more // 2)
        limits = DecodeLimits(10**8, 10**8, 50.0)
        rows = build_manifest(
            find_images(folder),
            rules=SingleLabel(),
            limits=limits,
            val_fraction=0.1,
            test_fraction=0.1,
            near_duplicate_bits=0,
            min_per_class=3,
            seed=0,
        ).rows()
        reader = FeatureReader(folder, backbone, backbone.card.preprocess(), store)
        report = reader.extract(rows, [TAP])
        cold = cold or report.seconds
        share = 100 * report.seconds / cold
        print(f"| {name} | {report.computed:,} | {report.seconds:.2f} | {share:.2f} % |")


def write(folder: Path, first: int, last: int, *, quiet: bool = False) -> None:
    """Append rows ``first`` to ``last``; print the seconds."""
    target, keys = space(folder), make_keys(first, last)
    started = time.perf_counter()
    for at in range(0, last - first, SEGMENT_ROWS):
        part = keys[at : at + SEGMENT_ROWS]
        target.append(part, {TAP: make_values(np.arange(first + at, first + at + len(part)))})
    if not quiet:
        print(time.perf_counter() - started)


def probe(folder: Path, rows: int) -> None:
    """Open the store in this new process; print times and memory as JSON."""
    keys = make_keys(0, min(rows, 10_000))
    own = memory("RssAnon")
    started = time.perf_counter()
    store = space(folder)
    assert store.missing(keys[:1], TAP) == []
    opened = time.perf_counter()
    random = np.random.default_rng(0)
    store.read(keys[random.integers(0, len(keys), 256)], TAP)
    facts = {"open": opened - started, "first": 1e3 * (time.perf_counter() - opened)}
    facts |= {"own": memory("RssAnon") - own, "segments": len(store.taps()[0].latest())}
    for _ in range(100):
        store.read(keys[random.integers(0, len(keys), 256)], TAP)
    facts |= {"own_later": memory("RssAnon") - own, "mapped_later": memory("RssFile")}
    print(json.dumps(facts))


def start(work: str, folder: Path, *numbers: int) -> subprocess.Popen[str]:
    """Run this script in another process."""
    command = [sys.executable, __file__, "--child", work, str(folder), *map(str, numbers)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def space(folder: Path) -> FeatureSpace:
    """Return a space as a new reader sees it."""
    return FeatureStore(folder).space(weights_sha256="w" * 64, preprocess_hash="p" * 64)


def make_keys(first: int, last: int) -> np.ndarray:
    """Return synthetic hashes S32[N] of the rows ``first`` to ``last``."""
    bits = np.random.PCG64(0).advance(4 * first)
    return np.frombuffer(np.random.Generator(bits).bytes(32 * (last - first)), KEY)


def make_values(rows: np.ndarray) -> np.ndarray:
    """Return float16[N,C], computed from the row's number."""
    if not _POOL:
        _POOL.append(np.random.default_rng(2).normal(size=(POOL, WIDTH)).astype(np.float16))
    values = _POOL[0][rows % POOL]
    values[:, 0], values[:, 1] = rows % 1_009, rows // 1_009
    return values


_POOL: list[np.ndarray] = []


def plain_map(segment: Segment) -> np.ndarray:
    """Return the same values by np.memmap."""
    shape = segment.values.shape
    offset = segment.path.stat().st_size - segment.values.nbytes
    return np.memmap(segment.path, np.float16, "r", offset, shape)


def time_in_turns(turns: int, *ways: Callable[[int], object]) -> list[float]:
    """Return the median seconds of each function, called in turns so that noise affects all."""
    spent: list[list[float]] = [[] for _ in ways]
    for turn in range(turns):
        for way, seconds in zip(ways, spent, strict=True):
            started = time.perf_counter()
            way(turn)
            seconds.append(time.perf_counter() - started)
    return [float(np.median(seconds)) for seconds in spent]


def memory(kind: str) -> float:
    """Return this process's resident memory in MB: RssAnon is private, RssFile is file pages."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) / 1e3


def evict(folder: Path) -> None:
    """Ask the system to drop the files from its cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    main()
