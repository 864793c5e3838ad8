"""The network of a model in the formats of other runtimes.

Each writer gets a separate folder, and returns the main file in it with a function that runs it. A
format that needs a missing tool names it.
"""

from __future__ import annotations

import importlib.util
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from rootstock.backbones.load import LAST
from rootstock.errors import BundleError
from rootstock.export.proof import Logits
from rootstock.model.bundle import ModelBundle
from rootstock.model.describe_onnx import describe_onnx
from rootstock.model.engine import load_network
from rootstock.model.head_layers import HeadLayers
from rootstock.runtimes.int8 import write_int8
from rootstock.runtimes.onnx import onnx_session
from rootstock.runtimes.openvino import import_openvino, make_caller, openvino_model
from rootstock.system.files import write_json

LOGITS = ["logits"]


class Written(NamedTuple):
    """The main file of an exported model, with a function that runs it."""

    path: Path
    run: Logits


@dataclass(frozen=True)
class Format:
    """A format: how to write it from a model and prepared images float32[N,3,S,S].

    ``exact``: it must give the recorded outputs; otherwise its difference is measured.
    ``needs_images``: it is calibrated on real images.
    """

    write: Callable[[ModelBundle, Sequence[np.ndarray], Path], Written]
    exact: bool = True
    needs_images: bool = False


def _onnx(bundle: ModelBundle, _: Sequence[np.ndarray], folder: Path) -> Written:
    path = folder / "model.onnx"
    shutil.copyfile(bundle.onnx_path, path)
    describe_onnx(path, bundle.facts)
    return Written(path, _run_onnx(path))


def _onnx_int8(bundle: ModelBundle, images: Sequence[np.ndarray], folder: Path) -> Written:
    path = folder / "model.int8.onnx"
    if images:
        write_int8(bundle.onnx_path, path, images)
        describe_onnx(path, bundle.facts)
    else:
        shutil.copyfile(bundle.twin_path, path)
    return Written(path, _run_onnx(path))


def _openvino(bundle: ModelBundle, _: Sequence[np.ndarray], folder: Path) -> Written:
    openvino = _import_openvino()
    return _save_openvino(openvino.convert_model(str(bundle.onnx_path)), folder / "model.xml")


def _openvino_int8(bundle: ModelBundle, images: Sequence[np.ndarray], folder: Path) -> Written:
    openvino = _import_openvino()
    _require("nncf", "pip install nncf")
    import nncf

    model = openvino.convert_model(str(bundle.onnx_path))
    data = nncf.Dataset([image[None] for image in images])
    quantised = nncf.quantize(
        model,
        data,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(images),
        fast_bias_correction=True,
    )
    return _save_openvino(quantised, folder / "model.int8.xml")


def _save_openvino(model: Any, path: Path) -> Written:
    _import_openvino().save_model(model, str(path), compress_to_fp16=False)
    call = make_caller(openvino_model(path), LOGITS)
    return Written(path, lambda images: call(images)[0])


def _torchscript(bundle: ModelBundle, images: Sequence[np.ndarray], folder: Path) -> Written:
    import torch

    network, path = load_network(bundle).eval(), folder / "model.torchscript.pt"
    with torch.inference_mode(), warnings.catch_warnings(action="ignore"):
        traced = torch.jit.trace(network, torch.from_numpy(np.stack(images[:2])))
        traced.save(str(path))
        loaded = torch.jit.load(str(path))

    def run(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            answer: np.ndarray = loaded(torch.from_numpy(batch)).numpy()
        return answer

    return Written(path, run)


def _timm(bundle: ModelBundle, _: Sequence[np.ndarray], folder: Path) -> Written:
    """Write model.safetensors and config.json, which `timm.create_model("local-dir:...")` reads."""
    import timm
    import torch
    from safetensors.torch import save_file

    facts = bundle.facts
    if facts.networks > 1:
        raise BundleError(
            f"timm's files hold one network; this model averages {facts.networks}",
            hint="export it as onnx or torchscript",
        )
    module: Any = load_network(bundle).eval().extractor.module
    name = (getattr(module, "pretrained_cfg", None) or {}).get("classifier")
    if facts.tap != LAST or facts.hidden or not isinstance(name, str):
        raise BundleError(
            f"timm's networks have one linear head on the last features; this model reads "
            f"`{facts.tap}`{' by a head with a hidden layer' if facts.hidden else ''}",
            hint="export it as onnx or torchscript, or train with plan.strategy=linear_probe",
        )
    state = {key: value.contiguous() for key, value in module.state_dict().items()}
    head = HeadLayers.read(bundle.weights_path)
    state[f"{name}.weight"] = torch.from_numpy(head.weights[0])
    state[f"{name}.bias"] = torch.from_numpy(head.biases[0])
    path, preprocess = folder / "model.safetensors", bundle.preprocess
    save_file(state, path, metadata={"format": "pt"})
    size = preprocess.input_size
    write_json(
        folder / "config.json",
        {
            "architecture": facts.card["architecture"],
            "num_classes": bundle.width,
            "model_args": facts.card.get("architecture_kwargs", {}),
            "label_names": bundle.names,
            "pretrained_cfg": {
                "input_size": [3, size, size],
                "interpolation": preprocess.interpolation,
                "crop_pct": preprocess.crop_pct,
                "mean": list(preprocess.mean),
                "std": list(preprocess.std),
                "num_classes": bundle.width,
                "classifier": name,
                "license": facts.card.get("license", ""),
            },
        },
    )
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()

    def run(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            answer: np.ndarray = loaded(torch.from_numpy(batch)).numpy()
        return answer

    return Written(path, run)


def _foreign(tool: str, command: str) -> Callable[..., Written]:
    """Return the writer of a format that needs a tool outside of this package."""

    def refuse(*_: object) -> Written:
        raise BundleError(
            f"Rootstock cannot write this format; {tool} can",
            hint=f"export --format onnx first, then: {command}",
        )

    return refuse


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "onnx": Format(_onnx),
        "onnx-int8": Format(_onnx_int8, exact=False, needs_images=True),
        "openvino": Format(_openvino),
        "openvino-int8": Format(_openvino_int8, exact=False, needs_images=True),
        "torchscript": Format(_torchscript),
        "timm": Format(_timm),
        "tensorrt": Format(
            _foreign("NVIDIA's trtexec", "trtexec --onnx=model.onnx --saveEngine=model.plan")
        ),
        "tflite": Format(_foreign("onnx2tf", "onnx2tf -i model.onnx -o model_tflite")),
        "coreml": Format(
            _foreign("coremltools", "export --format torchscript, and coremltools.convert")
        ),
    }
)


def _run_onnx(path: Path) -> Logits:
    session = onnx_session(path)

    def run(images: np.ndarray) -> np.ndarray:
        answer: np.ndarray = session.run(LOGITS, {"images": images})[0]
        return answer

    return run


def _require(package: str, command: str) -> None:
    if not importlib.util.find_spec(package):
        raise BundleError(f"this format needs {package}, which is not installed", hint=command)


def _import_openvino() -> Any:
    _require("openvino", "pip install 'rootstock-vision[openvino]'")
    return import_openvino()
