"""A folder from which a container image with one model can be built.

It holds the model, the package, and what the extra `serve` needs in the versions that are installed
here. The image has no torch, and nothing in it needs the network or a registry.
"""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import sys
import uuid
from collections.abc import Iterable
from pathlib import Path

import rootstock
from rootstock.errors import BundleError
from rootstock.model.bundle import ModelBundle

DISTRIBUTION, EXTRA = "rootstock-vision", "serve"
_DOCKERFILE = """\
# A service of one model. The base is pinned by its tag; to pin it by its content, build with
# --build-arg PYTHON_IMAGE=python@sha256:...
ARG PYTHON_IMAGE=python:{python}-slim-bookworm
FROM ${{PYTHON_IMAGE}}
COPY requirements.txt constraints.txt /opt/rootstock/
RUN pip install --no-cache-dir --disable-pip-version-check \\
    -c /opt/rootstock/constraints.txt -r /opt/rootstock/requirements.txt \\
 && useradd --uid 10001 --no-create-home inference
COPY rootstock/ /opt/rootstock/rootstock/
# A container with a read-only file system cannot store compiled files at its start.
RUN python -m compileall -q /opt/rootstock/rootstock
COPY model/ /opt/rootstock/model/
ENV PYTHONPATH=/opt/rootstock PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \\
    ROOTSTOCK_HOST=0.0.0.0 ROOTSTOCK_PORT=8000 ROOTSTOCK_ROOT=/tmp \\
    ROOTSTOCK_MODEL=/opt/rootstock/model ROOTSTOCK_MODEL_NAME="{name}"
WORKDIR /tmp
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=6s --start-period=60s CMD ["python", "-c", \\
    "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=5)"]
ENTRYPOINT ["python", "-m", "rootstock.service"]
"""
_README = """\
Build: `docker build -t {tag} .`
Run: `docker run --rm --read-only --tmpfs /tmp -p 127.0.0.1:8000:8000 {tag}`
Ask: `curl -F files=@image.jpg http://127.0.0.1:8000/v1/predict`; /docs lists all routes.
Settings are variables, such as `-e ROOTSTOCK_KEYS=/run/keys`; without keys, any client may ask.
The model is `{name}` version `{version}`; `model/card.md`, if it is there, describes it.
"""


def write_docker(bundle: ModelBundle, name: str, out: Path) -> Path:
    """Write the folder ``out`` for a model that clients call ``name``; return its Dockerfile.

    Raises:
        BundleError: ``out`` is not empty, or the packages of the service are not
            installed here, so their versions are unknown.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BundleError(f"{out} is not empty", hint="name a new folder")
    requirements, versions = list_requirements()
    fresh = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.new")
    fresh.mkdir(parents=True)
    try:
        shutil.copytree(bundle.directory, fresh / "model")
        package = Path(rootstock.__file__).parent
        shutil.copytree(
            package, fresh / "rootstock", ignore=shutil.ignore_patterns("__pycache__", "*.tmp")
        )
        tag = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "model"
        values = {
            "python": f"{sys.version_info.major}.{sys.version_info.minor}",
            "name": re.sub(r"[^A-Za-z0-9_. -]", "-", name),
            "tag": f"rootstock-{tag}",
            "version": bundle.digest[:12],
        }
        for file, text in (
            ("Dockerfile", _DOCKERFILE.format(**values)),
            ("README.md", _README.format(**values)),
            ("requirements.txt", "".join(f"{line}\n" for line in requirements)),
            ("constraints.txt", "".join(f"{line}\n" for line in versions)),
            (".dockerignore", "README.md\n"),
        ):
            (fresh / file).write_text(text, encoding="utf-8")
        # The user of the image is not the one who copied the files.
        for path in fresh.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        if out.exists():
            out.rmdir()
        fresh.rename(out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return out / "Dockerfile"


def list_requirements() -> tuple[list[str], list[str]]:
    """Return the requirements of the service, and the versions of all packages they need.

    Raises:
        BundleError: one of them is not installed.
    """
    # Exporting needs the extra train, which brings it.
    from packaging.requirements import Requirement

    def needs(requirements: Iterable[str], extras: Iterable[str]) -> list[Requirement]:
        found = [Requirement(line) for line in requirements]
        return [
            one
            for one in found
            if not one.marker or any(one.marker.evaluate({"extra": extra}) for extra in extras)
        ]

    try:
        direct = needs(importlib.metadata.requires(DISTRIBUTION) or (), ("", EXTRA))
        versions: dict[str, str] = {}
        done: set[tuple[str, frozenset[str]]] = set()
        waiting = list(direct)
        while waiting:
            one = waiting.pop()
            name, extras = _canonical(one.name), frozenset(one.extras)
            if (name, extras) not in done:
                done.add((name, extras))
                versions[name] = importlib.metadata.version(name)
                waiting += needs(importlib.metadata.requires(name) or (), ("", *extras))
    except importlib.metadata.PackageNotFoundError as error:
        raise BundleError(
            f"{error.name} is not installed, so its version is unknown",
            hint=f"pip install '{DISTRIBUTION}[{EXTRA}]'",
        ) from None
    lines = {str(Requirement(str(one).partition(";")[0].strip())) for one in direct}
    return sorted(lines), [f"{name}=={version}" for name, version in sorted(versions.items())]


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
