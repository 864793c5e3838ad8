"""Prove a model in a separate process, which may hang, crash, or run out of memory safely.

    python -m rootstock.service.models.proof DIRECTORY ENGINE PRECISION MEMORY_BYTES TASK

The child does everything that the service will do with the model: it opens the model, answers its
golden images, and measures engines and batches. TASK is a JSON list: the name of the model's task,
and its registration, which the service may have made. The child prints one JSON object.

A model that was proved before on this machine, with the same packages, is not proved again: its
files have the same checksums. It still answers its golden images in the service.
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
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rootstock.errors import ArtifactError, BundleError, RootstockError
from rootstock.model.bundle import ModelBundle
from rootstock.model.engine import has_gpu
from rootstock.model.predictor import Predictor
from rootstock.runtimes.engines import PACKAGES, Engine, Precision
from rootstock.system.artifacts import Record
from rootstock.system.bounds import resident_bytes
from rootstock.system.cpu import processor_name, usable_cores
from rootstock.system.digest import digest_json
from rootstock.system.files import read_json, write_json
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


PROOFS = ".proofs"
_opening = threading.Lock()


@dataclass(frozen=True)
class ProofLimits:
    """Limits for proving a model; ``memory`` in bytes, not counting its own weights."""

    seconds: float = 120.0
    memory: int = 4 * 2**30


class Proof(Record):
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
    bundle: ModelBundle,
    engine: Any,
    precision: Any,
    bounds: ProofLimits | None,
    *,
    records: Path | None = None,
    **options: Any,
) -> Predictor:
    """Return the predictor of a model that was proved within ``bounds``; None: without a child.

    ``records`` is a folder that keeps the proofs of this machine, so that each is made once.
    ``options`` are those of `Predictor`. The batch size is measured here, so no request has to wait
    for it.
    Raises:
        BundleError: The model is rejected, for any reason.
    """
    proof = _prove_once(records, bundle, engine, precision, bounds) if bounds else None
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


def find_records(cache: Path, directory: Path | None) -> Path | None:
    """Return the folder for proofs: the cache's, or that of the run which made ``directory``.

    None: serving a directory makes no new folders outside of a project.
    """
    if directory is None:
        return cache / PROOFS
    run = directory.resolve().parent.parent / ".rootstock/models"
    return next((place / PROOFS for place in (cache, run) if place.parent.is_dir()), None)


def _prove_once(
    records: Path | None, bundle: ModelBundle, engine: str, precision: str, limits: ProofLimits
) -> Proof:
    """Return the proof in the folder ``records``, or make and record it."""
    if records is None:
        return prove(bundle, engine, precision, limits)
    identity = [bundle.digest, engine, precision, limits, *_describe_machine()]
    path = records / f"{digest_json(identity, digits=20)}.json"
    with contextlib.suppress(ArtifactError, ValidationError):
        return Proof.model_validate(read_json(path, made_by=""))
    proof = prove(bundle, engine, precision, limits)
    with contextlib.suppress(ArtifactError, OSError):  # such as a file system that is read-only
        write_json(path, proof.model_dump(mode="json"))
    return proof


def _describe_machine() -> list[object]:
    """Return everything but the model on which a proof depends."""
    packages = []
    for name in ("rootstock-vision", "pillow", "numpy", *PACKAGES.values()):
        with contextlib.suppress(PackageNotFoundError):
            packages.append(f"{name} {version(name)}")
    return [processor_name(), usable_cores(), has_gpu(), *packages]


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
        proof = Proof(
            engine=predictor.engine,
            precision=predictor.precision,
            batch=predictor.best_batch,
            milliseconds=predictor.milliseconds,
        )
        return proof.model_dump()
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
