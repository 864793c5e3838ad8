"""Compare the stage `index` on many small files with its bound: reading and decoding only.

    python benchmarks/index.py --data-dir ../shared/data --count 100000

CIFAR-10 and Tiny ImageNet together. The bound is reading and decoding to RGB by Pillow in as many
processes. The index also hashes each file, makes a thumbnail for near-duplicates, splits, draws
three pictures, and writes the manifest. Both run twice, so that neither has an advantage from the
file cache or other work. Then 100 files are added, and the index runs again.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from PIL import Image

# Imports that the decoding processes do not need are inside the functions.

NEW = 100


def main() -> None:
    """Measure the bound, the index, and the index again."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--count", type=int, default=100_000)
    options = parser.parse_args()
    from growth import deal, images_of
    from sets import find_sets

    from rootstock.system.cpu import usable_cores

    with tempfile.TemporaryDirectory() as scratch:
        sets = find_sets(options.data_dir, ("cifar10", "tiny_imagenet"), Path(scratch))
        names = images_of([folder for _, folder in sets])
        root, out = Path(scratch) / "images", Path(scratch) / "out"
        deal(names, root, options.count)
        files = sorted(root.rglob("*.*"))
        bounds, runs = [], []
        for turn in (1, 2):
            bounds.append(decode_alone(files))
            runs.append(index(root, out / str(turn)))
        deal(names, root, NEW, first=options.count)
        again, _, read_again = index(root, out / "2")
    print(f"{usable_cores()} cores, {len(files):,} files\n")
    print("| part | files read | seconds | files/s | of the bound | peak MB |")
    print("| --- " * 6 + "|")
    for bound, (seconds, memory, read) in zip(bounds, runs, strict=True):
        print(f"| decode only | {len(files)} | {bound:.1f} | {len(files) / bound:.0f} | 1.00 | |")
        print(f"| index | {read} | {seconds:.1f} | {read / seconds:.0f} | {bound / seconds:.2f} "
              f"| {memory:.0f} |")  # fmt: skip
    print(f"| index, {NEW} more files | {read_again} | {again:.1f} | | | |")


def decode_alone(files: list[Path]) -> float:
    """Return the seconds on all cores, in pieces as large as the index's."""
    from rootstock.data.inspect import CHUNK_IMAGES
    from rootstock.system.cpu import usable_cores

    started = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(usable_cores(), mp_context=context) as pool:
        starts = range(0, len(files), CHUNK_IMAGES)
        for _ in pool.map(decode, [files[i : i + CHUNK_IMAGES] for i in starts]):
            pass
    return time.perf_counter() - started


def decode(files: list[Path]) -> None:
    """Read and decode one piece."""
    for file in files:
        with Image.open(io.BytesIO(file.read_bytes())) as image:
            image.convert("RGB")


def index(root: Path, out: Path) -> tuple[float, float, int]:
    """Return seconds, peak megabytes of this process and its workers, and files read."""
    from watch import sampled

    from rootstock.config.load import load_config
    from rootstock.config.paths import Paths
    from rootstock.data import inspection_cache as seen
    from rootstock.workflow.index import index_images

    config = load_config(None, overrides=[f"data.root={root}"])
    read, inspect = [0], seen.inspect_images

    def counted(paths: list[str], **options: object) -> list:
        read[0] += len(paths)
        return inspect(paths, **options)

    seen.inspect_images = counted
    started = time.perf_counter()
    with sampled(own_memory, seconds=1) as memory:
        index_images(config, Paths(out))
    seconds = time.perf_counter() - started
    seen.inspect_images = inspect
    return seconds, max(memory, default=0.0), read[0]


def own_memory() -> float:
    """Return the unshared megabytes of this process and its workers."""
    import psutil

    mine = psutil.Process()
    family = [mine, *mine.children(recursive=True)]
    return sum(one.memory_full_info().uss for one in family) / 1e6


if __name__ == "__main__":
    main()
