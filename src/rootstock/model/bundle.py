"""ModelBundle: the directory of a model, and everything that a service needs.

    bundle.json          task, names, preprocessing, calibration, metrics, lineage, backbone's card
    model.safetensors    the weights, for PyTorch
    model.onnx           the same network: "images" -> "logits", "features"; any batch size
    model.int8.onnx      the same in int8, if measurements show no loss
    reference.safetensors  features of training images, and their distances to validation images
    known.safetensors      the names of those training images
    seen.safetensors     short hashes of the training and validation images
    golden/              a few validation images, and golden.json with their expected outputs
    card.md              a description for users of the model; in registered models
    evaluation.json      the metrics on the test images; in registered models
    checksums.json       sha256 of every file above

Reading needs neither torch nor a network, and no file contains a pickle. A registered model also
has MLflow's files, among them code.zip, which Rootstock never runs. A directory is written whole or
not at all, and only if ONNX gives the same answers as PyTorch. A file that checksums.json does not
list is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from rootstock.data.limits import DecodeLimits
from rootstock.data.preprocess import Preprocess
from rootstock.data.views import Views
from rootstock.errors import BackboneError, BundleError, ConfigError
from rootstock.model.known_images import KnownImages
from rootstock.model.novelty import Reference
from rootstock.model.seen import SeenImages
from rootstock.model.twin import TwinFacts
from rootstock.system.arrays import read_arrays
from rootstock.system.files import explain_format, sha256_file
from rootstock.tasks import get_task

FORMAT_VERSION = 2
MAX_GOLDEN = 8
FittedTo = Literal["train", "train+val"]

FACTS, WEIGHTS, ONNX = "bundle.json", "model.safetensors", "model.onnx"
TWIN = "model.int8.onnx"
REFERENCE, KNOWN, SEEN = "reference.safetensors", "known.safetensors", "seen.safetensors"
CARD, EVALUATION = "card.md", "evaluation.json"
GOLDEN, CHECKSUMS = "golden/golden.json", "checksums.json"
UNLISTED = (CHECKSUMS, "registered_model_meta", ".DS_Store")
"""Files that checksums.json need not list: itself, MLflow's note about a downloaded folder, and
files that macOS adds to a folder."""
_AGAIN = "download the model again, or train it again"
_TRAIN_AGAIN = "train the model again with this version: `dvc repro --force train`"
_OTHER_VERSION = "use the version of Rootstock that made the model, or train it again with this one"


class BundleFacts(BaseModel):
    """bundle.json: the facts that are needed to use the weights."""

    model_config = ConfigDict(frozen=True, strict=True)

    format_version: int
    task: str
    names: Annotated[list[str], Field(min_length=1)]
    """Names of the outputs, such as the classes."""
    strategy: str
    tap: str
    feature_width: Annotated[int, Field(ge=1)]
    hidden: Annotated[int, Field(ge=0)] = 0
    networks: Annotated[int, Field(ge=1)] = 1
    """How many networks are averaged."""
    fitted_to: FittedTo = "train"
    """The splits from which the head has learned."""
    views: Views = "one"
    unknown_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of images like the validation images that may be flagged unknown; 0: none."""
    preprocess: dict[str, Any]
    preprocess_hash: str
    calibration: dict[str, Any]
    """Values with which the task turns outputs into decisions."""
    metrics: dict[str, Any]
    lineage: dict[str, Any]
    card: dict[str, Any]
    limits: dict[str, Any] = Field(default_factory=dict)
    """Limits on the images in training; empty in older models."""
    int8: TwinFacts | None = None
    """Measurements of the int8 twin; None if no twin was requested."""


class GoldenSample(BaseModel):
    """One image of golden/, its target, and the expected outputs (before calibration).

    ``sizes`` sets the tolerance, see `largest_difference`.
    """

    model_config = ConfigDict(frozen=True)

    file: Annotated[str, Field(pattern=r"^[0-9]+(\.[a-z0-9]+)?$")]
    target: Annotated[str, Field(validation_alias=AliasChoices("target", "label"))]
    logits: list[float]
    sizes: list[float]
    int8: list[float] | None = None
    """The expected outputs of the int8 twin; None if there is no twin."""


class GoldenFile(BaseModel):
    """golden/golden.json."""

    samples: Annotated[list[GoldenSample], Field(min_length=1)]


Parsed = TypeVar("Parsed", BundleFacts, GoldenFile)


