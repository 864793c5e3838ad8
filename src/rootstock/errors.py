"""The errors that a user of Rootstock can meet, as one family.

RootstockError
├── ConfigError          params.yaml or a --set option
├── DataError            the image folder, CSV or Parquet as a whole
├── ImageError           one image file (``reason`` is a stable word)
├── BackboneError        an architecture, weights file or card
│   └── WeightsUnavailable   the hub cannot be reached
├── StoreError           the feature store on disk
├── PlanError            a pinned choice that the data or backbone cannot serve
├── TrainingError        no trial of the search succeeded
├── BundleError          a model directory
├── ExplainError         an answer that cannot be explained as asked
├── ArtifactError        a stage's input is missing or from another version
└── TrackingError        MLflow cannot be reached or refuses
    ├── NoModelError     the registry holds no model of that name or alias
    └── ConflictError    another change of the champion came first
"""

MESSAGE_CHARACTERS = 4000
"""A longer message is cut in the middle: it may quote a file of the wrong kind."""


class RootstockError(Exception):
    """An error with a message, a stable ``code``, and advice on what to do (``hint``)."""

    code = "error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        message, hint = shorten(message), shorten(hint)
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  -> {self.hint}" if self.hint else self.message


class ConfigError(RootstockError):
    """A key of params.yaml is unknown, or its value is out of bounds."""

    code = "config"


class DataError(RootstockError):
    """The data set as a whole cannot be used: no images, one class, missing columns."""

    code = "data"


class ImageError(RootstockError):
    """An image cannot be used; ``reason`` is a stable word such as ``truncated``."""

    code = "image"

    def __init__(self, reason: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str], dict[str, object]]:
        # Decoding runs in worker processes: both required arguments must survive pickling.
        return (type(self), (self.reason, self.message), self.__dict__)


class BackboneError(RootstockError):
    """An architecture is unknown, or a weights file and its card do not fit together."""

    code = "backbone"


class WeightsUnavailable(BackboneError):  # noqa: N818 - the name says it
    """Pretrained weights had to come from the hub, and the hub cannot be reached."""

    code = "weights-unavailable"


class StoreError(RootstockError):
    """The feature store on disk cannot be read or written."""

    code = "store"


class PlanError(RootstockError):
    """A pinned choice cannot be carried out with this data or backbone."""

    code = "plan"


class TrainingError(RootstockError):
    """Training ended without a usable model."""

    code = "training"


class BundleError(RootstockError):
    """A model directory is incomplete, damaged or of an unknown format version."""

    code = "bundle"


class ExplainError(RootstockError):
    """The model has no such output, or its network does not allow this kind of explanation."""

    code = "explain"


class ArtifactError(RootstockError):
    """A file that an earlier stage should have written is missing or damaged."""

    code = "artifact"


class TrackingError(RootstockError):
    """The tracking server or registry cannot be reached, or refuses."""

    code = "tracking"


class NoModelError(TrackingError):
    """The registry holds no model under that name, alias or version."""

    code = "no-model"


class ConflictError(TrackingError):
    """The champion is not the expected one: another change came first."""

    code = "conflict"


def shorten(text: str, limit: int = MESSAGE_CHARACTERS) -> str:
    """Return ``text`` without its middle if it has more than ``limit`` characters."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]} … ({len(text) - 2 * half:,} characters left out) … {text[-half:]}"
