"""An environment for the packages of peers, which also sees this environment's packages."""

from __future__ import annotations

import subprocess
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"


def peers_python(
    folder: Path, packages: Sequence[str], *, constrained: bool = True, borrowed: Sequence[str] = ()
) -> Path:
    """Return the Python of ``folder``, made with these packages if it is not there.

    ``constrained``: the versions of `constraints.txt`, which peers may not accept. ``borrowed``
    packages are removed again, so that those of this environment are used.
    """
    python = folder.resolve() / "bin/python"
    made, wanted = folder / "packages.txt", "\n".join(packages)
    if made.exists() and made.read_text(encoding="utf-8") == wanted:
        return python
    venv.create(folder, with_pip=True)
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "base.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    pip = [python, "-m", "pip"]
    limits = ["-c", CONSTRAINTS] if constrained else []
    subprocess.run([*pip, "install", "--quiet", *limits, *packages], check=True)
    own = [name for name in borrowed if (site / name).is_dir()]
    if own:
        subprocess.run([*pip, "uninstall", "--quiet", "--yes", *own], check=True)
    made.write_text(wanted, encoding="utf-8")
    return python
