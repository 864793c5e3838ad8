"""Compare feature extraction over two Ray nodes with the same cores without Ray.

    python benchmarks/cluster.py --images ../shared/data/ants_bees \
        --weights ../shared/backbones/mobilenetv2_100.in1k.safetensors

Both nodes are on this machine, with half of its cores each, so the best possible result is the
rate of one process on all cores. Two numbers of photos separate the start-up (Ray's session, and a
process per core that imports torch and loads the network) from the time per image.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from extraction import enlarge

from rootstock.backbones.load import LAST, load_backbone
from rootstock.backbones.packaged import DEFAULT_NAME
from rootstock.data.manifest import ImageRow
from rootstock.features.reader import FeatureReader
from rootstock.features.store.store import FeatureStore
from rootstock.integrations.ray.spread import RaySpreader
from rootstock.ports.spread import InProcess, Spreader
from rootstock.system.cpu import usable_cores

NODES = 2


@dataclass(frozen=True)
class Work:
    """Extract the features of some rows; return how many were computed."""

    root: Path
    store: Path
    weights: str
    n_images: int

    def __call__(self, rows: Sequence[ImageRow]) -> int:
        backbone = load_backbone(self.weights, DEFAULT_NAME, device="auto")
        preprocess = backbone.card.preprocess()
        store = FeatureStore(self.store)
        reader = FeatureReader(self.root, backbone, preprocess, store)
        return reader.extract(rows, [LAST], n_images=self.n_images).computed


def main() -> None:
    """Measure both ways at two sizes and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="a folder with photos")
    parser.add_argument("--count", type=int, default=4096)
    parser.add_argument("--part", type=int, default=512, help="photos per task")
    parser.add_argument("--weights", default="packaged")
    options = parser.parse_args()
    options.weights = str(Path(options.weights).resolve()) if "." in options.weights else "packaged"
    # Unix sockets need short paths
    scratch = Path(tempfile.mkdtemp(prefix="rs-", dir="/tmp"))
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": str(scratch)}
    try:
        compare(options, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def compare(options: argparse.Namespace, scratch: Path) -> None:
    """Return seconds at both sizes, and the resulting rate and start-up time."""
    from ray.cluster_utils import Cluster

    root = scratch / "photos"
    rows = enlarge(options.images, root, options.count)
    half = options.count // 2
    cores = max(1, usable_cores() // NODES)
    node = {"num_cpus": cores, "object_store_memory": 80_000_000, "include_dashboard": False}

    def seconds(count: int, spreader: Spreader, name: str) -> float:
        store = scratch / f"{name}-{count}"
        work = Work(root, store, options.weights, count)
        parts = [rows[at : at + options.part] for at in range(0, count, options.part)]
        started = time.perf_counter()
        with spreader.spread(work, parts) as results:
            computed = sum(results)
        assert computed == count
        return time.perf_counter() - started

    times = {"one process": [seconds(count, InProcess(), "one") for count in (half, len(rows))]}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        for _ in range(NODES - 1):
            cluster.add_node(**node)
        spreader = RaySpreader(address=cluster.address)
        name = f"{NODES} Ray nodes"
        times[name] = [seconds(count, spreader, "spread") for count in (half, len(rows))]
    finally:
        cluster.shutdown()
    print(f"{usable_cores()} cores, {len(rows)} photos, parts of {options.part}\n")
    print(
        f"| way | {half} photos, s | {len(rows)} photos, s | images/s after the start | start, s |"
    )
    print("| --- " * 5 + "|")
    rates = []
    for name, (first, second) in times.items():
        rates.append((len(rows) - half) / (second - first))
        start = first - half / rates[-1]
        print(f"| {name} | {first:.1f} | {second:.1f} | {rates[-1]:.1f} | {start:.1f} |")
    print(f"\nrate over Ray against one process: {rates[1] / rates[0]:.2f}")


if __name__ == "__main__":
    main()
