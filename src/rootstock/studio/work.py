"""Work that runs in a thread of the studio: what a page shows if it fails."""

from __future__ import annotations

import logging
from collections.abc import Callable

from rootstock.errors import RootstockError

_log = logging.getLogger("rootstock.studio")


def find_problem(run: Callable[[], None], *, failed: str) -> dict[str, str] | None:
    """Run the work; return its problem as text and what to do, or None.

    ``failed`` is the text for an error that is not expected; the log shows its traceback.
    """
    try:
        run()
    except RootstockError as error:
        return {"text": error.message, "todo": error.hint}
    except Exception:  # noqa: BLE001 - the page must hear of every end
        _log.exception(failed)
        return {"text": failed, "todo": "see the log of the studio"}
    return None
