"""Write a model directory after checking that ONNX gives PyTorch's answers. Needs torch."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file
from torch import nn

from rootstock.backbones.card import BackboneCard
from rootstock.data.limits import DecodeLimits
from rootstock.data.preprocess import Preprocess
from rootstock.data.views import Views
from rootstock.errors import ArtifactError, BundleError
from rootstock.model.bundle import (
    CARD,
    CHECKSUMS,
    EVALUATION,
    FACTS,
    FORMAT_VERSION,
    GOLDEN,
    KNOWN,
    MAX_GOLDEN,
    ONNX,
    REFERENCE,
    SEEN,
    TWIN,
    WEIGHTS,
    BundleFacts,
    FittedTo,
    ModelBundle,
    largest_difference,
    read_bundle,
    read_bundle_json,
)
from rootstock.model.describe_onnx import describe_onnx
from rootstock.model.known_images import KnownImages
from rootstock.model.novelty import Reference
from rootstock.model.onnx_head import replace_head
from rootstock.model.seen import SeenImages
from rootstock.model.twin import TwinMaker
from rootstock.system.files import sha256_file, write_atomic, write_json
from rootstock.tasks import get_task
from rootstock.tasks.task import Calibration
from rootstock.training.export import TorchOutputs, export_onnx, onnx_logits, torch_outputs
from rootstock.training.network import TransferNet

EXPORT_TOLERANCE = 1e-4
"""Largest allowed difference between ONNX and PyTorch, as `largest_difference` measures it."""


def write_bundle(
    directory: Path,
    *,
    network: TransferNet,
    card: BackboneCard,
    preprocess: Preprocess,
    task: str,
    names: Sequence[str],
    strategy: str,
    calibration: Calibration,
    metrics: Mapping[str, Any],
    lineage: Mapping[str, Any],
    golden: Sequence[tuple[str, bytes, str]],
    fitted_to: FittedTo = "train",
    views: Views = "one",
    reference: Reference | None = None,
    known: KnownImages | None = None,
    seen: SeenImages | None = None,
    unknown_share: float = 0.0,
    limits: DecodeLimits | None = None,
    make_twin: TwinMaker | None = None,
    exported: Path | None = None,
) -> ModelBundle:
    """Write a model directory, replacing an older one, after ONNX has matched PyTorch.

    ``task`` is the name of the task and ``names`` are those of the outputs. ``golden`` holds
    (file name, image bytes, target as text) of 1 to 8 validation images; more are ignored.
    ``fitted_to``: the splits from which the head has learned.
    ``views``: the views that a prediction averages. ``reference`` lets the model flag unknown
    images, at most ``unknown_share`` of the known ones; ``known`` names the images of the
    reference; ``seen`` lets it recognise its own images; ``limits`` are the limits on images.
    ``make_twin`` writes the int8 twin. ``exported`` is the ONNX file of a network with the same
    backbone, which is used again if only the head differs.
    Raises:
        BundleError: the directory contains something else, there is no golden image, the
          network cannot be exported, or ONNX and PyTorch differ by more than 1e-4.
    """
    _refuse_other_content(directory)
    if not golden:
        raise BundleError(
            "a model bundle needs at least one golden image, but there is none",
            hint="pass images of the validation split",
        )
    network = copy.deepcopy(network).cpu().eval()
    limits = limits or DecodeLimits()
    images = [preprocess.decode(content, limits).pixels for _, content, _ in golden[:MAX_GOLDEN]]
    batch = np.stack([preprocess.apply(pixels) for pixels in images])
    outputs = torch_outputs(network, batch)
    if outputs.logits.shape[1] != get_task(task).width(names):
        width = outputs.logits.shape[1]
        raise BundleError(f"the network has {width} outputs for {len(names)} names")
    # The path of the weights at training is private, and useless elsewhere.
    facts = {
        "format_version": FORMAT_VERSION,
        "task": task,
        "names": list(names),
        "strategy": strategy,
        "tap": network.tap,
        "fitted_to": fitted_to,
        "feature_width": outputs.features.shape[1],
        "hidden": network.hidden,
        "networks": network.n_networks,
        "views": views,
        "unknown_share": unknown_share if reference else 0.0,
        "preprocess": preprocess.to_dict(),
        "preprocess_hash": preprocess.hash,
        "calibration": dict(calibration),
        "metrics": dict(metrics),
        "lineage": dict(lineage),
        "card": card.model_dump(mode="json", exclude={"weights"}),
        "limits": limits.to_dict(),
    }
    with _whole_directory(directory) as folder:
        state = {name: value.contiguous() for name, value in network.state_dict().items()}
        with write_atomic(folder / WEIGHTS) as temporary:
            save_file(state, temporary)
        if known:
            with write_atomic(folder / KNOWN) as temporary:
                save_arrays(known.arrays(), temporary)
        if seen:
            with write_atomic(folder / SEEN) as temporary:
                save_arrays(seen.arrays(), temporary)
        if exported is None or not _put_head(network, exported, folder / ONNX):
            export_onnx(network, folder / ONNX, batch)
        for logits in onnx_logits(folder / ONNX, batch):
            _refuse_difference(largest_difference(logits, outputs.logits, outputs.sizes))
        rounded = None
        if make_twin:
            twin, features = make_twin(folder / ONNX, folder / TWIN)
            facts["int8"] = twin.model_dump(mode="json")
            rounded = onnx_logits(folder / TWIN, batch)[1] if twin.kept else None
            if reference and features is not None:
                reference = reference.with_int8(features)
        if reference:
            with write_atomic(folder / REFERENCE) as temporary:
                save_arrays(reference.arrays(), temporary)
        for name in (ONNX, TWIN):
            if (folder / name).is_file():
                describe_onnx(folder / name, BundleFacts.model_validate(facts))
        _write_golden(folder, golden[:MAX_GOLDEN], outputs, rounded)
        write_json(folder / FACTS, facts)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        sums = {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}
        write_json(folder / CHECKSUMS, sums)
        bundle = read_bundle(folder)
    return dataclasses.replace(bundle, directory=directory)


def copy_with_card(
    bundle: ModelBundle, target: Path, text: str, metrics: Mapping[str, Any]
) -> Path:
    """Copy a model directory, add ``text`` as card.md and the test metrics; return ``target``."""
    shutil.copytree(bundle.directory, target)
    (target / CARD).write_text(text, encoding="utf-8")
    write_json(target / EVALUATION, dict(metrics))
    sums = read_bundle_json(target / CHECKSUMS)
    sums |= {name: sha256_file(target / name) for name in (CARD, EVALUATION)}
    write_json(target / CHECKSUMS, dict(sorted(sums.items())))
    return target


def _refuse_other_content(directory: Path) -> None:
    if directory.exists() and not directory.is_dir():
        raise BundleError(f"{directory} is a file, not a directory", hint="choose another place")
    if directory.is_dir() and any(directory.iterdir()) and not (directory / FACTS).is_file():
        raise BundleError(
            f"{directory} contains files but no {FACTS}: it is not a model, and was not changed",
            hint="choose an empty or new directory",
        )


def _put_head(network: TransferNet, exported: Path, target: Path) -> bool:
    """Write the ONNX file ``exported`` with the head of the network; return whether it can be."""
    head = network.head
    if network.n_networks > 1 or not isinstance(head, nn.Linear):
        return False
    weights, bias = (part.detach().numpy() for part in (head.weight, head.bias))
    return replace_head(exported, target, weights, bias)


def _refuse_difference(difference: float) -> None:
    if not difference <= EXPORT_TOLERANCE:  # also true for nan
        raise BundleError(
            f"ONNX and PyTorch differ by {difference:.2g} on the golden images, "
            f"more than the limit of {EXPORT_TOLERANCE:.0e}: no model was written",
            hint="please report the backbone and the versions of torch and onnxruntime",
        )


@contextlib.contextmanager
def _whole_directory(directory: Path) -> Iterator[Path]:
    """Yield a hidden sibling that replaces ``directory`` unless an exception is raised."""
    mark = uuid.uuid4().hex[:8]
    fresh = directory.with_name(f".{directory.name}.{mark}.new")
    old = directory.with_name(f".{directory.name}.{mark}.old")
    try:
        fresh.mkdir(parents=True)
        yield fresh
        if directory.exists():
            directory.rename(old)
        fresh.rename(directory)
    except (OSError, ArtifactError) as error:
        cause = error.__cause__ or error
        raise BundleError(
            f"cannot write {directory}: {getattr(cause, 'strerror', None) or cause}",
            hint="free some disk space or check the folder's permissions, then run again",
        ) from error
    finally:
        for leftover in (fresh, old):
            shutil.rmtree(leftover, ignore_errors=True)


def _write_golden(
    folder: Path,
    golden: Sequence[tuple[str, bytes, str]],
    outputs: TorchOutputs,
    rounded: np.ndarray | None,
) -> None:
    """Write the images and their outputs; ``rounded`` [N,K] are those of the int8 twin."""
    (folder / "golden").mkdir()
    samples = []
    for number, (name, content, target) in enumerate(golden):
        suffix = PurePosixPath(name).suffix.lower()
        file = f"{number}{suffix if suffix[1:].isalnum() and suffix.isascii() else ''}"
        (folder / "golden" / file).write_bytes(content)
        sizes = outputs.sizes[number].tolist()
        samples.append(
            {
                "file": file,
                "target": target,
                "logits": _rounded(outputs.logits[number]),
                "sizes": [round(value, 2) for value in sizes],
            }
            | ({} if rounded is None else {"int8": _rounded(rounded[number])})
        )
    write_json(folder / GOLDEN, {"samples": samples})


def _rounded(values: np.ndarray) -> list[float]:
    return [round(value, 6) for value in values.tolist()]
