"""The origin of a model: what training records, and what is missing to reproduce it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LIBRARIES = (
    "rootstock", "torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn", "pillow",
    "pyarrow", "safetensors", "onnx", "onnxscript", "onnxruntime", "ray", "dvc", "mlflow",
)  # fmt: skip
DISTRIBUTIONS = {"rootstock": "rootstock-vision"}
"""Libraries that have another name in the package index."""
CHANGES = "+changes"
KEPT_IN_LINEAGE = ("params.yaml", "dvc.lock")
"""Files that may have uncommitted changes: their content is stored with the model."""


def trace(
    params: Mapping[str, Any],
    root: Path,
    *,
    data_hash: str,
    plan_hash: str,
    weights_sha256: str,
) -> dict[str, Any]:
    """Return the facts that connect a model to its code, data and settings.

    ``params`` are all settings for JSON; ``root`` is the project's folder.
    """
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "data_hash": data_hash,
        "plan_hash": plan_hash,
        "weights_sha256": weights_sha256,
        "seed": params["seed"],
        "git_commit": _git("describe", "--always", "--abbrev=40", f"--dirty={CHANGES}").strip(),
        "git_changes": sorted(line[3:] for line in changed.splitlines()),
        "data_dvc": _read_dvc_file(Path(params["data"]["root"]), root),
        "params": shareable(params),
        "libraries": trace_libraries(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }


def experiment() -> str:
    """Return the name that `dvc exp run` gives this run; empty outside of an experiment."""
    return os.environ.get("DVC_EXP_NAME", "")


def find_commit() -> str:
    """Return the git commit of the current folder; empty if there is none."""
    return _git("rev-parse", "HEAD").strip()


def trace_libraries() -> dict[str, str]:
    """Return the versions of the installed libraries."""
    return {name: _version(name) for name in LIBRARIES if _version(name)}


def shareable(params: Any) -> Any:
    """Return ``params`` with absolute paths cut to their last part, since the rest is private."""
    if isinstance(params, Mapping):
        return {key: shareable(value) for key, value in params.items()}
    if isinstance(params, str) and Path(params).is_absolute():
        return f".../{Path(params).name}"
    return params


def open_ends(lineage: Mapping[str, Any]) -> list[str]:
    """Return the obstacles to reproducing the model, in plain words; empty if none are known."""
    obstacles = []
    commit = str(lineage.get("git_commit", ""))
    if not commit:
        obstacles.append(
            "the git commit is not recorded, because the training did not run in a repository"
        )
    code = [name for name in lineage.get("git_changes", ()) if not _harmless(name)]
    if code:
        obstacles.append(
            f"these files had uncommitted changes, which are not recorded: {', '.join(code)}"
        )
    elif commit.endswith(CHANGES) and "git_changes" not in lineage:
        obstacles.append("some files had uncommitted changes, and it is not recorded which")
    if "params" not in lineage:
        obstacles.append(
            "the parameters are not recorded, because an older Rootstock trained the model"
        )
    for key, value in _cut_paths(lineage.get("params", {})):
        obstacles.append(f"{key} was the absolute path {value}: put the files there, and set it")
    if not lineage.get("data_dvc"):
        obstacles.append(
            "the images were not versioned by DVC: put them in place by hand; the data hash shows "
            "whether they are the same"
        )
    return obstacles


def _harmless(name: str) -> bool:
    return name in KEPT_IN_LINEAGE or name.endswith(".dvc")


def _cut_paths(params: Any, prefix: str = "") -> list[tuple[str, str]]:
    if isinstance(params, Mapping):
        return [
            pair for key, value in params.items() for pair in _cut_paths(value, f"{prefix}{key}.")
        ]
    if isinstance(params, str) and params.startswith(".../"):
        return [(prefix.rstrip("."), params)]
    return []


def _read_dvc_file(data: Path, root: Path) -> str:
    """Return the text of DATA.dvc, with the checksum of the images; empty if there is none."""
    if data.is_absolute():
        return ""
    file = root / data.parent / f"{data.name}.dvc"
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(DISTRIBUTIONS.get(name, name))
    except importlib.metadata.PackageNotFoundError:
        return ""


def _git(*arguments: str) -> str:
    """Return the output of git in the current folder; empty outside of a repository."""
    try:
        found = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout if found.returncode == 0 else ""
