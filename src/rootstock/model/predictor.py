"""Predictor: image bytes in, labels and calibrated probabilities out, from a model directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from rootstock.data.decode import DecodeLimits, decode_image
from rootstock.data.views import COUNT, Views, average_views, cut_views
from rootstock.errors import BundleError, ImageError
from rootstock.metrics import softmax
from rootstock.model.bundle import ModelBundle, largest_difference, read_bundle
from rootstock.model.engine import Forward, best_batch, fastest_engine, has_gpu, open_engine
from rootstock.runtimes.engines import Engine, installed_engines

GOLDEN_TOLERANCE = 1e-3
"""As `largest_difference` tells: room for another processor's rounding, a hundredth of what
wrong resizing does."""

_BATCH = 16


@dataclass(frozen=True)
class Prediction:
    """The most probable label, and the ``top`` (label, probability) pairs in falling order.

    ``novelty`` is the distance to the training images, ``unknown`` whether that is farther than
    nearly all validation images lie; both None where the model keeps no reference. ``labels`` is
    the prediction set, if one was asked for.
    """

    label: str
    probability: float
    top: tuple[tuple[str, float], ...]
    novelty: float | None = None
    unknown: bool | None = None
    labels: tuple[str, ...] | None = None


class Inferred(NamedTuple):
    """Calibrated ``probabilities`` float[N,K] and ``features`` float32[N,D] of N images.

    Features are those of the first view, the centre."""

    probabilities: np.ndarray
    features: np.ndarray


class Predictor:
    """One loaded model; its methods may be called from several threads at once.

    Args:
        bundle: a model directory, or one already read.
        engine: "onnx" or "openvino" (no torch), "torch", "fastest" (each that is installed is
            proved and measured), or "auto": the first that is installed, in this order.
        threads: threads of one forward pass; None lets the engine take every core.
        name, version: under which the model is known; by default the directory's name and
            the first 12 digits of its content's sha256.
        limits: what is accepted as an image.

    Raises:
        BundleError: the model directory is damaged or does not fit its own class list.
    """

    def __init__(
        self,
        bundle: Path | ModelBundle,
        *,
        engine: Engine | Literal["auto", "fastest"] = "auto",
        threads: int | None = None,
        name: str = "",
        version: str = "",
        limits: DecodeLimits | None = None,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, ModelBundle) else read_bundle(Path(bundle))
        self.limits = limits or DecodeLimits()
        self._name = name or self.bundle.directory.resolve().name
        self._version = version or self.bundle.digest[:12]
        # Read now: a cache may drop the files of a model that is still in use.
        self._reference = self.bundle.reference
        self.milliseconds: dict[Engine, float] = {}
        """What one image takes in each engine that was measured."""
        if engine == "fastest":
            self.engine, self._forward, self.milliseconds = fastest_engine(
                self.bundle, self._prove, threads=threads
            )
        else:
            self.engine = installed_engines()[0] if engine == "auto" else engine
            self._forward = open_engine(self.bundle, self.engine, threads=threads)

    @property
    def classes(self) -> list[str]:
        """The labels in the order of the logits."""
        return self.bundle.classes

    @property
    def info(self) -> dict[str, Any]:
        """Name, version, strategy and classes of the model."""
        return {
            "name": self._name,
            "version": self._version,
            "strategy": self.bundle.strategy,
            "classes": list(self.classes),
        }

    @cached_property
    def best_batch(self) -> int:
        """Images that `infer` should be given at once; measured when it is first asked for."""
        facts = self.bundle.facts
        size = self.bundle.preprocess.input_size
        max_images = 64 if self.engine == "torch" and has_gpu() else 8
        return best_batch(self._forward, size, views=COUNT[facts.views], max_images=max_images)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits float32[N,K], before the temperature, of prepared images float32[N,3,S,S]."""
        if not len(images):
            return np.zeros((0, len(self.classes)), np.float32)
        return self._finite(self._forward(images).logits)

    def prepare(self, content: bytes) -> np.ndarray:
        """An encoded image -> uint8[V,S,S,3]: the views whose logits make one prediction.

        Raises:
            ImageError: it cannot be used.
        """
        side = self.bundle.preprocess.decoded_side
        return self.cut(decode_image(content, self.limits, short_side=side).pixels)

    def cut(self, pixels: np.ndarray) -> np.ndarray:
        """uint8[H,W,3] -> uint8[V,S,S,3], the views of a decoded image."""
        return cut_views(self.bundle.preprocess, pixels, self.bundle.facts.views)

    def infer(self, prepared: Sequence[np.ndarray]) -> Inferred:
        """What the network makes of the views uint8[V,S,S,3] of each of N images."""
        if not len(prepared):
            return self.infer_normalised(np.zeros((0, 3, 1, 1), np.float32))
        pixels = prepared[0] if len(prepared) == 1 else np.concatenate(list(prepared))
        return self.infer_normalised(self.bundle.preprocess.normalise(pixels))

    def infer_normalised(self, images: np.ndarray, views: Views | None = None) -> Inferred:
        """The same of network inputs float32[N*V,3,S,S]; ``views`` None: the model's own."""
        facts = self.bundle.facts
        views = views or facts.views
        if not len(images):
            empty = np.zeros((0, len(self.classes)), np.float32)
            return Inferred(empty, np.zeros((0, facts.feature_width), np.float32))
        found = self._forward(images)
        logits = average_views(self._finite(found.logits), views)
        return Inferred(softmax(logits / facts.temperature), found.features[:: COUNT[views]])

    def answer(
        self,
        probabilities: np.ndarray,
        features: np.ndarray,
        *,
        top_k: int = 5,
        coverage: float | None = None,
    ) -> Prediction:
        """The prediction from one row of `Inferred`: probabilities float[K], features float[D].

        With a ``coverage`` between 0 and 1 it has the labels that hold the true one in that share
        of cases.
        Raises:
            BundleError: a coverage is asked of a model that keeps no reference.
        """
        order = np.argsort(-probabilities, kind="stable")[:top_k]
        top = tuple((self.classes[index], float(probabilities[index])) for index in order)
        reference = self._reference
        if reference is None:
            if coverage is not None:
                raise BundleError(
                    f"the model {self._name} {self._version} keeps no reference, so it has no "
                    "prediction sets",
                    hint="train it again",
                )
            return Prediction(*top[0], top)
        novelty = float(reference.distance(features[None])[0])
        labels = None
        if coverage is not None:
            chosen = reference.prediction_set(probabilities, coverage)
            labels = tuple(self.classes[index] for index in chosen)
        return Prediction(*top[0], top, novelty, novelty > self._limit, labels)

    def predict(
        self, contents: Sequence[bytes], *, top_k: int = 5, coverage: float | None = None
    ) -> list[Prediction | ImageError]:
        """Classify encoded images; an entry is the ImageError of an image that cannot be used.

        ``top_k`` above the number of classes gives them all; ``coverage`` as for `answer`.
        """
        if top_k < 1:
            raise ValueError(f"top_k must be 1 or more, got {top_k}")
        answers: list[Prediction | ImageError] = []
        for start in range(0, len(contents), _BATCH):
            batch = [self._prepare(content) for content in contents[start : start + _BATCH]]
            usable = [image for image in batch if isinstance(image, np.ndarray)]
            rows = iter(zip(*self.infer(usable), strict=True))
            answers += [
                image
                if isinstance(image, ImageError)
                else self.answer(*next(rows), top_k=top_k, coverage=coverage)
                for image in batch
            ]
        return answers

    def check_golden(self) -> float:
        """Classify the golden images anew; returns the `largest_difference` of a logit.

        Raises:
            BundleError: an answer differs from the recorded one, so this machine does not
                decode, prepare or compute as the one that trained the model.
        """
        return self._prove(self._forward)

    def _prove(self, forward: Forward) -> float:
        worst = 0.0
        for (file, pixels), sample in zip(self._golden_pixels, self.bundle.golden, strict=True):
            found = forward(self.bundle.preprocess.normalise(pixels[None])).logits[0]
            expected, sizes = np.asarray(sample.logits), np.asarray(sample.sizes)
            difference = largest_difference(found, expected, sizes)
            if not difference <= GOLDEN_TOLERANCE:  # also true for nan
                raise BundleError(
                    f"golden image {file} of {self.bundle.directory} gives logits that "
                    f"are off by {difference:.2g}, allowed is {GOLDEN_TOLERANCE:g}",
                    hint="install the versions of pillow and onnxruntime it was trained with",
                )
            worst = max(worst, difference)
        return worst

    @cached_property
    def _golden_pixels(self) -> list[tuple[str, np.ndarray]]:
        preprocess = self.bundle.preprocess
        found = []
        for sample in self.bundle.golden:
            content = self.bundle.golden_bytes(sample)
            pixels = decode_image(content, short_side=preprocess.decoded_side).pixels
            found.append((sample.file, preprocess.geometry(pixels)))
        return found

    @cached_property
    def _limit(self) -> float:
        share, reference = self.bundle.facts.unknown_share, self._reference
        return reference.limit(share) if reference and share else float("inf")

    def _finite(self, logits: np.ndarray) -> np.ndarray:
        if not np.isfinite(logits).all():
            raise BundleError(
                f"the model {self._name} {self._version} answers with numbers that are not finite",
                hint="train it again",
            )
        return logits

    def _prepare(self, content: bytes) -> np.ndarray | ImageError:
        try:
            return self.prepare(content)
        except ImageError as error:
            return error
