"""ModelBundle: the directory that is a model, and the only thing a service needs.

    bundle.json          classes in order, preprocessing, temperature, metrics, lineage, card
    model.safetensors    the weights, for PyTorch
    model.onnx           the same network: "images" -> "logits", "features"; any batch size
    reference.safetensors  what the training and validation images looked like to it
    golden/              a few validation images and golden.json, the logits they must give
    card.md              what people should know; in registered models
    checksums.json       sha256 of every file above

Reading needs neither torch nor a network, and no file holds code or a pickle. A directory
appears whole or not at all, and only after ONNX has given PyTorch's answers.

Reading and writing stay in one file of more than 300 lines because they share the format.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rootstock.data.decode import decode_image
from rootstock.data.preprocess import Preprocess
from rootstock.data.views import Views
from rootstock.errors import BackboneError, BundleError
from rootstock.model.novelty import Reference
from rootstock.system.files import explain_format, sha256_file, write_json

if TYPE_CHECKING:
    from rootstock.backbones.card import BackboneCard
    from rootstock.train.export import TorchOutputs
    from rootstock.train.network import TransferNet

FORMAT_VERSION = 1
MAX_GOLDEN = 8

EXPORT_TOLERANCE = 1e-4
"""How far ONNX may be from PyTorch when a model is written, as `largest_difference` tells."""

_FACTS, _WEIGHTS, _ONNX = "bundle.json", "model.safetensors", "model.onnx"
_REFERENCE = "reference.safetensors"
CARD = "card.md"
_GOLDEN, _CHECKSUMS = "golden/golden.json", "checksums.json"
_AGAIN = "download the model again, or train it again"
_TRAIN_AGAIN = "train the model again with this one: `dvc repro --force train`"
_OTHER_VERSION = "use the Rootstock that made the model, or train it again with this one"


class BundleFacts(BaseModel):
    """bundle.json: what has to be known to use the weights."""

    model_config = ConfigDict(frozen=True, strict=True)

    format_version: int
    classes: Annotated[list[str], Field(min_length=2)]
    strategy: str
    tap: str
    feature_width: Annotated[int, Field(ge=1)]
    hidden: Annotated[int, Field(ge=0)] = 0
    views: Views = "one"
    unknown_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """How many images like the validation images may be called unknown; 0: none is."""
    preprocess: dict[str, Any]
    preprocess_hash: str
    temperature: Annotated[float, Field(gt=0)]
    metrics: dict[str, Any]
    lineage: dict[str, Any]
    card: dict[str, Any]


class GoldenSample(BaseModel):
    """One image of golden/, its class, and the logits (before the temperature) it must give.

    ``sizes`` says how exactly, see `largest_difference`.
    """

    model_config = ConfigDict(frozen=True)

    file: Annotated[str, Field(pattern=r"^[0-9]+(\.[a-z0-9]+)?$")]
    label: str
    logits: list[float]
    sizes: list[float]


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
    def classes(self) -> list[str]:
        return self.facts.classes

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
    def reference(self) -> Reference | None:
        """What the model has seen; None in models made before it was kept.

        Raises:
            BundleError: it does not fit the model.
        """
        path = self.directory / _REFERENCE
        if not path.is_file():
            return None
        from safetensors.numpy import load_file

        try:
            found = Reference.from_arrays(load_file(path))
        except (KeyError, OSError, ValueError) as error:
            raise BundleError(f"{path} is damaged: {error}", hint=_AGAIN) from None
        if found.features.shape[1:] != (self.facts.feature_width,) or not len(found.distances):
            raise BundleError(f"{path} does not fit {_FACTS}", hint=_AGAIN)
        return found

    @property
    def weights_path(self) -> Path:
        return self.directory / _WEIGHTS

    @property
    def onnx_path(self) -> Path:
        return self.directory / _ONNX

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
            hint="give the folder that holds bundle.json, for example artifacts/model",
        )
    raw = _read_json(directory / _FACTS)
    # The version comes first: a bundle of a later format may differ in everything else.
    problem = explain_format(
        raw.get("format_version"), FORMAT_VERSION, path=directory / _FACTS, again=_TRAIN_AGAIN
    )
    if problem:
        raise BundleError(problem[0], hint=problem[1])
    sums = _read_json(directory / _CHECKSUMS)
    _verify_checksums(directory, sums)
    facts = _parse(BundleFacts, raw, directory / _FACTS)
    golden = _read_golden(directory, facts, sums)
    digest = sha256_file(directory / _CHECKSUMS)
    _verify_preprocess(facts, directory / _FACTS)
    return ModelBundle(directory, facts, golden, digest)


def write_bundle(
    directory: Path,
    *,
    network: TransferNet,
    card: BackboneCard,
    preprocess: Preprocess,
    classes: Sequence[str],
    strategy: str,
    temperature: float,
    metrics: Mapping[str, Any],
    lineage: Mapping[str, Any],
    golden: Sequence[tuple[str, bytes, str]],
    views: Views = "one",
    reference: Reference | None = None,
    unknown_share: float = 0.0,
) -> ModelBundle:
    """Write a model directory, replacing an older one, once ONNX has matched PyTorch.

    ``golden`` holds (file name, image bytes, label) of 1 to 8 validation images; more are
    left out. ``views``: what a prediction averages; ``reference`` lets the model say what it does
    not know, at most of ``unknown_share`` of the known. Raises:
        BundleError: the directory holds something else, there is no golden image, the
            network cannot be exported, or ONNX and PyTorch differ by more than 1e-4.
    """
    _refuse_other_content(directory)
    if not golden:
        raise BundleError(
            "a model bundle needs at least one golden image, got none",
            hint="pass images of the validation split",
        )
    # Torch is only needed to write a bundle; a service reads without it.
    from safetensors.numpy import save_file as save_arrays
    from safetensors.torch import save_file

    from rootstock.train.export import export_onnx, onnx_logits, torch_outputs

    network = copy.deepcopy(network).cpu().eval()
    side = preprocess.decoded_side
    images = [
        decode_image(content, short_side=side).pixels for _, content, _ in golden[:MAX_GOLDEN]
    ]
    batch = np.stack([preprocess.apply(pixels) for pixels in images])
    outputs = torch_outputs(network, batch)
    if outputs.logits.shape[1] != len(classes):
        raise BundleError(
            f"the network has {outputs.logits.shape[1]} outputs for {len(classes)} classes"
        )
    # Where the weights lay at training is of no use elsewhere, and nobody's business.
    facts = {
        "format_version": FORMAT_VERSION,
        "classes": list(classes),
        "strategy": strategy,
        "tap": network.tap,
        "feature_width": outputs.features.shape[1],
        "hidden": network.hidden,
        "views": views,
        "unknown_share": unknown_share if reference else 0.0,
        "preprocess": preprocess.to_dict(),
        "preprocess_hash": preprocess.hash,
        "temperature": float(temperature),
        "metrics": dict(metrics),
        "lineage": dict(lineage),
        "card": card.model_dump(mode="json", exclude={"weights"}),
    }
    with _whole_directory(directory) as folder:
        state = {name: value.contiguous() for name, value in network.state_dict().items()}
        save_file(state, folder / _WEIGHTS)
        if reference:
            save_arrays(reference.arrays(), folder / _REFERENCE)
        export_onnx(network, folder / _ONNX, input_size=preprocess.input_size)
        for found in onnx_logits(folder / _ONNX, batch):
            _refuse_difference(largest_difference(found, outputs.logits, outputs.sizes))
        _write_golden(folder, golden[:MAX_GOLDEN], outputs)
        write_json(folder / _FACTS, facts)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        sums = {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}
        write_json(folder / _CHECKSUMS, sums)
        bundle = read_bundle(folder)
    return dataclasses.replace(bundle, directory=directory)


def copy_with_card(bundle: ModelBundle, target: Path, text: str) -> Path:
    """A copy of a model directory that holds ``text`` as card.md; returns ``target``."""
    shutil.copytree(bundle.directory, target)
    (target / CARD).write_text(text, encoding="utf-8")
    sums = _read_json(target / _CHECKSUMS)
    write_json(
        target / _CHECKSUMS, dict(sorted({**sums, CARD: sha256_file(target / CARD)}.items()))
    )
    return target


def largest_difference(found: np.ndarray, expected: np.ndarray, sizes: np.ndarray) -> float:
    """The largest difference of two logits, in proportion to ``sizes`` where those exceed 10.

    A logit is a sum, and float32 rounds in proportion to the terms, not to what they leave:
    a head on features of little variance has terms of hundreds, a class never seen of 10,000.
    """
    return float((np.abs(found - expected) / np.maximum(1.0, sizes / 10)).max())


def _read_json(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise BundleError(f"{path} is missing", hint=_AGAIN) from None
    except ValueError as error:
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
    for name in (_FACTS, _WEIGHTS, _ONNX, _GOLDEN):
        if name not in sums:
            raise BundleError(f"{directory / _CHECKSUMS} has no checksum of {name}", hint=_AGAIN)
    for name, expected in sums.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise BundleError(f"{directory / _CHECKSUMS} names {name!r}, outside the model")
        if not (directory / path).is_file():
            raise BundleError(f"{directory / path} is missing", hint=_AGAIN)
        if sha256_file(directory / path) != expected:
            raise BundleError(
                f"{directory / path} is damaged: its sha256 is not that of {_CHECKSUMS}",
                hint=_AGAIN,
            )


def _verify_preprocess(facts: BundleFacts, path: Path) -> None:
    try:
        found = Preprocess.from_dict(facts.preprocess).hash
    except (BackboneError, KeyError, TypeError) as error:
        raise BundleError(f"{path}: preprocess is wrong: {error}", hint=_AGAIN) from None
    if found != facts.preprocess_hash:
        raise BundleError(
            f"{path}: preprocess_hash is {facts.preprocess_hash[:12]}, "
            f"this Rootstock prepares images as {found[:12]}",
            hint=_OTHER_VERSION,
        )


def _read_golden(directory: Path, facts: BundleFacts, sums: Any) -> tuple[GoldenSample, ...]:
    path = directory / _GOLDEN
    samples = _parse(GoldenFile, _read_json(path), path).samples
    for sample in samples:
        if f"golden/{sample.file}" not in sums:
            raise BundleError(
                f"{directory / _CHECKSUMS} has no checksum of golden/{sample.file}", hint=_AGAIN
            )
        for values in (sample.logits, sample.sizes):
            if len(values) != len(facts.classes):
                raise BundleError(
                    f"{path} has {len(values)} logits for the {len(facts.classes)} classes "
                    f"of {_FACTS}",
                    hint=_AGAIN,
                )
    return tuple(samples)


def _refuse_other_content(directory: Path) -> None:
    if directory.exists() and not directory.is_dir():
        raise BundleError(f"{directory} is a file, not a directory", hint="choose another place")
    if directory.is_dir() and any(directory.iterdir()) and not (directory / _FACTS).is_file():
        raise BundleError(
            f"{directory} holds files but no {_FACTS}: it is not a model, and is left alone",
            hint="choose an empty or new directory",
        )


def _refuse_difference(difference: float) -> None:
    if not difference <= EXPORT_TOLERANCE:  # also true for nan
        raise BundleError(
            f"ONNX and PyTorch differ by {difference:.2g} on the golden images, "
            f"more than {EXPORT_TOLERANCE:.0e}: no model was written",
            hint="please report the backbone and the versions of torch and onnxruntime",
        )


@contextlib.contextmanager
def _whole_directory(directory: Path) -> Iterator[Path]:
    """Yield a hidden sibling that takes the place of ``directory`` if nothing is raised."""
    mark = uuid.uuid4().hex[:8]
    fresh = directory.with_name(f".{directory.name}.{mark}.new")
    old = directory.with_name(f".{directory.name}.{mark}.old")
    try:
        fresh.mkdir(parents=True)
        yield fresh
        if directory.exists():
            directory.rename(old)
        fresh.rename(directory)
    except OSError as error:
        raise BundleError(
            f"{directory} cannot be written: {error.strerror or error}",
            hint="free some disk space or check the folder's permissions, then run again",
        ) from error
    finally:
        for leftover in (fresh, old):
            shutil.rmtree(leftover, ignore_errors=True)


def _write_golden(
    folder: Path, golden: Sequence[tuple[str, bytes, str]], outputs: TorchOutputs
) -> None:
    (folder / "golden").mkdir()
    samples = []
    for number, (name, content, label) in enumerate(golden):
        suffix = PurePosixPath(name).suffix.lower()
        file = f"{number}{suffix if suffix[1:].isalnum() and suffix.isascii() else ''}"
        (folder / "golden" / file).write_bytes(content)
        logits, sizes = outputs.logits[number].tolist(), outputs.sizes[number].tolist()
        samples.append(
            {
                "file": file,
                "label": label,
                "logits": [round(value, 6) for value in logits],
                "sizes": [round(value, 2) for value in sizes],
            }
        )
    write_json(folder / _GOLDEN, {"samples": samples})
