"""The subject of an explanation: one output, or several such as the sides of a box."""

from __future__ import annotations

import numpy as np

from rootstock.errors import ExplainError
from rootstock.model.predictor import Predictor
from rootstock.tasks.task import Subject


def find_subject(predictor: Predictor, name: str) -> Subject:
    """Return the subject with this name.

    Raises:
        ExplainError: The model has no such output.
    """
    subjects = predictor.task.subjects(predictor.names)
    if name not in subjects:
        shown = ", ".join(list(subjects)[:10]) + (" ..." if len(subjects) > 10 else "")
        raise ExplainError(f"the model has no output {name!r}", hint=f"available: {shown}")
    return subjects[name]


def contrast(outputs: np.ndarray, subject: Subject) -> np.ndarray:
    """Return [M,...] of a subject from [K,...] of all outputs, minus the mean of its rivals.

    A softmax does not change if all outputs rise equally: only the difference counts.
    """
    chosen = outputs[list(subject.outputs)]
    return chosen - outputs[list(subject.rivals)].mean(axis=0) if subject.rivals else chosen
