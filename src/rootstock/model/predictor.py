"""Predictor: answer images with the model in a directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rootstock.data.limits import DecodeLimits
from rootstock.data.views import FORWARD_PASSES, Views, average_views, cut_views
from rootstock.errors import BundleError, ImageError
from rootstock.model.bundle import ModelBundle, largest_difference, read_bundle
from rootstock.model.engine import (
    EngineChoice,
    Forward,
    PrecisionChoice,
    Way,
    best_batch,
    fastest_way,
    has_gpu,
    list_ways,
    open_engine,
)
from rootstock.model.head_layers import HeadLayers
from rootstock.model.known_images import unnamed
from rootstock.runtimes.engines import Engine, Precision
from rootstock.tasks import answer_type, get_task
from rootstock.tasks.answer import Answer, AnswerError, Neighbour
from rootstock.tasks.task import AnswerOptions

GOLDEN_TOLERANCE = 1e-3
"""Tolerance of `largest_difference`: above the rounding of other processors, and a hundredth of
the effect of a wrong resize."""

_BATCH = 16
_proved: dict[tuple[str, Way], float] = {}
"""Differences of golden images by the model's digest and the way, checked in this process."""
DEFAULT_OPTIONS = AnswerOptions()


def golden_tolerance(bundle: ModelBundle, precision: Precision) -> float:
    """Return the tolerance for recorded outputs, as `largest_difference` measures it.

    For the twin it is the distance of the recorded outputs from float32: another way to round
    stays within it, but a processor whose 16-bit sums overflow does not.
    """
    if precision == "float32":
        return GOLDEN_TOLERANCE
    rounding = (
        largest_difference(np.asarray(one.int8), np.asarray(one.logits), np.asarray(one.sizes))
        for one in bundle.golden
    )
    return max(GOLDEN_TOLERANCE, *rounding)


class Inferred(NamedTuple):
    """``decisions`` [N,...] of the task and ``features`` float32[N,D] of N images.

    The features are those of the first view, the centre."""

    decisions: np.ndarray
    features: np.ndarray


class Mapped(NamedTuple):
    """The outputs of the network for N images, with the maps float32[N,c,h,w] of each tap.

    All are of the first view, the centre; the features are the means of the maps.
    """

    decisions: np.ndarray
    features: np.ndarray
    maps: tuple[np.ndarray, ...]


class Prepared(NamedTuple):
    """The views uint8[V,S,S,3] of an image, and its width and height in pixels."""

    views: np.ndarray
    size: tuple[int, int]


