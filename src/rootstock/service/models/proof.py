"""Prove a model in a separate process, which may hang, crash, or run out of memory safely.

    python -m rootstock.service.models.proof DIRECTORY ENGINE PRECISION MEMORY_BYTES TASK

The child does everything that the service will do with the model: it opens the model, answers its
golden images, and measures engines and batches. TASK is a JSON list: the name of the model's task,
and its registration, which the service may have made. The child prints one JSON object.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rootstock.errors import BundleError, RootstockError
from rootstock.model.bundle import ModelBundle
from rootstock.model.engine import has_gpu
from rootstock.model.predictor import Predictor
from rootstock.runtimes.engines import Engine, Precision
from rootstock.system.bounds import resident_bytes
from rootstock.tasks import Place, find_registration, register_task

_log = logging.getLogger("rootstock.service")

PR_SET_PDEATHSIG = 1
"""prctl(2) option, Linux."""
MODEL_COPIES = 8
"""Copies of the weights that engines may hold while opening, in addition to the limit."""
PASSED_VARIABLES = (
    "PATH", "PYTHONPATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "LD_PRELOAD",
    "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "ORT_DISABLE_TELEMETRY",
)  # fmt: skip
"""The environment that the child sees: the service's environment holds passwords."""


_opening = threading.Lock()


@dataclass(frozen=True)
class ProofLimits:
    """Limits for proving a model; ``memory`` in bytes, not counting its own weights."""

    seconds: float = 120.0
    memory: int = 4 * 2**30


@dataclass(frozen=True)
class Proof:
    """What was measured: how to run the model, its batch, and milliseconds per image by way."""

    engine: Engine
    precision: Precision
    batch: int
    milliseconds: dict[str, float]


@dataclass(frozen=True)
class Refusal:
    """A model that was not swapped in, and why; ``at`` in Unix seconds."""

    version: str
    reason: str
    at: float


def open_proved(
    bundle: ModelBundle, engine: Any, precision: Any, bounds: ProofLimits | None, **options: Any
) -> Predictor:
    """Return the predictor of a model that was proved within ``bounds``; None: without a child.

    ``options`` are those of `Predictor`. The batch size is measured here, so no request has to wait
    for it.
    Raises:
        BundleError: The model is rejected, for any reason.
    """
    proof = prove(bundle, engine, precision, bounds) if bounds else None
    if proof:
        engine, precision = proof.engine, proof.precision
    try:
        # One model at a time, because its memory is measured.
        with _opening:
            before = resident_bytes()
            # One thread per forward pass: the service runs several at once.
            predictor = Predictor(bundle, engine=engine, precision=precision, threads=1, **options)
            if proof:
                predictor.best_batch, predictor.milliseconds = proof.batch, proof.milliseconds
            else:
                _ = predictor.best_batch
            predictor.resident_bytes = max(0, resident_bytes() - before)
        return predictor
    except RootstockError:
        raise
    except Exception as error:
        raise BundleError(f"the model cannot be opened: {type(error).__name__}: {error}") from error


def prove(bundle: ModelBundle, engine: str, precision: str, limits: ProofLimits) -> Proof:
    """Open a model in a child process and let it answer its golden images.

    Raises:
        BundleError: The model is rejected, or the child hung, crashed, or took too much memory.
    """
    memory = limits.memory + MODEL_COPIES * bundle.onnx_path.stat().st_size
    task = json.dumps([bundle.facts.task, *find_registration(bundle.facts.task)])
    how = (engine, precision, str(memory), task)
    command = [sys.executable, "-m", __name__, str(bundle.directory), *how]
    name = bundle.directory.name
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=limits.seconds,
            env=passed_environment() | {"OMP_NUM_THREADS": "1"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BundleError(
            f"the model {name} did not answer its golden images within {limits.seconds:g} seconds",
            hint="train it again or, for a large model, raise ROOTSTOCK_PROOF_SECONDS",
        ) from None
    except OSError as error:
        raise BundleError(f"the model {name} cannot be proved: {error}") from error
    try:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise BundleError(
            f"the model {name} ended the process that opened it ({_describe(done.returncode)})",
            hint="train it again or, for a large model, raise ROOTSTOCK_PROOF_MEMORY_BYTES",
        ) from None
    if "error" in found:
        raise BundleError(found["error"], hint=found["hint"])
    return Proof(**found)


def _describe(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _limit_memory(memory: int) -> None:
    # A GPU's driver reserves more address space than any limit allows.
    if not has_gpu():
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _end_with_parent() -> None:
    """Let the system end this process if the service is killed during the proof."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _attempt(directory: Path, engine: Any, precision: Any) -> dict[str, Any]:
    try:
        predictor = Predictor(directory, engine=engine, precision=precision, threads=1)
        proof = Proof(*predictor.way, predictor.best_batch, predictor.milliseconds)
        return asdict(proof)
    except MemoryError:
        return {"error": f"opening the model {directory.name} takes too much memory", "hint": ""}
    except Exception as error:  # noqa: BLE001 - whatever a model does, it is refused
        message = getattr(error, "message", f"{type(error).__name__}: {error}")
        return {"error": str(message)[:1000], "hint": getattr(error, "hint", "")}


def main() -> None:
    """Prove the model that the arguments name."""
    directory, engine, precision, memory, text = sys.argv[1:]
    name, task, answer = json.loads(text)
    register_task(name, task=Place(*task), answer=Place(*answer))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent()
    _limit_memory(int(memory))
    sys.stdout.write(json.dumps(_attempt(Path(directory), engine, precision)) + "\n")


if __name__ == "__main__":
    main()


def passed_environment() -> dict[str, str]:
    """Return the part of this environment that a child process sees."""
    return {key: value for key, value in os.environ.items() if key in PASSED_VARIABLES}


def log_opened(predictor: Predictor) -> None:
    """Log which model is served from now on, and how fast it is."""
    _log.info(
        "serving %s version %s with %s in batches of %d, golden images within %.1g",
        predictor.info["name"],
        predictor.info["version"],
        predictor.way.name,
        predictor.best_batch,
        predictor.golden_difference,
        extra={"milliseconds": predictor.milliseconds},
    )


def hide_folder(text: str, folder: Path) -> str:
    """Return ``text`` without ``folder``: clients see file names, not their location."""
    for place in (folder.resolve(), folder):
        text = text.replace(f"{place}/", "")
    return text
