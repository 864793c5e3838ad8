"""Engines: ways to run a bundle's network, each with the same answers.

ONNX Runtime and OpenVINO need no torch; PyTorch is needed for a GPU. Which is the fastest depends
on the network and the machine, so it is measured when a model is loaded. This also applies
to the int8 twin, which may be slower on a processor without instructions for it.
"""

from __future__ import annotations

import importlib.util
import logging
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, cast

import numpy as np

from rootstock.errors import BundleError
from rootstock.model.bundle import ModelBundle
from rootstock.runtimes.choose import (
    CLEAR_LEAD,
    LATENCY_ROUNDS,
    MAX_BATCH_TIME_SHARE,
    time_in_turns,
)
from rootstock.runtimes.engines import EXTRAS, PACKAGES, Engine, Precision, installed_engines
from rootstock.runtimes.onnx import onnx_session
from rootstock.runtimes.openvino import make_caller, openvino_model
from rootstock.tasks import get_task

if TYPE_CHECKING:
    from rootstock.training.network import TransferNet

EngineChoice = Engine | Literal["auto", "fastest"]
PrecisionChoice = Precision | Literal["auto"]
_log = logging.getLogger(__name__)
_BATCH_SIZES = (1, 8, 64)
_OUTPUTS = ["logits", "features"]


class Outputs(NamedTuple):
    """``logits`` float32[N,K] before the temperature, ``features`` float32[N,D] of the head.

    ``maps`` float32[N,c,h,w] of each tap, whose means are the features; empty if they were not
    requested, or the network has none.
    """

    logits: np.ndarray
    features: np.ndarray
    maps: tuple[np.ndarray, ...] = ()


class Forward(Protocol):
    """Runs the network; several threads may call it at once."""

    def __call__(self, images: np.ndarray, *, with_maps: bool = False) -> Outputs:
        """Return the outputs of prepared images float32[N,3,S,S]."""


class Way(NamedTuple):
    """An engine, and the network that it runs: the float32 one, or the int8 twin."""

    engine: Engine
    precision: Precision = "float32"

    @property
    def name(self) -> str:
        """Engine and precision in one word, for people."""
        return self.engine if self.precision == "float32" else f"{self.engine}-{self.precision}"


def list_ways(bundle: ModelBundle, engine: EngineChoice, precision: PrecisionChoice) -> list[Way]:
    """Return the possible ways to run a model with these choices, float32 first.

    Eager PyTorch is four to six times slower on a processor, so it is used only if there is no
    other engine. The int8 twin was measured with ONNX Runtime, and runs in no other engine. A model
    whose head was trained on int8 features always runs in int8.
    Raises:
        BundleError: int8 is requested, but there is no twin or no engine for it.
    """
    if bundle.is_int8:
        precision = "int8"
    installed = installed_engines()
    several = [name for name in installed if name != "torch"] or installed
    engines = {"auto": installed[:1], "fastest": several}.get(engine) or [cast(Engine, engine)]
    ways = [Way(name) for name in engines if precision != "int8"]
    if precision != "float32" and bundle.has_twin and "onnx" in engines:
        ways.append(Way("onnx", "int8"))
    if not ways:
        why = "" if bundle.facts.int8 is None else f": {bundle.facts.int8.reason}"
        raise BundleError(
            f"the engine {engine!r} does not run int8"
            if bundle.has_twin
            else f"the model has no int8 twin{why}",
            hint="choose the engine onnx"
            if bundle.has_twin
            else "use the precision float32 or auto, or train with `export.int8: auto`",
        )
    return ways


def open_engine(bundle: ModelBundle, way: Way, *, threads: int | None = None) -> Forward:
    """Load the network; ``threads`` are used per forward pass, None: all cores.

    Raises:
        BundleError: the engine cannot load the file, or its outputs do not fit the names.
    """
    engine = way.engine
    if not importlib.util.find_spec(PACKAGES[engine]):
        raise BundleError(
            f"the engine {engine!r} needs {PACKAGES[engine]}, which is not installed",
            hint=f"pip install 'rootstock-vision[{EXTRAS[engine]}]', or choose another engine",
        )
    if way.precision == "int8":
        return _onnx(bundle, bundle.twin_path, threads)
    if engine == "onnx":
        return _onnx(bundle, bundle.onnx_path, threads)
    return {"openvino": _openvino, "torch": _torch}[engine](bundle, threads)


def fastest_way(
    bundle: ModelBundle,
    ways: Sequence[Way],
    prove: Callable[[Forward, Precision], float],
    *,
    may_use_gpu: bool = True,
    threads: int | None = None,
) -> tuple[Way, Forward, dict[str, float]]:
    """Return the way that answers one image fastest, and the milliseconds of each by name.

    A GPU that may be used wins without measurement. ``prove`` raises BundleError for wrong
    answers; the way is then skipped. The int8 twin is used only if it is clearly faster. The
    milliseconds are empty if only one way is possible.
    Raises:
        BundleError: no way gives correct answers.
    """
    if may_use_gpu and has_gpu():
        way = Way("torch")
        forward = open_engine(bundle, way, threads=threads)
        try:
            prove(forward, way.precision)
        except BundleError as error:
            _log.warning("the GPU is not used: %s", error)
        else:
            return way, forward, {}
    proved: dict[Way, Forward] = {}
    for way in ways:
        try:
            forward = open_engine(bundle, way, threads=threads)
            prove(forward, way.precision)
        except BundleError as error:
            if way == ways[-1] and not proved:
                raise
            _log.warning("%s is not used: %s", way.name, error)
        else:
            proved[way] = forward
    if len(proved) == 1:
        return *proved.popitem(), {}
    size = bundle.preprocess.input_size
    image = np.zeros((1, 3, size, size), np.float32)
    seconds = time_in_turns(
        {way: partial(forward, image) for way, forward in proved.items()},
        rounds=LATENCY_ROUNDS,
        summary=median,
    )
    lead = {way: CLEAR_LEAD if way.precision == "int8" else 1.0 for way in proved}
    best = min(seconds, key=lambda way: seconds[way] * lead[way])
    milliseconds = {way.name: round(1000 * one, 3) for way, one in seconds.items()}
    return best, proved[best], milliseconds


