"""An environment for the packages of peers, which also sees this environment's packages."""

from __future__ import annotations

import subprocess
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"


def peers_python(folder: Path, packages: Sequence[str]) -> Path:
    """Return the Python of ``folder``, creating it with these packages if missing."""
    python = folder.resolve() / "bin/python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        site = next(folder.glob("lib/python*/site-packages"))
        (site / "base.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    install = [python, "-m", "pip", "install", "--quiet", "-c", CONSTRAINTS, *packages]
    subprocess.run(install, check=True)
    return python
