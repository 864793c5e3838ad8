"""Compare two models of the registry on the current test images, in reports/compare.md."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from rootstock.data.manifest import Manifest
from rootstock.errors import BundleError, DataError, NoModelError
from rootstock.evaluate.paired_comparison import Contender, PairedComparison, render_comparison
from rootstock.model.batch_predict import predict_rows
from rootstock.model.bundle import read_bundle
from rootstock.model.predictor import Predictor
from rootstock.plots.comparison import plot_recalls
from rootstock.plots.sheet import plot_captioned
from rootstock.ports.registry import ModelRegistry
from rootstock.registry.champion import CHALLENGER, CHAMPION, PREVIOUS, find_alias
from rootstock.runtimes.choose import time_in_turns
from rootstock.system.files import write_atomic
from rootstock.tasks.dataset import Dataset

PICTURES = ("plots/compare/classes.png", "plots/compare/images.png")
TIMING_ROUNDS = 15


def compare_models(
    manifest: Manifest,
    root: Path,
    *,
    registry: ModelRegistry,
    name: str,
    first: str,
    second: str,
    reports: Path,
) -> PairedComparison:
    """Compare two models on the test images; write compare.md with its pictures to ``reports``.

    ``first`` and ``second`` are a version of the model ``name``, an alias, or a model directory;
    ``root`` is the folder to which the manifest's paths are relative.
    Raises:
        NoModelError: the registry has no such version or alias.
        BundleError: a directory contains no model.
        DataError: there is no test image, or answers of this task are not right or wrong.
    """
    dataset = Dataset.of(manifest)
    rows = manifest.rows("test")
    if not rows:
        raise DataError(
            "there are no test images for the comparison",
            hint="add a test split, or set data.test_fraction above 0, then run `dvc repro`",
        )
    if not dataset.task.discrete:
        raise DataError(
            f"models of the task {manifest.task} cannot be compared image by image",
            hint="`rootstock history` shows the result of the gate",
        )
    with tempfile.TemporaryDirectory(prefix="rootstock-") as folder:
        models = [
            _open(registry, name, version, Path(folder) / str(number))
            for number, version in enumerate((first, second))
        ]
        times = measure_latency([predictor for _, predictor in models])
        contenders = []
        for (title, predictor), milliseconds in zip(models, times, strict=True):
            decisions = predict_rows(predictor, rows, root).decisions
            labels = np.array(predictor.task.decided(decisions, predictor.names), dtype=object)
            unknown = sorted(set(dataset.names) - set(predictor.names))
            note = (
                f"it does not have the classes {', '.join(unknown)}, so its answers are wrong there"
                if unknown
                else ""
            )
            contenders.append(Contender(title, labels, milliseconds, note))
    comparison = PairedComparison(
        contenders[0],
        contenders[1],
        labels=np.array([row.target for row in rows], dtype=object),
        paths=[row.path for row in rows],
    )
    _write(comparison, reports, root)
    return comparison


def choose_pair(registry: ModelRegistry, name: str) -> tuple[str, str]:
    """Return the aliases to compare by default: champion and challenger.

    Without a challenger they are the previous champion and the champion.
    Raises:
        NoModelError: there are no two such models.
    """
    if find_alias(registry, name, CHALLENGER):
        return CHAMPION, CHALLENGER
    if find_alias(registry, name, PREVIOUS):
        return PREVIOUS, CHAMPION
    numbers = [entry.version for entry in registry.versions(name)]
    raise NoModelError(
        f"the model {name!r} has no challenger and no earlier champion to compare with; "
        f"versions: {', '.join(numbers) or 'none'}",
        hint="train another model, or name two versions: rootstock compare 1 2",
    )


def measure_latency(predictors: list[Predictor]) -> list[float]:
    """Return the median milliseconds per prepared image of each predictor."""
    runs = {}
    for number, predictor in enumerate(predictors):
        content = predictor.bundle.golden_bytes(predictor.bundle.golden[0])
        runs[number] = partial(predictor.infer, [predictor.prepare(content)])
    seconds = time_in_turns(runs, rounds=TIMING_ROUNDS, warm_ups=2, summary=median)
    return [1000 * one for one in seconds.values()]


def _open(registry: ModelRegistry, name: str, model: str, folder: Path) -> tuple[str, Predictor]:
    """Return a title and the predictor of a version, an alias or a model directory."""
    if (Path(model) / "bundle.json").is_file():
        return model, Predictor(Path(model))
    if Path(model).is_dir():
        raise BundleError(
            f"{model} is not a model directory: it has no bundle.json",
            hint="name a version, an alias, or a directory such as artifacts/model",
        )
    by_number = model.isdecimal()
    entry = registry.find(
        name, version=model if by_number else "", alias="" if by_number else model
    )
    title = f"version {entry.version}" + ("" if by_number else f" ({model})")
    return title, Predictor(read_bundle(registry.download(entry, folder)))


def _write(comparison: PairedComparison, reports: Path, root: Path) -> None:
    plot_recalls(
        [(one.label, one.before, one.after) for one in comparison.classes],
        (comparison.first.name, comparison.second.name),
        reports / PICTURES[0],
    )
    differing = comparison.differing()
    plot_captioned(
        [(path, label, f"{a} → {b}") for path, label, a, b in differing],
        reports / PICTURES[1],
        root=root,
        headlines=(
            "Different answers",
            f"black: true label; red: {comparison.first.name} → {comparison.second.name}; "
            f"{len(differing)} of {comparison.n} images",
        ),
    )
    with write_atomic(reports / "compare.md") as temporary:
        temporary.write_text(render_comparison(comparison, pictures=PICTURES), encoding="utf-8")