def best_batch(forward: Forward, size: int, *, views: int = 1, max_images: int = 64) -> int:
    """Return how many images the engine should take at once: the smallest number that is fast.

    A processor gains little from batches of a small network (its caches overflow), a GPU a lot. So
    larger batches are tried only as long as they gain, up to ``max_images``, because the memory
    that a trial uses is never freed. Each image has ``views`` of ``size`` pixels.
    """
    best = _BATCH_SIZES[0]
    for larger in (batch for batch in _BATCH_SIZES[1:] if batch <= max_images):
        few, many = (
            partial(forward, np.zeros((n * views, 3, size, size), np.float32))
            for n in (best, larger)
        )
        # Measure the small batch twice, because it first runs after a large one.
        seconds = time_in_turns({"few": few, "few again": few, "many": many})
        per_image = min(seconds["few"], seconds["few again"]) / best
        if seconds["many"] / larger > MAX_BATCH_TIME_SHARE * per_image:
            break
        best = larger
    return best


def has_gpu() -> bool:
    """Return whether PyTorch is installed and finds a GPU."""
    # Importing torch costs seconds and hundreds of megabytes: do it only if there is a driver.
    driver = shutil.which("nvidia-smi") or Path("/proc/driver/nvidia").exists()
    if not driver or not importlib.util.find_spec("torch"):
        return False
    import torch

    return torch.cuda.is_available()


def _onnx(bundle: ModelBundle, path: Path, threads: int | None) -> Forward:
    session = onnx_session(path, threads=threads)
    outputs = {output.name: output.shape for output in session.get_outputs()}
    _check_width(bundle, (outputs.get("logits") or [None])[-1])
    maps = _name_maps(outputs)

    def forward(images: np.ndarray, *, with_maps: bool = False) -> Outputs:
        names = [*_OUTPUTS, *maps] if with_maps else _OUTPUTS
        logits, features, *found = session.run(names, {"images": images})
        return Outputs(logits, features, tuple(found))

    return forward


def _openvino(bundle: ModelBundle, threads: int | None) -> Forward:
    model = openvino_model(bundle.onnx_path, threads=threads)
    _check_width(bundle, model.output("logits").partial_shape[1].get_length())
    maps = _name_maps(name for output in model.outputs for name in output.names)
    plain, mapped = make_caller(model, _OUTPUTS), make_caller(model, [*_OUTPUTS, *maps])

    def forward(images: np.ndarray, *, with_maps: bool = False) -> Outputs:
        logits, features, *found = (mapped if with_maps else plain)(images)
        return Outputs(logits, features, tuple(found))

    return forward


def load_network(bundle: ModelBundle) -> TransferNet:
    """Return the network of a model in PyTorch, on the CPU and in eval mode.

    Raises:
        BundleError: the weights do not fit bundle.json.
    """
    from safetensors.torch import load_file

    from rootstock.training.ensemble import EnsembleNet
    from rootstock.training.network import TransferNet

    facts = bundle.facts
    task = get_task(facts.task)
    network = TransferNet.from_card(
        facts.card,
        tap=facts.tap,
        n_outputs=bundle.width,
        hidden=facts.hidden,
        grid=task.output_grid,
    )
    if facts.networks > 1:
        network = EnsembleNet.of_equals(network, facts.networks, task)
    try:
        network.load_state_dict(load_file(bundle.weights_path))
    except RuntimeError as error:
        raise BundleError(
            f"{bundle.weights_path} does not fit bundle.json: {str(error).splitlines()[0]}",
            hint="download or train the model again",
        ) from None
    return network


def _torch(bundle: ModelBundle, threads: int | None) -> Forward:
    import torch

    from rootstock.training.export import are_means

    network = load_network(bundle)
    if threads is not None:
        torch.set_num_threads(threads)  # for the whole process: torch has no other setting
    device, layout = torch.device("cpu"), torch.contiguous_format
    if torch.cuda.is_available():
        device, layout = torch.device("cuda"), torch.channels_last
        # Also for the whole process. Reduced precision, such as bfloat16, would change
        # probabilities by more than two machines may differ.
        torch.backends.cudnn.allow_tf32 = False
    network = network.to(device, memory_format=layout)  # type: ignore[call-overload]

    def forward(images: np.ndarray, *, with_maps: bool = False) -> Outputs:
        with torch.inference_mode():
            prepared = torch.from_numpy(images).to(device, memory_format=layout)
            logits, features, maps = network.read(prepared)
            if not (with_maps and network.adds_up_maps and are_means(features, maps)):
                maps = []
        found = tuple(part.cpu().numpy() for part in maps)
        return Outputs(logits.cpu().numpy(), features.cpu().numpy(), found)

    return forward


def _name_maps(outputs: Iterable[str]) -> list[str]:
    """Return the names of the maps among those of the outputs, in order."""
    names = (name for name in outputs if re.fullmatch(r"map[0-9]+", name))
    return sorted(names, key=lambda name: int(name[3:]))


def _check_width(bundle: ModelBundle, width: int | None) -> None:
    if width != bundle.width:
        raise BundleError(
            f"{bundle.onnx_path} gives {width} outputs for the {len(bundle.names)} names "
            "of bundle.json",
            hint="download or train the model again",
        )
