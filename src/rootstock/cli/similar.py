"""Commands that use only features: index-images, similar and enroll."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from rootstock.cli.common import add_command, add_options, open_model, print_json
from rootstock.cli.predict import list_images, positive, prepare_files
from rootstock.system.escape import escape_terminal

BATCH_IMAGES = 16


def add_commands(commands: Any) -> None:
    """Add index-images, similar and enroll."""
    command = add_command(
        commands, "index-images", index_images, "make the images of a folder searchable"
    )
    command.add_argument("folder", type=Path)
    command.add_argument("--model", default="", help="model directory or models:/ URI")
    command.add_argument("--out", type=Path, required=True, help="folder for the index")

    command = add_command(commands, "similar", similar, "find the most similar images")
    command.add_argument("image", type=Path)
    command.add_argument(
        "index",
        type=Path,
        nargs="?",
        help="folder that index-images wrote; default: the training images stored in the model",
    )
    command.add_argument("--model", default="", help="model directory or models:/ URI")
    command.add_argument("-n", type=positive, default=5, metavar="N", help="images (default 5)")
    add_options(command, "json")

    command = add_command(
        commands, "enroll", enroll, "add a class to a model from a few images, without training"
    )
    command.add_argument("name", metavar="CLASS")
    command.add_argument(
        "images", type=Path, nargs="+", metavar="IMAGE", help="files, or a folder of images"
    )
    command.add_argument("--model", default="", help="model directory or models:/ URI")
    command.add_argument("--out", type=Path, required=True, help="folder for the new model")
    add_options(command, "json")


def index_images(options: argparse.Namespace) -> None:
    """Write the features of all images of a folder; report images that cannot be used."""
    import numpy as np

    from rootstock.explain.similar import ImageIndex
    from rootstock.model.predictor import Predictor
    from rootstock.system.progress import Progress

    with open_model(options.model) as directory:
        predictor = Predictor(directory)
    paths = list(list_images(options.folder))
    kept, features = [], [np.zeros((0, predictor.bundle.facts.feature_width), np.float32)]
    with Progress("index", len(paths), "image") as progress:
        for start in range(0, len(paths), BATCH_IMAGES):
            batch = paths[start : start + BATCH_IMAGES]
            usable = list(prepare_files(predictor, batch))
            kept += [os.path.relpath(path, options.folder) for path, *_ in usable]
            features.append(predictor.infer([image.views for *_, image in usable]).features)
            progress.update(len(batch))
    joined = np.concatenate(features)
    index = ImageIndex.make(joined, kept, [""] * len(kept), predictor.bundle.digest)
    index.write(options.out)
    print(f"{len(kept)} of {len(paths)} images: {options.out}")


def similar(options: argparse.Namespace) -> None:
    """Print the nearest images with their distances."""
    from rootstock.explain.similar import ImageIndex
    from rootstock.model.predictor import Predictor

    with open_model(options.model) as directory:
        predictor = Predictor(directory)
        index = (
            ImageIndex.read(options.index, predictor)
            if options.index
            else ImageIndex.of_reference(predictor)
        )
    prepared = [image.views for *_, image in prepare_files(predictor, [options.image])]
    if not prepared:
        sys.exit(1)
    (matches,) = index.search(predictor.infer(prepared).features, options.n)
    found = [
        {
            "path": index.paths[match.row],
            "target": index.targets[match.row],
            "distance": round(match.distance, 4),
        }
        for match in matches
    ]
    if options.json:
        print_json({"similar": found})
        return
    for one in found:
        print(escape_terminal(f"{one['distance']:.3f}  {one['path']}  {one['target']}".rstrip()))


def enroll(options: argparse.Namespace) -> None:
    """Write a model with one more class; print the effect on the other classes."""
    from hashlib import sha256

    from rootstock.explain.enroll import NewImage, enroll_class
    from rootstock.model.predictor import Predictor

    with open_model(options.model) as directory:
        predictor = Predictor(directory)
        images = []
        paths = [path for given in options.images for path in list_images(given)]
        for path, content, image in prepare_files(predictor, paths):
            (features,) = predictor.infer([image.views]).features
            images.append(NewImage(path.name, content, sha256(content).hexdigest(), features))
        enrolled = enroll_class(predictor, options.name, images, options.out)
    if options.json:
        facts = {
            "class": enrolled.name,
            "images": enrolled.n_new,
            "recall": enrolled.recall,
            "accuracy_before": enrolled.before,
            "accuracy_after": enrolled.after,
            "model": str(options.out),
        }
        print_json(facts)
        return
    print(escape_terminal(enrolled.summary()))
    print(f"model: {options.out}")
