"""Compare balanced accuracy with one rare class and with equal classes.

    python benchmarks/imbalance.py --data-dir ../shared/data

CIFAR-10, with the same number of training images on both sides and the same test images. The rare
class keeps --share of the others' number. Apart from train.class_weight, both sides are planned
and trained the same way. Prints balanced accuracy and macro F1.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from sets import find_set, link_subset, list_images, train_and_measure

TEST_IMAGES = 2_000


def main() -> int:
    """Train both sides, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--images", type=int, default=5_000, help="training images")
    parser.add_argument("--weights", default="packaged", help="as backbone.weights")
    parser.add_argument(
        "--class-weight", default="logit_adjusted", help="class weight of the rare side"
    )
    parser.add_argument(
        "--share", type=float, default=0.01, help="share of images in the rare class"
    )
    parser.add_argument("--strategy", default="auto", help="as plan.strategy")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = find_set(options.data_dir, "cifar10", Path(scratch))
        if folder is None:
            print(f"{options.data_dir} has no cifar10", file=sys.stderr)
            return 1
        sides = {"equal classes": "none", f"one class at {options.share:.0%}": options.class_weight}
        parts = link_sides(folder, Path(scratch), options.images, share=options.share)
        print("| training set | class weight | strategy | balanced accuracy | macro F1 | minutes |")
        print("| --- | --- | --- | --- | --- | --- |")
        for (name, weight), part in zip(sides.items(), parts, strict=True):
            done = train_and_measure(
                part,
                [
                    f"backbone.weights={json.dumps(options.weights)}",
                    f"train.class_weight={weight}",
                    f"plan.strategy={options.strategy}",
                ],
            )
            scores = done.metrics
            print(
                f"| {name} | {weight} | {done.plan.strategy} | {scores['balanced_accuracy']:.4f} "
                f"| {scores['macro_f1']:.4f} | {done.minutes:.1f} |",
                flush=True,
            )
    return 0


def link_sides(folder: Path, scratch: Path, images: int, *, share: float) -> list[Path]:
    """Create folders of links: all classes equal, and the first one rare with as many images."""
    manifest = list_images(folder, seed=0)
    limits = {"train": images, "val": images // 5, "test": TEST_IMAGES}
    equal, skewed = scratch / "equal", scratch / "skewed"
    link_subset(manifest, folder.resolve(), equal, limits=limits, classes=None)
    # Enough that the others make up the number after the first has lost its images
    n_classes = len(manifest.strata)
    each = round(images / (n_classes - 1 + share))
    grown = limits | {"train": each * n_classes}
    link_subset(manifest, folder.resolve(), skewed, limits=grown, classes=None)
    rare = sorted((skewed / "train" / manifest.strata[0]).iterdir())
    for link in rare[max(1, round(share * each)) :]:
        link.unlink()
    return [equal, skewed]


if __name__ == "__main__":
    sys.exit(main())
