"""Whether a call is refused in words."""

from collections.abc import Callable

from rootstock.errors import RootstockError


def find_refusal(call: Callable[[], object]) -> RootstockError | None:
    """Return the error in words that ``call`` ends in; None if it ends well.

    Any other error is passed on.
    """
    try:
        call()
    except RootstockError as error:
        return error
    return None
