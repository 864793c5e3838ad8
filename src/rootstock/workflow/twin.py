"""The int8 twin of a trained model: fitted to training images, judged by validation images.

A head that was trained on int8 features has no choice: the twin is then the model.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rootstock.config.schema import ExportConfig
from rootstock.data.manifest import ImageRow
from rootstock.data.views import average_views
from rootstock.errors import BundleError
from rootstock.heads.linear import Head, LinearHead, read_head
from rootstock.model.twin import Twin, TwinFacts, TwinMaker, judge_twin
from rootstock.runtimes.int8 import write_int8
from rootstock.runtimes.onnx import onnx_session
from rootstock.system.threads import spread
from rootstock.training.objectives import HEAD_FILE
from rootstock.training.trials import HeadTrial
from rootstock.workflow.calibration import calibration_images
from rootstock.workflow.choice import Calibrated, Choice

log = logging.getLogger(__name__)
NATIVE = "the head was trained on int8 features"
MAX_IMAGES = 1_000
"""Validation images that a twin is measured on, evenly drawn."""


def twin_maker(options: ExportConfig, choice: Choice, calibrated: Calibrated) -> TwinMaker | None:
    """Return what makes the int8 twin of the chosen model; None if it is not wanted.

    Raises:
        BundleError: when the twin is made: a model that runs in int8 has no int8 form.
    """
    if options.int8 == "never":
        return None
    data = choice.job.data

    def make(source: Path, target: Path) -> Twin:
        native = bool(data.reader.calibration)
        some = data.reader.calibration or calibration_images(data.rows("train"))
        images = [data.view_inputs(row, "one")[0] for row in some]
        try:
            write_int8(source, target, images)
            sessions = [onnx_session(path, threads=1) for path in (source, target)]
        except Exception as error:  # noqa: BLE001 - what ONNX Runtime raises is not documented
            why = (str(error) or type(error).__name__).splitlines()[0]
            target.unlink(missing_ok=True)
            if native:
                raise BundleError(
                    f"the network has no int8 form: {why}",
                    hint="set features.precision: float32",
                ) from error
            facts = TwinFacts(kept=False, reason=f"the network has no int8 form: {why}")
            return _note(Twin(facts))
        every = data.rows("val")
        numbers = np.unique(np.linspace(0, len(every) - 1, min(len(every), MAX_IMAGES)).round())
        chosen = numbers.astype(int)
        head = _find_head(choice, calibrated)
        exact, twin = _measure(sessions, [every[n] for n in chosen], choice, calibrated, head)
        facts = judge_twin(
            exact.outputs,
            twin.outputs,
            data.task,
            data.targets("val").take(chosen),
            calibrated.calibration,
            max_loss=options.max_loss,
        )
        if native:
            facts = facts.model_copy(update={"kept": True, "native": True, "reason": NATIVE})
        if facts.kept:
            return _note(Twin(facts, twin.features))
        target.unlink()
        return _note(Twin(facts))

    return make


def _note(twin: Twin) -> Twin:
    log.info("int8 twin %s: %s", "kept" if twin.facts.kept else "refused", twin.facts.reason)
    return twin


class _Measured(NamedTuple):
    """Outputs float32[V,K] and features float32[V,D] of the validation images."""

    outputs: np.ndarray
    features: np.ndarray


class _Given(NamedTuple):
    """What a network gives for the views of one image."""

    logits: np.ndarray
    features: np.ndarray


def _measure(
    sessions: Sequence[Any],
    rows: Sequence[ImageRow],
    choice: Choice,
    calibrated: Calibrated,
    outputs_of: Callable[[_Given], np.ndarray],
) -> list[_Measured]:
    """Return what each session makes of the images, which are decoded once."""
    views = calibrated.views

    def run(row: ImageRow) -> list[tuple[np.ndarray, np.ndarray]]:
        inputs = choice.job.data.view_inputs(row, views)
        given = [
            _Given(*session.run(list(_Given._fields), {"images": inputs})) for session in sessions
        ]
        return [(average_views(outputs_of(one), views), one.features[:1]) for one in given]

    each = list(spread(run, rows))
    return [
        _Measured(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
        for found in zip(*each, strict=True)
    ]


def _find_head(choice: Choice, calibrated: Calibrated) -> Callable[[_Given], np.ndarray]:
    """Return what turns a network's answer into outputs of a head that has not seen the images.

    The final head has learnt from the validation images, and is surer of them than of others.
    """
    if calibrated.final and isinstance(choice.trial, HeadTrial):
        head = read_head(choice.trial.directory / HEAD_FILE)
        width = _width(head)

        def read(given: _Given) -> np.ndarray:
            if given.features.shape[1] != width:  # it reads maps
                return given.logits
            return head.outputs(given.features)

        return read
    return lambda given: given.logits


def _width(head: Head) -> int:
    """Return how many features a head reads that has one layer; 0 for another."""
    return head.weights.shape[1] if isinstance(head, LinearHead) else 0
