"""The command export: write the model for other runtimes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rootstock.cli.common import add_command, add_options, open_model, own_params, print_json
from rootstock.cli.predict import list_images

FORMATS = (
    "onnx",
    "onnx-int8",
    "openvino",
    "openvino-int8",
    "torchscript",
    "timm",
    "tensorrt",
    "tflite",
    "coreml",
)
DOCKER = "docker"
"""A folder from which a container image is built; not a format of the network."""


def add_commands(commands: Any) -> None:
    """Add export."""
    command = add_command(
        commands,
        "export",
        export,
        "write the model for another runtime, and measure the difference",
    )
    command.add_argument("--format", required=True, choices=[*FORMATS, DOCKER])
    command.add_argument("--model", default="", help="model directory or models:/ URI")
    command.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="a new folder")
    command.add_argument(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="images like the training images: int8 is calibrated on half of 80 of them, and "
        "measured on the other half",
    )
    add_options(command, "json")


def export(options: argparse.Namespace) -> None:
    """Write the model in another format and print how much its answers differ."""
    from rootstock.data.read import read_file
    from rootstock.export.write import MEASURED_IMAGES, export_model
    from rootstock.model.predictor import Predictor

    if options.format == DOCKER:
        _export_docker(options)
        return
    paths = list(list_images(options.images)) if options.images else []
    paths = paths[:: max(1, len(paths) // MEASURED_IMAGES)]
    with open_model(options.model) as directory:
        predictor = Predictor(directory, engine="onnx")
        contents = [read_file(path, predictor.limits).content for path in paths]
        done = export_model(predictor, options.format, options.out.absolute(), contents=contents)
    proof = done.proof
    if options.json:
        print_json({"file": str(done.path), "bytes": done.n_bytes, **proof.to_dict()})
        return
    print(f"file      {done.path} ({done.n_bytes / 1e6:.1f} MB in all)")
    print(
        f"proof     golden images differ by {proof.largest_difference:.2g}; "
        + (
            f"the same decision on {proof.agreement:.1%} of {proof.n_images} images"
            if proof.agreement is not None
            else f"measured on {proof.n_images} images"
        )
    )
    print(
        f"speed     {proof.milliseconds:.1f} ms per image here, {proof.milliseconds_before:.1f} ms "
        "as model.onnx"
    )


def _export_docker(options: argparse.Namespace) -> None:
    from rootstock.export.docker import write_docker
    from rootstock.model.predictor import Predictor

    with open_model(options.model) as directory:
        # Opening the model proves it, before an image is built from it.
        predictor = Predictor(directory, engine="onnx", name=_read_name(options.model))
        path = write_docker(predictor.bundle, predictor.info["name"], options.out.absolute())
    n_bytes = sum(file.stat().st_size for file in path.parent.rglob("*") if file.is_file())
    if options.json:
        print_json({"file": str(path), "bytes": n_bytes})
        return
    print(f"file      {path} ({n_bytes / 1e6:.1f} MB in all)")
    print(f"build     docker build -t rootstock-model {path.parent}")


def _read_name(model: str) -> str:
    """Return the registered name of a model; empty for a directory's own."""
    from rootstock.config.load import load_config
    from rootstock.registry.model_uri import parse_model_uri

    if not model:
        return load_config(own_params()).registry.name
    return parse_model_uri(model).name if model.startswith("models:/") else ""
