"""The ledger: one line of JSON per finished run, with expectation and outcome."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from rootstock.assess.profile import DatasetProfile
from rootstock.config.choices import SizeClass, Strategy
from rootstock.errors import ArtifactError
from rootstock.plan import rules
from rootstock.plan.transfer_plan import TransferPlan
from rootstock.system.artifacts import Record

log = logging.getLogger(__name__)

PACE_RUNS = 20
"""Number of last runs that `measure_pace` uses, since machines change. A judgement."""
PACE_PRIOR_RUNS = 1
"""A factor of 1 counts like this many runs. A judgement, not fitted to any set."""


class LedgerRow(Record):
    """Profile, plan, prediction and outcome of one run, in numbers that fit a table."""

    format_version: Literal[1] = 1
    data_hash: str
    weights_sha256: str
    n_train: int
    n_classes: int
    median_per_class: float
    imbalance: float
    size_class: SizeClass
    similarity: float
    similar: bool
    probe_last: float | None
    probe_early: float | None
    ruled: Strategy
    strategy: Strategy
    raced: bool
    kept_head: bool
    """Whether the head was better than the fine-tuning that started from it."""
    expected_accuracy: tuple[float, float] | None
    test_accuracy: float
    n_test: int
    expected_minutes: float | None
    minutes: float
    seed: int
    uncorrected_minutes: float | None = None
    """The estimate from this machine's throughput, before `measure_pace`; None in old rows."""

    @property
    def as_expected(self) -> bool | None:
        """Whether the accuracy was in its range; None without a range."""
        if self.expected_accuracy is None:
            return None
        low, high = self.expected_accuracy
        # Half an image of margin: the accuracy on few test images changes in steps.
        slack = 0.5 / self.n_test
        return low - slack <= self.test_accuracy <= high + slack


def make_row(
    profile: DatasetProfile,
    plan: TransferPlan,
    *,
    kept_head: bool,
    test_accuracy: float,
    n_test: int,
    expected_minutes: float | None,
    minutes: float,
    seed: int,
    uncorrected_minutes: float | None = None,
) -> LedgerRow:
    """Return the row of a finished run; the minutes are those of all trials together."""
    probes = {probe.tap: probe.accuracy for probe in profile.probes}
    earlier = [probes[tap] for tap in profile.backbone.taps[:-1] if tap in probes]
    expected = next(c.expected_accuracy for c in plan.candidates if c.strategy == plan.strategy)
    return LedgerRow(
        data_hash=profile.data_hash,
        weights_sha256=plan.weights_sha256,
        n_train=profile.n_train,
        n_classes=len(profile.classes),
        median_per_class=profile.median_per_class,
        imbalance=profile.imbalance,
        size_class=profile.size_class,
        similarity=profile.similarity.score,
        similar=profile.similarity.similar,
        probe_last=probes.get(profile.backbone.taps[-1]),
        probe_early=max(earlier, default=None),
        ruled=plan.evidence.ruled,
        strategy=plan.strategy,
        raced=plan.race is not None,
        kept_head=kept_head,
        expected_accuracy=expected,
        test_accuracy=test_accuracy,
        n_test=n_test,
        expected_minutes=expected_minutes,
        minutes=minutes,
        seed=seed,
        uncorrected_minutes=uncorrected_minutes,
    )


def measure_pace(rows: Iterable[LedgerRow], *, tuned: bool) -> float:
    """Return the factor by which training took longer than the throughput predicts.

    Early stopping makes it smaller, decoding and validation make it larger. Heads and fine-tuning
    (``tuned``) have separate factors; it is 1 if there are no runs.
    """
    ratios = [
        math.log(row.minutes / row.uncorrected_minutes)
        for row in rows
        if row.uncorrected_minutes and row.minutes > 0 and rules.is_finetune(row.strategy) == tuned
    ][-PACE_RUNS:]
    return math.exp(sum(ratios) / (len(ratios) + PACE_PRIOR_RUNS))


def append_row(path: Path, row: LedgerRow) -> None:
    """Append one line; the lines of concurrent writers do not mix.

    A repeated run adds nothing if an equal row, except for the minutes, exists.

    Raises:
        ArtifactError: the file cannot be read or written.
    """
    if any(_same_run(row, old) for old in read_ledger(path)):
        return
    try:
        _append(path, row)
    except OSError as error:
        raise _unusable(path, error) from None


def _append(path: Path, row: LedgerRow) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # One write at the end of the file is not interrupted by another writer.
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(descriptor, _mend(path) + row.model_dump_json().encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_ledger(path: Path) -> Iterator[LedgerRow]:
    """Yield every row; skip a damaged line, or one of another version, with a warning."""
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise _unusable(path, error) from None
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            yield LedgerRow.model_validate_json(line)
        except ValidationError as error:
            log.warning("%s, line %d is ignored: %s", path, number, error.errors()[0]["msg"])


def _unusable(path: Path, error: OSError) -> ArtifactError:
    return ArtifactError(
        f"the ledger {path} cannot be used: {error.strerror or error}",
        hint="free some disk space, move what is there away, or set plan.ledger to another file",
    )


def _same_run(row: LedgerRow, old: LedgerRow) -> bool:
    clocks = {"minutes", "expected_minutes", "uncorrected_minutes"}
    return row.model_dump(exclude=clocks) == old.model_dump(exclude=clocks)


def _mend(path: Path) -> bytes:
    """Return a line break if a crash left the last line without one."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return b""
        file.seek(-1, os.SEEK_END)
        return b"" if file.read(1) == b"\n" else b"\n"