@dataclass(frozen=True)
class ModelBundle:
    """A verified model directory; ``digest`` identifies its content."""

    directory: Path
    facts: BundleFacts
    golden: tuple[GoldenSample, ...]
    digest: str

    @property
    def names(self) -> list[str]:
        return self.facts.names

    @property
    def width(self) -> int:
        """The number of outputs of the network."""
        return get_task(self.facts.task).width(self.names)

    @property
    def strategy(self) -> str:
        return self.facts.strategy

    @property
    def lineage(self) -> dict[str, Any]:
        return self.facts.lineage

    @cached_property
    def preprocess(self) -> Preprocess:
        return Preprocess.from_dict(self.facts.preprocess)

    @cached_property
    def limits(self) -> DecodeLimits:
        return DecodeLimits.from_dict(self.facts.limits)

    @cached_property
    def reference(self) -> Reference | None:
        """The reference of the model; None in older models without one.

        Raises:
            BundleError: the reference does not fit the model.
        """
        path = self.directory / REFERENCE
        if not path.is_file():
            return None
        try:
            reference = Reference.from_arrays(read_arrays(path))
        except (KeyError, OSError, ValueError) as error:
            raise BundleError(f"{path} is damaged: {error}", hint=_AGAIN) from None
        width = (self.facts.feature_width,)
        if reference.features.shape[1:] != width or not len(reference.distances):
            raise BundleError(f"{path} does not fit {FACTS}", hint=_AGAIN)
        return reference

    @cached_property
    def known_images(self) -> KnownImages | None:
        """The training images in the reference; None if the model does not store their names.

        Raises:
            BundleError: the file is damaged, or does not fit the reference.
        """
        path = self.directory / KNOWN
        if not path.is_file():
            return None
        try:
            known = KnownImages.from_arrays(read_arrays(path))
        except (KeyError, OSError, TypeError, ValueError) as error:
            raise BundleError(f"{path} is damaged: {error}", hint=_AGAIN) from None
        if self.reference is None or len(known.images) != len(self.reference.features):
            raise BundleError(f"{path} does not fit {REFERENCE}", hint=_AGAIN)
        return known

    @cached_property
    def seen(self) -> SeenImages | None:
        """The images of training and validation; None in older models that do not store them.

        Raises:
            BundleError: the file is damaged.
        """
        path = self.directory / SEEN
        if not path.is_file():
            return None
        try:
            return SeenImages.from_arrays(read_arrays(path))
        except (KeyError, OSError, ValueError) as error:
            raise BundleError(f"{path} is damaged: {error}", hint=_AGAIN) from None

    @property
    def model_card(self) -> str:
        """The model card as Markdown; empty if the model is not registered."""
        path = self.directory / CARD
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The metrics of training, and those on the test images if the model has them."""
        path = self.directory / EVALUATION
        return self.facts.metrics | (read_bundle_json(path) if path.is_file() else {})

    @property
    def weights_path(self) -> Path:
        return self.directory / WEIGHTS

    @property
    def onnx_path(self) -> Path:
        return self.directory / ONNX

    @property
    def twin_path(self) -> Path:
        return self.directory / TWIN

    @property
    def has_twin(self) -> bool:
        """Whether the model has an int8 twin."""
        return self.facts.int8 is not None and self.facts.int8.kept

    @property
    def is_int8(self) -> bool:
        """Whether the head was trained on int8 features, so that the int8 network is the model."""
        return self.facts.int8 is not None and self.facts.int8.native

    def golden_bytes(self, sample: GoldenSample) -> bytes:
        return (self.directory / "golden" / sample.file).read_bytes()


def read_bundle(directory: Path) -> ModelBundle:
    """Read a model directory after checking its format version and every checksum.

    Raises:
        BundleError: a file is missing, damaged, unlisted or from another format version.
    """
    if not directory.is_dir():
        raise BundleError(
            f"there is no model directory {directory}",
            hint="pass the folder that contains bundle.json, for example artifacts/model",
        )
    if not (directory / FACTS).is_file():
        below = (directory / "artifacts/model", directory / "model")
        near = [one for one in below if (one / FACTS).is_file()]
        raise BundleError(
            f"{directory / FACTS} is missing: {directory} is not a model",
            hint=f"did you mean {near[0]}?" if near else _AGAIN,
        )
    raw = _upgrade(read_bundle_json(directory / FACTS))
    # Check the version first: a bundle of a later format may differ in everything else.
    problem = explain_format(
        raw.get("format_version"), FORMAT_VERSION, path=directory / FACTS, again=_TRAIN_AGAIN
    )
    if problem:
        raise BundleError(problem[0], hint=problem[1])
    sums = read_bundle_json(directory / CHECKSUMS)
    _verify_checksums(directory, sums)
    facts = _parse(BundleFacts, raw, directory / FACTS)
    if facts.int8 and facts.int8.kept and TWIN not in sums:
        raise BundleError(f"{directory / CHECKSUMS} has no checksum of {TWIN}", hint=_AGAIN)
    _verify_task(facts, directory / FACTS)
    golden = _read_golden(directory, facts, sums)
    _refuse_unlisted(directory, sums)
    digest = sha256_file(directory / CHECKSUMS)
    _verify_preprocess(facts, directory / FACTS)
    return ModelBundle(directory, facts, golden, digest)


def largest_difference(found: np.ndarray, expected: np.ndarray, sizes: np.ndarray) -> float:
    """Return the largest difference of two logits, relative to ``sizes`` above 10.

    A logit is a sum, and float32 rounds in proportion to its terms, not to the result: a head on
    features of little variance has terms of hundreds, and one for a class never seen, of 10,000.
    """
    return float((np.abs(found - expected) / np.maximum(1.0, sizes / 10)).max())


def _upgrade(raw: dict[str, Any]) -> dict[str, Any]:
    """Convert the facts of format 1, which has one class per image, to the present format."""
    if raw.get("format_version") != 1 or "classes" not in raw or "temperature" not in raw:
        return raw
    renamed = {"classes": "names"}
    facts = {renamed.get(key, key): value for key, value in raw.items() if key != "temperature"}
    calibration = {"temperature": raw["temperature"]}
    return facts | {
        "format_version": FORMAT_VERSION,
        "task": "single_label",
        "calibration": calibration,
    }


def read_bundle_json(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise BundleError(f"{path} is missing", hint=_AGAIN) from None
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}", hint=_AGAIN) from None
    except (RecursionError, ValueError) as error:
        raise BundleError(f"{path} is damaged: not JSON ({error})", hint=_AGAIN) from None
    if not isinstance(tree, dict):
        raise BundleError(f"{path} is damaged: not a JSON object", hint=_AGAIN)
    return tree


def _parse(kind: type[Parsed], raw: Any, path: Path) -> Parsed:
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()
        )
        raise BundleError(f"{path}: {problems}", hint=_AGAIN) from None


def _verify_checksums(directory: Path, sums: Mapping[str, Any]) -> None:
    for name in (FACTS, WEIGHTS, ONNX, GOLDEN):
        if name not in sums:
            raise BundleError(f"{directory / CHECKSUMS} has no checksum of {name}", hint=_AGAIN)
    for name, expected in sums.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise BundleError(f"{directory / CHECKSUMS} names {name!r}, outside the model")
        if not (directory / path).is_file():
            raise BundleError(f"{directory / path} is missing", hint=_AGAIN)
        if sha256_file(directory / path) != expected:
            raise BundleError(
                f"{directory / path} is damaged: its sha256 differs from that in {CHECKSUMS}",
                hint=_AGAIN,
            )


def _refuse_unlisted(directory: Path, sums: Mapping[str, Any]) -> None:
    for path in sorted(directory.rglob("*")):
        listed = path.relative_to(directory).as_posix() in sums or path.name in UNLISTED
        if not listed and (path.is_symlink() or not path.is_dir()):
            raise BundleError(
                f"{path} is not part of the model: {CHECKSUMS} does not list it",
                hint=f"delete the file, or {_AGAIN}",
            )


def _verify_task(facts: BundleFacts, path: Path) -> None:
    try:
        fault = get_task(facts.task).find_fault(facts.names, facts.calibration)
    except ConfigError as error:
        raise BundleError(f"{path}: {error.message}", hint=_OTHER_VERSION) from None
    if fault:
        raise BundleError(f"{path}: {fault}", hint=_AGAIN)


def _verify_preprocess(facts: BundleFacts, path: Path) -> None:
    try:
        found = Preprocess.from_dict(facts.preprocess).hash
    except (BackboneError, KeyError, TypeError) as error:
        raise BundleError(f"{path}: preprocess is wrong: {error}", hint=_AGAIN) from None
    if found != facts.preprocess_hash:
        raise BundleError(
            f"{path}: preprocess_hash is {facts.preprocess_hash[:12]}, but this version of "
            f"Rootstock prepares images as {found[:12]}",
            hint=_OTHER_VERSION,
        )


def _read_golden(directory: Path, facts: BundleFacts, sums: Any) -> tuple[GoldenSample, ...]:
    path = directory / GOLDEN
    samples = _parse(GoldenFile, read_bundle_json(path), path).samples
    width = get_task(facts.task).width(facts.names)
    for sample in samples:
        if f"golden/{sample.file}" not in sums:
            raise BundleError(
                f"{directory / CHECKSUMS} has no checksum of golden/{sample.file}", hint=_AGAIN
            )
        recorded = [sample.logits, sample.sizes]
        if facts.int8 and facts.int8.kept:
            recorded.append(sample.int8 or [])
        for values in recorded:
            if len(values) != width:
                raise BundleError(
                    f"{path} has {len(values)} outputs for the {len(facts.names)} names of {FACTS}",
                    hint=_AGAIN,
                )
    return tuple(samples)
