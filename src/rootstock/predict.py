"""Predictor: image bytes in, labels and calibrated probabilities out, from a model directory."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rootstock.bundle import ModelBundle, largest_difference, read_bundle
from rootstock.data.decode import DecodeLimits, decode_image
from rootstock.data.views import average_views, prepare_views
from rootstock.errors import BundleError, ImageError
from rootstock.metrics import softmax
from rootstock.onnx_session import onnx_session

Engine = Literal["auto", "onnx", "torch"]
GOLDEN_TOLERANCE = 1e-3
"""As `largest_difference` tells: room for another processor's rounding, a hundredth of what
wrong resizing does."""

_BATCH = 16


@dataclass(frozen=True)
class Prediction:
    """The most probable label, and the ``top`` (label, probability) pairs in falling order."""

    label: str
    probability: float
    top: tuple[tuple[str, float], ...]


class Predictor:
    """One loaded model; its methods may be called from several threads at once.

    Args:
        bundle: a model directory, or one already read.
        engine: "onnx" (no torch), "torch", or "auto": onnx where ONNX Runtime is installed.
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
        engine: Engine = "auto",
        threads: int | None = None,
        name: str = "",
        version: str = "",
        limits: DecodeLimits | None = None,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, ModelBundle) else read_bundle(Path(bundle))
        self.engine = _choose(engine)
        self.limits = limits or DecodeLimits()
        self._name = name or self.bundle.directory.resolve().name
        self._version = version or self.bundle.digest[:12]
        forward = _torch_forward if self.engine == "torch" else _onnx_forward
        self._forward = forward(self.bundle, threads)

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

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits float32[N,K], before the temperature, of prepared images float32[N,3,S,S]."""
        if not len(images):
            return np.zeros((0, len(self.classes)), np.float32)
        logits = self._forward(images)
        if not np.isfinite(logits).all():
            raise BundleError(
                f"the model {self._name} {self._version} answers with numbers that are not finite",
                hint="train it again",
            )
        return logits

    def prepare(self, pixels: np.ndarray) -> np.ndarray:
        """uint8[H,W,3] -> float32[V,3,S,S]: the inputs whose logits make one prediction."""
        return prepare_views(self.bundle.preprocess, pixels, self.bundle.facts.views)

    def probabilities(self, prepared: Sequence[np.ndarray]) -> np.ndarray:
        """Calibrated probabilities float[N,K] of what `prepare` made of N images."""
        facts = self.bundle.facts
        if not len(prepared):
            return np.zeros((0, len(self.classes)), np.float32)
        logits = average_views(self.logits(np.concatenate(list(prepared))), facts.views)
        return softmax(logits / facts.temperature)

    def predict(
        self, contents: Sequence[bytes], *, top_k: int = 5
    ) -> list[Prediction | ImageError]:
        """Classify encoded images; an entry is the ImageError of an image that cannot be used.

        ``top_k`` above the number of classes gives them all.
        """
        if top_k < 1:
            raise ValueError(f"top_k must be 1 or more, got {top_k}")
        answers: list[Prediction | ImageError] = []
        for start in range(0, len(contents), _BATCH):
            answers += self._predict_batch(contents[start : start + _BATCH], top_k)
        return answers

    def check_golden(self) -> float:
        """Classify the golden images anew; returns the `largest_difference` of a logit.

        Raises:
            BundleError: an answer differs from the recorded one, so this machine does not
                decode, prepare or compute as the one that trained the model.
        """
        worst = 0.0
        for sample in self.bundle.golden:
            pixels = decode_image(self.bundle.golden_bytes(sample)).pixels
            found = self.logits(self.bundle.preprocess.apply(pixels)[None])[0]
            expected, sizes = np.asarray(sample.logits), np.asarray(sample.sizes)
            difference = largest_difference(found, expected, sizes)
            if difference > GOLDEN_TOLERANCE:
                raise BundleError(
                    f"golden image {sample.file} of {self.bundle.directory} gives logits that "
                    f"are off by {difference:.2g}, allowed is {GOLDEN_TOLERANCE:g}",
                    hint="install the versions of pillow and onnxruntime it was trained with",
                )
            worst = max(worst, difference)
        return worst

    def _predict_batch(
        self, contents: Sequence[bytes], top_k: int
    ) -> Iterator[Prediction | ImageError]:
        prepared = [self._prepare(content) for content in contents]
        images = [image for image in prepared if isinstance(image, np.ndarray)]
        rows = iter(self.probabilities(images))
        for image in prepared:
            yield image if isinstance(image, ImageError) else self._answer(next(rows), top_k)

    def _prepare(self, content: bytes) -> np.ndarray | ImageError:
        try:
            return self.prepare(decode_image(content, self.limits).pixels)
        except ImageError as error:
            return error

    def _answer(self, probabilities: np.ndarray, top_k: int) -> Prediction:
        order = np.argsort(-probabilities, kind="stable")[:top_k]
        top = tuple((self.classes[index], float(probabilities[index])) for index in order)
        return Prediction(*top[0], top)


def _choose(engine: Engine) -> Literal["onnx", "torch"]:
    if engine == "auto":
        return "onnx" if importlib.util.find_spec("onnxruntime") else "torch"
    return engine


def _onnx_forward(bundle: ModelBundle, threads: int | None) -> Callable[..., np.ndarray]:
    session = onnx_session(bundle.onnx_path, threads=threads)
    outputs = {output.name: output.shape for output in session.get_outputs()}
    found = (outputs.get("logits") or [None])[-1]
    if found != len(bundle.classes):
        raise BundleError(
            f"{bundle.onnx_path} gives {found} logits for the {len(bundle.classes)} classes "
            "of bundle.json",
            hint="download or train the model again",
        )
    return lambda images: session.run(["logits"], {"images": images})[0]


def _torch_forward(bundle: ModelBundle, threads: int | None) -> Callable[..., np.ndarray]:
    import torch
    from safetensors.torch import load_file

    from rootstock.train.network import TransferNet

    facts = bundle.facts
    network = TransferNet.from_card(
        facts.card, tap=facts.tap, n_classes=len(bundle.classes), hidden=facts.hidden
    )
    try:
        network.load_state_dict(load_file(bundle.weights_path))
    except RuntimeError as error:
        raise BundleError(
            f"{bundle.weights_path} does not fit bundle.json: {str(error).splitlines()[0]}",
            hint="download or train the model again",
        ) from None
    if threads is not None:
        torch.set_num_threads(threads)  # of the whole process: torch knows no other

    def forward(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(images)).numpy()

    return forward
