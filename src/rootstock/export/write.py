"""Write an exported model to a new folder after comparing it with the original."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rootstock.errors import BundleError, ImageError
from rootstock.export.formats import FORMATS
from rootstock.export.proof import Proof, prove
from rootstock.model.predictor import Predictor
from rootstock.runtimes.int8 import CALIBRATION_IMAGES
from rootstock.system.files import write_json

MEASURED_IMAGES = 2 * CALIBRATION_IMAGES
"""Maximum number of images; an int8 model is calibrated on every second one."""
TWIN_FORMAT = "onnx-int8"
"""The format that a model may already have with it."""
PROOF = "proof.json"


@dataclass(frozen=True)
class Exported:
    """The main file of an exported model, its size, and its measured answers."""

    path: Path
    n_bytes: int
    proof: Proof


def export_model(
    predictor: Predictor, name: str, out: Path, *, contents: Sequence[bytes] = ()
) -> Exported:
    """Write the model in the format ``name`` to the new folder ``out``.

    ``contents`` are encoded images of the kind that the model is used for; every second one
    measures an int8 model and does not calibrate it. Without images the golden images are used,
    and an int8 model is the model's own twin, if it has one.
    Raises:
        BundleError: ``out`` is not empty, a tool is missing, an int8 model is requested
            without images, or the exported model gives other answers than the original.
    """
    form = FORMATS[name]
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BundleError(f"{out} is not empty", hint="name a new folder")
    images = _prepare(predictor, contents)
    has_twin = name == TWIN_FORMAT and not contents and predictor.bundle.has_twin
    if form.needs_images and len(images) < 2 and not has_twin:
        raise BundleError(
            f"{name} must be calibrated on real images, but there are {len(images)}",
            hint=f"pass about {MEASURED_IMAGES} training images: --images FOLDER",
        )
    if len(images) < 2:
        preprocess = predictor.bundle.preprocess
        images = [preprocess.normalise(pixels[None])[0] for _, pixels in predictor.golden_pixels]
    fresh = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.new")
    fresh.mkdir(parents=True)
    try:
        path, run = form.write(predictor.bundle, [] if has_twin else images[::2], fresh)
        held_out = np.stack(images[1::2] or images)
        proof = prove(predictor, run, held_out, exact=form.exact)
        facts = {"format": name, "model": predictor.bundle.digest}
        write_json(fresh / PROOF, facts | proof.to_dict())
        n_bytes = sum(file.stat().st_size for file in fresh.rglob("*") if file.is_file())
        if out.exists():
            out.rmdir()
        fresh.rename(out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return Exported(out / path.name, n_bytes, proof)


def _prepare(predictor: Predictor, contents: Sequence[bytes]) -> list[np.ndarray]:
    """Return at most `MEASURED_IMAGES` usable images float32[3,S,S], evenly drawn."""
    step = max(1, len(contents) // MEASURED_IMAGES)
    images = []
    for content in contents[::step][:MEASURED_IMAGES]:
        try:
            views = predictor.prepare(content)
        except ImageError:
            continue
        images.append(predictor.bundle.preprocess.normalise(views[:1])[0])
    return images
