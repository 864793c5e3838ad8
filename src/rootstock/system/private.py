"""Folders that other users of the machine cannot reach."""

import os
import stat
from pathlib import Path

from rootstock.errors import ConfigError


def close_to_others(folder: Path) -> None:
    """Make the folder where it is missing, and take every right from users outside its group.

    DVC makes its cache writable by all, and unpickles what lies in it (CVE-2025-69872).

    Raises:
        ConfigError: it belongs to another user, who can write what DVC loads.
    """
    folder.mkdir(parents=True, exist_ok=True)
    status = folder.stat()
    mode = stat.S_IMODE(status.st_mode)
    if not mode & stat.S_IRWXO:
        return
    if status.st_uid != os.getuid():
        raise ConfigError(
            f"{folder} belongs to another user and is open to all; DVC runs code that lies there",
            hint=f"remove it and run the command again: rm -r {folder}",
        )
    folder.chmod(mode & ~stat.S_IRWXO)
