"""The forward pass of feature extraction in int8, calibrated on training images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rootstock.backbones.load import Backbone
from rootstock.data.preprocess import Preprocess
from rootstock.errors import BackboneError, RootstockError
from rootstock.features.forward import (
    Features,
    ForwardPass,
    make_splitter,
    open_translated,
    translate,
)
from rootstock.runtimes.int8 import write_int8
from rootstock.system.digest import digest_json
from rootstock.system.files import write_atomic

PROBES, LEAST_LIKENESS = 8, 0.9
"""Cosine of features in int8 and in float32 that is at least needed, over this many images: the
packaged backbones reach .99, and a network whose sums overflow is far below."""


def open_int8(
    backbone: Backbone,
    preprocess: Preprocess,
    taps: Sequence[str],
    *,
    images: Callable[[], np.ndarray],
    network_sha256: str,
    folder: Path,
) -> ForwardPass:
    """Return the forward pass of the network in int8, by ONNX Runtime on the processor.

    ``images`` returns the prepared images uint8[N,S,S,3] for the calibration; ``network_sha256``
    names backbone and images, and the calibrated network is cached in ``folder``.
    Raises:
        BackboneError: torch cannot translate the network, it has no int8 form, or int8 changes
          its features too much.
    """
    ordered = sorted(taps, key=backbone.tap_index)
    exact = translate(backbone, ordered, preprocess.input_size, folder)
    identity = [network_sha256, preprocess.hash, exact.stem]
    path = folder / f"{digest_json(identity, digits=20)}.int8.onnx"
    split = make_splitter(backbone, ordered)
    pixels = images()
    if not path.exists():
        prepared = list(preprocess.normalise(pixels))
        try:
            with write_atomic(path) as temporary:
                write_int8(exact, temporary, prepared)
        except RootstockError:
            raise
        except Exception as error:  # what ONNX Runtime raises is not documented
            why = (str(error) or type(error).__name__).splitlines()[0]
            raise BackboneError(
                f"{backbone.card.name} has no int8 form: {why}",
                hint="set features.precision: float32",
            ) from error
    rounded = open_translated("onnx", path, preprocess, split)
    probe = pixels[:PROBES]
    plain = open_translated("onnx", exact, preprocess, split).run(probe)
    likeness = _likeness(plain, rounded.run(probe))
    if not likeness >= LEAST_LIKENESS:  # also true for nan
        raise BackboneError(
            f"features of {backbone.card.name} in int8 are too unlike those in float32 on this "
            f"machine: cosine {likeness:.2f}, at least {LEAST_LIKENESS:g} is needed",
            hint="set features.precision: float32; sums overflow on a processor without VNNI",
        )
    return replace(rounded, variant="int8")


def _likeness(one: Features, other: Features) -> float:
    """Return the mean cosine of the features of the same images, at the tap that differs most."""
    cosines = []
    for tap, values in one.items():
        pair = [np.asarray(each, np.float32) for each in (values, other[tap])]
        lengths = np.linalg.norm(pair[0], axis=1) * np.linalg.norm(pair[1], axis=1)
        cosines.append((np.vecdot(*pair) / np.maximum(lengths, 1e-12)).mean())
    return float(np.min(cosines))