class Predictor:
    """One loaded model; several threads may call its methods at once.

    Args:
        bundle: a model directory, or a bundle that was read from one.
        engine: "onnx" or "openvino" (no torch), "torch", "fastest" (each installed engine is
            checked and measured), or "auto": the first installed one, in this order.
        precision: "float32", "int8" (the model's twin, by ONNX Runtime), or "auto": int8 if the
            model has a twin that is faster here. A model whose head was trained on int8 features
            always runs in int8.
        threads: threads per forward pass; None: the engine uses every core.
        name, version: the name of the model; by default that of the directory, and the first
            12 digits of its content's sha256.
        limits: the limits on images; None: those of training.

    Opening a model checks it: its golden images must give the recorded outputs.

    Raises:
        BundleError: the model directory is damaged, does not fit its own list of outputs, or
          gives other answers than after training.
    """

    def __init__(
        self,
        bundle: Path | ModelBundle,
        *,
        engine: EngineChoice = "auto",
        precision: PrecisionChoice = "float32",
        threads: int | None = None,
        name: str = "",
        version: str = "",
        limits: DecodeLimits | None = None,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, ModelBundle) else read_bundle(Path(bundle))
        self.task = get_task(self.bundle.facts.task)
        self.limits = limits or self.bundle.limits
        self._name = name or self.bundle.directory.resolve().name
        self._version = version or self.bundle.digest[:12]
        # Read the file now: a cache may delete the files of a model that is still in use.
        reference = self.bundle.reference
        self._known = self.bundle.known_images
        self.head = HeadLayers.read(self.bundle.weights_path)
        self.milliseconds: dict[str, float] = {}
        """Milliseconds per image of each measured way, by name."""
        self.resident_bytes = 0
        """Growth of the process's resident memory at opening, if that was measured."""
        ways = list_ways(self.bundle, engine, precision)
        if engine == "fastest" or len(ways) > 1:
            self.way, self._forward, self.milliseconds = fastest_way(
                self.bundle,
                ways,
                self._prove,
                may_use_gpu=engine == "fastest" and precision != "int8" and not self.bundle.is_int8,
                threads=threads,
            )
        else:
            [self.way] = ways
            self._forward = open_engine(self.bundle, self.way, threads=threads)
        self.reference = (
            reference.in_int8() if reference and self.precision == "int8" else reference
        )
        """The reference of the model, for the precision in use."""
        key = (self.bundle.digest, self.way)
        if key not in _proved:
            _proved[key] = self.check_golden()
        self.golden_difference = _proved[key]
        """The `largest_difference` of the golden images."""

    @property
    def engine(self) -> Engine:
        """The engine that runs the network."""
        return self.way.engine

    @property
    def precision(self) -> Precision:
        """The precision of the computation."""
        return self.way.precision

    @property
    def names(self) -> list[str]:
        """Names of the outputs, such as the classes, in order."""
        return self.bundle.names

    @property
    def info(self) -> dict[str, Any]:
        """Name, version, task and strategy of the model."""
        return {
            "name": self._name,
            "version": self._version,
            "task": self.task.name,
            "strategy": self.bundle.strategy,
        }

    @cached_property
    def best_batch(self) -> int:
        """Number of images that `infer` should get at once; measured on first use."""
        facts = self.bundle.facts
        size = self.bundle.preprocess.input_size
        max_images = 64 if self.engine == "torch" and has_gpu() else 8
        return best_batch(
            self._forward, size, views=FORWARD_PASSES[facts.views], max_images=max_images
        )

    def outputs(self, images: np.ndarray) -> np.ndarray:
        """Return outputs float32[N,K], before calibration, of prepared images [N,3,S,S]."""
        if not len(images):
            return np.zeros((0, self.bundle.width), np.float32)
        return self._finite(self._forward(images).logits)

    def prepare(self, content: bytes) -> np.ndarray:
        """Return the views uint8[V,S,S,3] of an encoded image, which one prediction averages.

        Raises:
            ImageError: the image is not usable.
        """
        return self.prepare_sized(content).views

    def prepare_sized(self, content: bytes) -> Prepared:
        """Return the views of an encoded image, and the size of the image.

        Raises:
            ImageError: the image is not usable.
        """
        image = self.bundle.preprocess.decode(content, self.limits)
        return Prepared(self.cut(image.pixels), image.size)

    def cut(self, pixels: np.ndarray) -> np.ndarray:
        """Return the views uint8[V,S,S,3] of a decoded image uint8[H,W,3]."""
        return cut_views(self.bundle.preprocess, pixels, self.bundle.facts.views)

    def infer(self, prepared: Sequence[np.ndarray]) -> Inferred:
        """Return the decisions and features for the views uint8[V,S,S,3] of each of N images."""
        if not len(prepared):
            return self.infer_normalised(np.zeros((0, 3, 1, 1), np.float32))
        pixels = prepared[0] if len(prepared) == 1 else np.concatenate(list(prepared))
        return self.infer_normalised(self.bundle.preprocess.normalise(pixels))

    def infer_normalised(self, images: np.ndarray, views: Views | None = None) -> Inferred:
        """Return the same for network inputs float32[N*V,3,S,S]; None: the model's own views."""
        facts = self.bundle.facts
        views = views or facts.views
        if not len(images):
            outputs = np.zeros((0, self.bundle.width), np.float32)
            features = np.zeros((0, facts.feature_width), np.float32)
        else:
            given = self._forward(images)
            outputs = average_views(self._finite(given.logits), views)
            features = given.features[:: FORWARD_PASSES[views]]
        return Inferred(self.task.decide(outputs, facts.calibration), features)

    def infer_maps(self, prepared: Sequence[np.ndarray]) -> Mapped:
        """Return decisions like `infer`, and the maps of the first view of each of N images.

        The maps are empty if the features of this network are not means of maps.
        """
        facts = self.bundle.facts
        images = self.bundle.preprocess.normalise(np.concatenate(list(prepared)))
        given = self._forward(images, with_maps=True)
        step = FORWARD_PASSES[facts.views]
        outputs = average_views(self._finite(given.logits), facts.views)
        decisions = self.task.decide(outputs, facts.calibration)
        return Mapped(decisions, given.features[::step], tuple(one[::step] for one in given.maps))

    def answer(
        self,
        decision: np.ndarray,
        features: np.ndarray,
        options: AnswerOptions = DEFAULT_OPTIONS,
    ) -> Answer:
        """Return the answer for one row of `Inferred`.

        Raises:
            BundleError: ``coverage`` is set, but the model has no reference.
        """
        reference = self.reference
        if reference is None:
            if options.coverage is not None:
                raise BundleError(
                    f"the model {self._name} {self._version} has no reference, so it cannot give "
                    "prediction sets",
                    hint="train the model again",
                )
            return self.task.answer(decision, self.names, options, {})
        answer = self.task.answer(decision, self.names, options, reference.remembered)
        distance = float(reference.distance(features[None])[0])
        return replace(
            answer,
            novelty=round(distance, 4),
            unknown=distance > self._limit,
            neighbours=self._neighbours(features, options.neighbours),
        )

    def are_unknown(self, features: np.ndarray) -> np.ndarray:
        """Return bool[N]: which features [N,D] are unlike those of the training images."""
        if self.reference is None:
            return np.zeros(len(features), bool)
        return self.reference.distance(features) > self._limit

    def predict(
        self, contents: Sequence[bytes], *, top_k: int = 5, coverage: float | None = None
    ) -> list[Answer]:
        """Return an answer for each encoded image; the answer for an unusable one has an ``error``.

        ``top_k`` above the number of names gives all of them; ``coverage`` is as in
        `AnswerOptions`.
        """
        if top_k < 1:
            raise ValueError(f"top_k must be 1 or more, got {top_k}")
        options = AnswerOptions(top_k, coverage)
        answers: list[Answer] = []
        for start in range(0, len(contents), _BATCH):
            batch = [self._prepare(content) for content in contents[start : start + _BATCH]]
            usable = [image.views for image in batch if isinstance(image, Prepared)]
            rows = iter(zip(*self.infer(usable), strict=True))
            answers += [
                image
                if isinstance(image, Answer)
                else self.answer(*next(rows), options._replace(size=image.size))
                for image in batch
            ]
        return answers

    def check_golden(self) -> float:
        """Classify the golden images again; return the `largest_difference` of a logit.

        Raises:
            BundleError: an answer differs from the recorded one, so this machine does not
              decode, prepare or compute like the one that trained the model.
        """
        return self._prove(self._forward, self.precision)

    def _prove(self, forward: Forward, precision: Precision) -> float:
        worst, allowed = 0.0, golden_tolerance(self.bundle, precision)
        for (file, pixels), sample in zip(self.golden_pixels, self.bundle.golden, strict=True):
            found = forward(self.bundle.preprocess.normalise(pixels[None])).logits[0]
            recorded = sample.logits if precision == "float32" else sample.int8
            expected, sizes = np.asarray(recorded), np.asarray(sample.sizes)
            difference = largest_difference(found, expected, sizes)
            if not difference <= allowed:  # also true for nan
                raise BundleError(
                    f"golden image {file} of {self.bundle.directory} gives logits that "
                    f"differ by {difference:.2g}; the limit is {allowed:.2g}",
                    hint="install the versions of pillow and onnxruntime used in training",
                )
            worst = max(worst, difference)
        return worst

    @cached_property
    def golden_pixels(self) -> list[tuple[str, np.ndarray]]:
        preprocess = self.bundle.preprocess
        found = []
        for sample in self.bundle.golden:
            try:
                image = preprocess.decode(self.bundle.golden_bytes(sample), self.bundle.limits)
            except ImageError as error:
                raise BundleError(
                    f"golden image {sample.file} of {self.bundle.directory}: {error.message}",
                    hint="download the model again, or train it again",
                ) from None
            found.append((sample.file, preprocess.fit(image.pixels)))
        return found

    @cached_property
    def _limit(self) -> float:
        share, reference = self.bundle.facts.unknown_share, self.reference
        return reference.limit(share) if reference and share else float("inf")

    def _finite(self, logits: np.ndarray) -> np.ndarray:
        if not np.isfinite(logits).all():
            raise BundleError(
                f"the model {self._name} {self._version} gives numbers that are not finite",
                hint="train the model again",
            )
        return logits

    def _neighbours(self, features: np.ndarray, count: int) -> tuple[Neighbour, ...] | None:
        if not count:
            return None
        if self._known is None or self.reference is None:
            raise unnamed(f"the model {self._name} {self._version}")
        rows, distances = self.reference.nearest(features, count)
        images = [self._known.images[row] for row in rows]
        return tuple(
            Neighbour(image.path, image.target, round(float(distance), 4), image.thumbnail or None)
            for image, distance in zip(images, distances, strict=True)
        )

    def _prepare(self, content: bytes) -> Prepared | Answer:
        try:
            return self.prepare_sized(content)
        except ImageError as error:
            answer = answer_type(self.task.name)
            return answer(error=AnswerError(error.message, error.reason))
