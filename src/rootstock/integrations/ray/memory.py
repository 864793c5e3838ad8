"""A search that Ray ends because the machine has no memory left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rootstock.errors import TrainingError


@contextmanager
def explain_full_memory() -> Iterator[None]:
    """Turn Ray's error about memory into one that says what to do.

    Ray ends a worker when all programs together use 95 % of the machine's memory. Ray Tune does
    not expect this error of a worker and ends the search.

    Raises:
        TrainingError: a worker was ended.
    """
    from ray.exceptions import OutOfMemoryError

    try:
        yield
    except RuntimeError as error:
        if not isinstance(error.__cause__, OutOfMemoryError):
            raise
        raise TrainingError(
            "the memory of this machine is nearly full, so Ray ended a trial",
            hint="close other programs, or set search.concurrent=1 and a smaller train.batch_size; "
            "finished trials are kept, and the same command continues from there",
        ) from error
