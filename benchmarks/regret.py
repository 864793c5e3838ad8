"""Compare the planner's choice with the best strategy in hindsight.

    python benchmarks/regret.py --data-dir ../shared/data --out regret.jsonl

For every image set and number of training images, the planner chooses first, then each strategy is
forced, with the same splits and epochs. The assessment is the same for all: it is done once and its
processor time is counted for each. Otherwise every run starts with a cold feature cache. The
outside reference is scikit-learn's LogisticRegressionCV on pooled features of the same backbone,
fitted to the training images, and once more with the validation images. Every run is appended to
--out as one line, and a repeated command continues from there. `regret_table.py` prints the tables
and writes the results.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from regret_table import AUTO, FORCED, REFERENCE, Run, read_runs, show, write_results
from sets import (
    Assessed,
    assess,
    digits,
    find_sets,
    link_subset,
    list_images,
    load_settings,
    train_and_measure,
)

from rootstock.assess.profile import DatasetProfile
from rootstock.backbones.load import load_backbone
from rootstock.config.paths import Paths
from rootstock.features.reader import FeatureReader
from rootstock.features.store.store import FeatureStore
from rootstock.plan.rules import REGRET_SETS
from rootstock.workflow.project import Project

CLASSES = {"tiny_imagenet": 20}
ALL = 5_000
"""Maximum training images for `all`, so that the largest set takes an afternoon."""
TEST_IMAGES = 1_000


def main() -> int:
    """Run the runs missing in --out, then print the tables."""
    options = parse_options()
    done = read_runs(options.out)
    with tempfile.TemporaryDirectory() as scratch:
        for name, folder in find_sets(options.data_dir, options.sets, Path(scratch)):
            for seed in options.seeds:
                done += run_set(name, folder, seed, options, done, Path(scratch))
    if not done:
        return 1
    show(done, plot=options.plot)
    if options.results:
        write_results(done, options.results)
    return 0


def parse_options() -> argparse.Namespace:
    """Return the command line options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument(
        "--sets",
        nargs="*",
        default=list(REGRET_SETS),
        help="sets in --data-dir, or from derived_sets.py",
    )
    parser.add_argument("--sizes", nargs="+", type=int, default=[100, 500, ALL])
    parser.add_argument("--strategies", nargs="+", default=[AUTO, REFERENCE, *FORCED])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--weights", default="packaged", help="as backbone.weights")
    parser.add_argument("--short-side", type=int, help="reduce images to this short side in pixels")
    parser.add_argument("--epochs", type=int, help="as train.epochs")
    parser.add_argument("--test-images", type=int, default=TEST_IMAGES)
    parser.add_argument("--out", type=Path, default=Path("regret.jsonl"))
    parser.add_argument("--results", type=Path, help="result file to write")
    parser.add_argument("--plot", type=Path, help="picture to write")
    return parser.parse_args()


def run_set(
    name: str, folder: Path, seed: int, options: argparse.Namespace, done: list[Run], scratch: Path
) -> list[Run]:
    """Run every strategy and auto on one set, for each number of images that it has."""
    weights = Path(options.weights).stem
    fresh: list[Run] = []
    counts: set[int] = set()
    manifest = None
    for size in sorted(options.sizes):
        kind = {"set": name, "size": size, "seed": seed, "weights": weights}
        kind |= {"short_side": options.short_side, "epochs": options.epochs}
        missing = [
            strategy
            for strategy in options.strategies
            if not any((kind | {"strategy": strategy}).items() <= run.items() for run in done)
        ]
        if not missing:
            continue
        manifest = manifest or list_images(folder, seed=seed)
        part = scratch / f"{name}-{seed}-{size}"
        limits = {"train": size, "val": max(40, size // 4), "test": options.test_images}
        count = link_subset(
            manifest,
            folder.resolve(),
            part,
            limits=limits,
            classes=CLASSES.get(name),
            short_side=options.short_side,
        )
        if count in counts:
            continue  # the last size already used all images of the set
        counts.add(count)
        settings = [f"backbone.weights={json.dumps(options.weights)}", f"seed={seed}"]
        settings += [f"train.epochs={options.epochs}"] if options.epochs else []
        assessed = assess(part, settings, part.with_name(f"{part.name}-assessed"))
        for strategy in missing:
            if strategy == REFERENCE:
                outcome = fit_reference(part, settings, assessed)
            else:
                outcome = run_once(part, [*settings, f"plan.strategy={strategy}"], assessed)
            run = kind | {"n_train": count, "strategy": strategy} | outcome
            with options.out.open("a") as file:
                file.write(json.dumps(run) + "\n")
            print(json.dumps(run), file=sys.stderr, flush=True)
            fresh.append(run)
    return fresh


def run_once(part: Path, settings: list[str], assessed: Assessed) -> Run:
    """Return test accuracy, and processor minutes from the assessment to the written model."""
    done = train_and_measure(part, settings, assessed=assessed)
    profile = DatasetProfile.read(Paths(assessed.folder).profile)
    return {
        "chosen": done.plan.strategy,
        "trained": done.training["strategy"],
        "ruled": done.plan.evidence.ruled,
        "raced": done.plan.race is not None,
        "race": done.plan.race.why if done.plan.race else "",
        "splits": done.plan.race.heats[-1].splits if done.plan.race else 0,
        "accuracy": done.metrics["accuracy"],
        "n_test": done.metrics["n_test"],
        "won": done.training["won"],
        "minutes": round(done.minutes, 3),
        "forecast": done.forecast,
        "similarity": profile.similarity.score,
        "median_per_class": profile.median_per_class,
        "geometry": profile.geometry,
        "right": done.right,
    }


def fit_reference(part: Path, settings: list[str], assessed: Assessed) -> Run:
    """Run scikit-learn's logistic regression on features of the last tap or of all taps.

    It is fitted to the training images; with ``_with_val`` also to the validation images.
    """
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    project = Project(load_settings(part, settings), Paths(assessed.folder))
    backbone = load_backbone(project.config.backbone.weights, project.config.backbone.name)
    preprocess = backbone.card.preprocess(rendering=project.manifest.rendering)
    reader = FeatureReader(project.root, backbone, preprocess, FeatureStore(project.store))
    train, val, test = (project.manifest.rows(split) for split in ("train", "val", "test"))
    taps = list(backbone.tap_names)
    reader.extract([*train, *val, *test], taps)
    found: dict[str, Any] = {}
    for key, tap, known in (
        ("", taps[-1], train),
        ("_with_val", taps[-1], [*train, *val]),
        ("_of_all_taps_with_val", "+".join(taps), [*train, *val]),
    ):
        model = make_pipeline(
            StandardScaler(),
            LogisticRegressionCV(
                Cs=np.logspace(-5, 1, 7), cv=5, scoring="neg_log_loss", max_iter=300
            ),
        )
        model.fit(reader.read(known, tap).astype(np.float32), [row.target for row in known])
        found_classes = model.predict(reader.read(test, tap).astype(np.float32))
        right = found_classes == np.array([row.target for row in test])
        found[f"accuracy{key}"] = round(float(right.mean()), 6)
        found[f"right{key}"] = digits(right)
    return found | {"n_test": len(test)}


if __name__ == "__main__":
    sys.exit(main())
