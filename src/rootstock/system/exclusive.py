"""Allow only one writer per folder: a second one is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rootstock.errors import ArtifactError


@contextmanager
def claim_folder(folder: Path) -> Iterator[None]:
    """Lock ``folder`` until the block ends; the system unlocks it if the process is killed.

    On a file system or a system without such locks, nothing is locked.
    Raises:
        ArtifactError: another process has locked it.
    """
    try:
        import fcntl

        path = folder / ".rootstock/lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except (ImportError, OSError):
        yield
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ArtifactError(
                f"another run is writing to {folder}",
                hint="wait until it has ended, or choose another folder (--out)",
            ) from None
        except OSError:
            pass
        yield
