"""Shared by the benchmarks: image sets, reduced to a size, and a complete run on one of them."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from derived_sets import DERIVED, derive_set, reduce_image

from rootstock.config.load import load_config
from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.data.build_manifest import build_manifest
from rootstock.data.layout import find_images
from rootstock.data.limits import DecodeLimits
from rootstock.data.manifest import Manifest
from rootstock.plan.transfer_plan import TransferPlan
from rootstock.ports.runs import NullRunLogger
from rootstock.ports.search import SequentialSearcher
from rootstock.tasks.single_label.task import SingleLabel
from rootstock.tasks.targets import Targets
from rootstock.workflow.assess import assess_data
from rootstock.workflow.evaluate import evaluate_model
from rootstock.workflow.features import cache_features
from rootstock.workflow.index import index_images
from rootstock.workflow.plan import make_plan
from rootstock.workflow.train import train_model

SUFFIXES = (".tar", ".tar.gz")


def find_set(root: Path, name: str, scratch: Path) -> Path | None:
    """Return the set's folder below ``root``, unpacked into ``scratch`` if it is a tar; or None."""
    if (root / name).is_dir():
        return root / name
    for archive in (root / f"{name}{suffix}" for suffix in SUFFIXES):
        if archive.is_file():
            before = set(scratch.iterdir())
            with tarfile.open(archive) as tar:
                tar.extractall(scratch, filter="data")
            # The folder inside need not be named like the archive.
            return next(iter(sorted(set(scratch.iterdir()) - before)), scratch / name)
    return None


def find_sets(root: Path, names: Iterable[str], scratch: Path) -> Iterator[tuple[str, Path]]:
    """Yield name and folder of every set that exists; print a line for each missing one."""
    for name in names:
        source = DERIVED[name][0] if name in DERIVED else name
        folder = find_set(root, source, scratch)
        if folder is None:
            print(f"{root} has no folder or tar of {source}", file=sys.stderr)
        elif name in DERIVED:
            yield name, derive_set(name, folder, scratch / f"derived-{name}")
        else:
            yield name, folder


def list_images(folder: Path, *, seed: int) -> Manifest:
    """Return the index of a folder: its test images, or a third; a lone given val/ is the test set.

    There are many test images, because with few, the best of several strategies in hindsight is
    best by chance.
    """
    manifest = build_manifest(
        find_images(folder),
        rules=SingleLabel(),
        limits=DecodeLimits(10**8, 10**8, 50.0),
        val_fraction=0.15,
        test_fraction=0.35,
        near_duplicate_bits=3,
        min_per_class=3,
        seed=seed,
    )
    if manifest.given_splits != ("train", "val"):
        return manifest
    other = {"val": "test", "test": "train"}
    rows = [row._replace(split=other.get(row.split, row.split)) for row in manifest.images]
    train = sorted((row.sha256, i) for i, row in enumerate(rows) if row.split == "train")
    for _, i in train[:: round(1 / 0.15)]:
        rows[i] = rows[i]._replace(split="val")
    return replace(manifest, images=tuple(rows))


def class_targets(labels: np.ndarray, n_classes: int | None = None) -> Targets:
    """Return the targets of class numbers int[N]."""
    names = tuple(map(str, range(n_classes or int(labels.max()) + 1)))
    return Targets(np.asarray(labels, np.int64), names, labels)


def link_subset(
    manifest: Manifest,
    folder: Path,
    out: Path,
    *,
    limits: dict[str, int],
    classes: int | None,
    short_side: int | None = None,
) -> int:
    """Fill ``out`` with links, up to a number per split, evenly over classes; return train's count.

    With ``short_side``, reduced copies replace the links. Rows are ordered by the hash of their
    content, so a larger subset with the same seed contains the smaller one.
    """
    labels = manifest.strata[:classes]
    counts = {}
    for split, limit in limits.items():
        turns = [
            sorted((r for r in manifest.rows(split) if r.target == label), key=lambda r: r.sha256)
            for label in labels
        ]
        longest = max(map(len, turns))
        order = [group[i] for i in range(longest) for group in turns if i < len(group)]
        counts[split] = len(order[:limit])
        for row in order[:limit]:
            link = out / split / row.target / f"{row.sha256[:16]}{Path(row.path).suffix}"
            link.parent.mkdir(parents=True, exist_ok=True)
            if short_side:
                reduce_image(folder / row.path, link, short_side)
            elif not link.is_symlink():  # byte-equal copies are one image here
                link.symlink_to(folder / row.path)
    return counts["train"]


@dataclass(frozen=True)
class Outcome:
    """A trained model's plan and test metrics, notes of the training, and processor time."""

    plan: TransferPlan
    metrics: dict[str, float]
    training: dict[str, Any]
    minutes: float
    forecast: dict[str, Any]
    right: str
    """One digit per test image: 1 if its class was right."""


def train_and_measure(
    root: Path, overrides: list[str], *, assessed: Assessed | None = None
) -> Outcome:
    """Plan, train, and test; count processor minutes from the assessment to the written model.

    An assessment with the same settings (except the plan's) is reused; its minutes count all the
    same.
    """
    with tempfile.TemporaryDirectory() as scratch:
        assessed = assessed or assess(root, overrides, Path(scratch) / "assessed")
        config, paths = load_settings(root, overrides), Paths(Path(scratch) / "run")
        shutil.copytree(assessed.folder, paths.root)
        started = processor_minutes()
        plan = make_plan(config, paths, searcher=SequentialSearcher())
        cache_features(config, paths)
        train_model(config, paths, runs=NullRunLogger(), searcher=SequentialSearcher())
        minutes = assessed.minutes + processor_minutes() - started
        evaluation = evaluate_model(config, paths, runs=NullRunLogger())
        right = evaluation.decisions.argmax(axis=1) == evaluation.targets.values
        return Outcome(
            plan,
            evaluation.metrics,
            json.loads(paths.training.read_text()),
            minutes,
            json.loads(paths.forecast.read_text()),
            digits(right),
        )


def digits(right: np.ndarray) -> str:
    """Return one digit for each of bool[N]."""
    return "".join(map(str, right.astype(int)))


@dataclass(frozen=True)
class Assessed:
    """The folder of the first two stages, and the processor minutes of the second."""

    folder: Path
    minutes: float


def assess(root: Path, overrides: list[str], folder: Path) -> Assessed:
    """Index and assess ``root`` into ``folder``."""
    config, paths = load_settings(root, overrides), Paths(folder)
    index_images(config, paths)
    started = processor_minutes()
    assess_data(config, paths)
    return Assessed(folder, processor_minutes() - started)


def processor_minutes() -> float:
    """Return the seconds of this process and the children it has waited for."""
    used = os.times()
    return (used.user + used.system + used.children_user + used.children_system) / 60


def load_settings(root: Path, overrides: list[str]) -> Config:
    """Return the default settings for the images below ``root``, with sequential trials."""
    settings = [f"data.root={json.dumps(str(root))}", "search.engine=sequential"]
    return load_config(None, overrides=[*settings, *overrides])
