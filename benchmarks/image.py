"""Measure the size of the inference image, before and after it got a separate extra, and how soon
its service is ready.

    python benchmarks/image.py --model run1/artifacts/model

This needs no container engine: pip installs the image's packages into an empty environment, which
is measured. The image's earlier content (with torch and MLflow) is measured by the files of the
same packages in the running environment, which needs the extras train and serve. The base image is
assumed, not measured. With MLFLOW_TRACKING_URI, a service that reads its champion there is timed
too. Writes benchmarks/results/image.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.stamp import describe_run
from benchmarks.startup import ready
from tests.packaging.environments import ROOT, closure, requirements_of

BASE_MB = 130
"""python:3.11-slim-bookworm, unpacked, with its pip and setuptools: assumed."""
BEFORE = (
    "torch", "torchvision", "timm", "numpy", "scikit-learn", "scipy", "pyarrow", "pillow",
    "pydantic", "pyyaml", "safetensors", "tqdm", "matplotlib", "onnx", "onnxscript", "onnxruntime",
    "mlflow", "fastapi", "uvicorn[standard]", "python-multipart", "pydantic-settings",
    "prometheus-client",
)  # fmt: skip
"""Packages of the image when there was one list of requirements."""
IN_BASE = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence.pth")


def main() -> None:
    """Measure both sides, print them, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="a model folder to serve")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/image.json")
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = f"{ROOT / 'src'}{os.pathsep}{ROOT}"
    source = _folder_mb(ROOT / "src") + _folder_mb(ROOT / "services")
    before = closure(BEFORE)
    with tempfile.TemporaryDirectory(prefix="rootstock-image-") as folder:
        python = install(Path(folder), requirements_of("serve"))
        (packages,) = Path(folder).glob("lib/*/site-packages")
        names = [path for path in packages.glob("*.dist-info") if not _is_in_base(path)]
        after_mb = sum(_size(path) for path in packages.iterdir() if not _is_in_base(path)) / 1e6
        models = [str(options.model.resolve())]
        if os.environ.get("MLFLOW_TRACKING_URI"):
            models.append("models:/rootstock@champion")
        times = {
            ("a registry over HTTP" if model.startswith("models:") else "a folder"): [
                round(ready(model, Path(folder), python), 2) for _ in range(1 + options.times)
            ]
            for model in models
        }
    before_mb = sum(_installed_bytes(one) for one in before.values()) / 1e6
    result = {
        **describe_run("python benchmarks/image.py --model run1/artifacts/model"),
        "base_mb_assumed": BASE_MB,
        "source_mb": round(source, 1),
        "before": _row(before_mb, len(before), source),
        "after": _row(after_mb, len(names), source),
        "ready_seconds": {
            kind: {"first": first, "median": statistics.median(others), "slowest": max(others)}
            for kind, (first, *others) in times.items()
        },
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


def install(folder: Path, requirements: list[str]) -> Path:
    """Install the requirements, at the versions of constraints.txt, into a new environment."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin/python"
    pip = [python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt"]
    subprocess.run([*pip, *requirements], check=True)
    return python


def _row(packages_mb: float, packages: int, source_mb: float) -> dict[str, float]:
    total = BASE_MB + packages_mb + source_mb
    return {"packages": packages, "packages_mb": round(packages_mb), "image_mb": round(total)}


def _is_in_base(path: Path) -> bool:
    return path.name in IN_BASE or path.name.startswith(("pip-", "setuptools-"))


def _installed_bytes(distribution: object) -> int:
    """Return the bytes of a distribution's existing files, including compiled ones."""
    paths = (Path(str(file.locate())) for file in distribution.files or ())  # type: ignore[attr-defined]
    return sum(path.stat().st_size for path in paths if path.is_file())


def _folder_mb(folder: Path) -> float:
    return _size(folder) / 1e6


def _size(path: Path) -> int:
    """Return the bytes of a file, or of a folder without bytecode of our source."""
    if path.is_file():
        return path.stat().st_size
    ours = path.is_relative_to(ROOT)
    return sum(
        one.stat().st_size
        for one in path.rglob("*")
        if one.is_file() and not (ours and "__pycache__" in one.parts)
    )


if __name__ == "__main__":
    main()
