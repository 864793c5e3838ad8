"""Whether a call is rejected with a clear error."""

from collections.abc import Callable

from rootstock.errors import RootstockError


def find_refusal(call: Callable[[], object]) -> RootstockError | None:
    """Return the error that ``call`` raises; None if it succeeds.

    Errors of other kinds are raised.
    """
    try:
        call()
    except RootstockError as error:
        return error
    return None
