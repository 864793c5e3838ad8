"""Task: defines a kind of target, and everything that depends on it.

Everything outside of `rootstock.tasks` works with any task: it passes texts, targets, outputs and
decisions, and reads names, strata, metrics and answers. This module needs only numpy, since a
service loads it; code that needs torch is behind `Task.head`, `Task.loss` and `Task.average`.

    text      a target as stored in the manifest, one per image
    targets   the texts of N images, parsed (`Targets`)
    outputs   float32[N,K], the result of the network
    decisions [N,...], the meaning of calibrated outputs, such as probabilities
    answer    the decision for one image, for people and programs (`Answer`)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np

from rootstock.data.target_rules import FolderSource, PlainReader, Settled
from rootstock.errors import ConfigError, DataError
from rootstock.metrics import stability_index
from rootstock.system.escape import escape_markdown, list_names, markdown_table
from rootstock.tasks.annotation import Annotation
from rootstock.tasks.answer import Answer
from rootstock.tasks.comparison import Comparison
from rootstock.tasks.metric_words import list_metrics, name_metric, show_metric
from rootstock.tasks.targets import Targets

if TYPE_CHECKING:
    import torch

    from rootstock.data.columns import Columns
    from rootstock.tasks.learning import HeadSolver, TargetLoss

Calibration = Mapping[str, Any]
"""Values that turn outputs into decisions, for JSON; fitted on the validation images."""
Arrays = Mapping[str, np.ndarray]
"""Arrays about the validation images that a model stores, for prediction sets and drift."""


Editor = Literal["choice", "toggles", "numbers", "box", "mask", "text"]
DEFAULT_THRESHOLD = "f1"
"""The default of `task.threshold`; a task without thresholds ignores it."""
PICTURE_FOLDER = "plots/evaluation"
"""The folder of the pictures of a `Report`, relative to its text."""


class AnswerOptions(NamedTuple):
    """The options of a request; a task ignores those without meaning for it."""

    top_k: int = 5
    """The maximum number of names in an answer."""
    coverage: float | None = None
    """The share of cases in which the set or interval of the answer contains the true value."""
    neighbours: int = 0
    """The number of nearest training images to name."""
    size: tuple[int, int] = (1, 1)
    """Width and height in pixels of the upright image."""


class Doubt(NamedTuple):
    """An image whose target looks wrong."""

    row: int
    suggested: str
    confidence: float


class Subject(NamedTuple):
    """The subject of a heat map: the numbers of one or several outputs.

    If there are ``rivals``, the difference between an output and their mean counts.
    """

    outputs: tuple[int, ...]
    rivals: tuple[int, ...] = ()


class TensorSpec(NamedTuple):
    """An output of the Open Inference Protocol; ``width`` None: one element per image."""

    name: str
    datatype: str
    width: int | None = None

    def shape(self, n_images: int) -> list[int]:
        """Return the shape for this many images; -1 stands for any number."""
        return [n_images] if self.width is None else [n_images, self.width]


@dataclass(frozen=True)
class Picture:
    """A picture of a report: its file name, and the function that draws it."""

    name: str
    draw: Callable[[Path], None]


@dataclass(frozen=True)
class Report:
    """The report of an evaluation.

    ``rows`` are those of per_class.csv, its header first, one row per name of an output.
    """

    text: str
    rows: Sequence[Sequence[object]]
    pictures: Sequence[Picture] = ()


class Evidence(NamedTuple):
    """N evaluated images: decisions [N,...], their targets and their paths."""

    decisions: np.ndarray
    targets: Targets
    paths: Sequence[str]


class Task(ABC):
    """One kind of label. All methods are pure; tasks have no state."""

    name: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]
    """The columns in a table, in addition to `path`; several are joined into a JSON list."""
    in_folders: ClassVar[bool] = False
    """Whether the name of a class folder is a target."""
    discrete: ClassVar[bool] = False
    """Whether an answer is either right or wrong, so that models can be compared by image."""
    competing: ClassVar[bool] = False
    """Whether only differences between outputs matter, as in a softmax."""
    weightings: ClassVar[tuple[str, ...]] = ("none",)
    """Values of `train.class_weight` that the loss supports."""
    gate_metrics: ClassVar[tuple[str, ...]]
    """Metrics that the gate can compare; the first is the main metric of every report."""
    lower_is_better: ClassVar[frozenset[str]] = frozenset()
    """The gate's metrics that are errors."""
    spatial: ClassVar[bool] = False
    """Whether a target has a place in the image: the whole image is seen, the target moves with
    every crop, outputs of several views are not averaged, and targets are not mixed."""
    editor: ClassVar[Editor] = "text"
    """How a person enters a target: one name, any number of names, numbers, or a name and a box.

    Masks are only shown; they are drawn in other tools.
    """
    corrects_texts: ClassVar[bool] = True
    """Whether a correction can contain a new target; if not, it can only remove the image."""
    averages_networks: ClassVar[bool] = False
    """Whether `average` is available: the outputs of several networks can be averaged."""
    output_grid: ClassVar[int] = 0
    """Positions along each side of an image that have outputs; 0: one output per image."""
    selection: ClassVar[str] = "val_loss"
    """The validation metric by which trials are chosen; lower is better."""

    @property
    def headline(self) -> str:
        """The main metric of every report."""
        return self.gate_metrics[0]

    @property
    def score(self) -> str:
        """The metric that plans and races compare: at most 1, higher is better."""
        return self.headline

    @property
    def score_name(self) -> str:
        """The score in words."""
        words = {"iou": "IoU", "r2": "R²"}
        return " ".join(words.get(word, word) for word in self.score.split("_"))

    @property
    def val_headline(self) -> str:
        """The main metric on the validation images."""
        return f"val_{self.headline}"

    @property
    def val_score(self) -> str:
        """The score on the validation images."""
        return f"val_{self.score}"

    # Data

    def recognise(self, root: Path, columns: Columns | None) -> str:
        """Return why the data belongs to this task, in a few words; empty if it does not.

        ``columns`` are those of a table; None for a folder. The tasks are tried in the order of
        their registration.
        """
        if columns is None:
            return "class folders" if self.in_folders and root.is_dir() else ""
        names = self.find_columns(columns)
        return f"the column{'s' if names[1:] else ''} {list_names(names)}" if names else ""

    def find_columns(self, columns: Columns) -> tuple[str, ...]:
        """Return the names of a table's columns that hold the target; empty if there are none.

        Raises:
            DataError: the columns belong to this task, but are wrong.
        """
        return PlainReader(self.columns).find_columns(columns)

    def read_cells(self, columns: Columns, names: Sequence[str]) -> list[str]:
        """Return the target of each row as a text; those of several columns as a JSON list.

        Raises:
            DataError: names the wrong row; an empty text is refused later.
        """
        return columns.join(names)

    @abstractmethod
    def read_names(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the outputs, from the texts of all usable images."""

    @abstractmethod
    def parse(self, texts: Sequence[str], names: Sequence[str]) -> np.ndarray:
        """Return the values [N,...] of texts that `check` accepted.

        Raises:
            DataError: a text has a name that is not among ``names``.
        """

    @abstractmethod
    def strata(self, texts: Sequence[str]) -> list[str]:
        """Return the stratum of each text; splits, folds and samples keep the strata's shares."""

    def balance(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        """Return, for each text, the labels whose shares splits keep; by default its stratum."""
        return [(stratum,) for stratum in self.strata(texts)]

    def measure_units(self, values: np.ndarray) -> np.ndarray | None:
        """Return the `Targets.units` of training values [N,...]; None if there are none."""
        return None

    def caption(self, text: str) -> str:
        """Return a target as text for people."""
        return text

    def check_texts(self, root: Path, texts: Sequence[str]) -> None:
        """Refuse unreadable targets, before any image is decoded.

        Raises:
            DataError: names the wrong text of ``root``, and the allowed form.
        """

    def settle(
        self, root: Path, texts: Sequence[str], paths: Sequence[str], sizes: np.ndarray
    ) -> Settled:
        """Return the texts of usable images as the manifest stores them.

        ``paths`` are relative to the folder ``root``; ``sizes`` int[N,2] are width and height of
        the upright images.
        Raises:
            DataError: a target does not fit its image.
        """
        return Settled(list(texts), [])

    def correct(self, old: str, new: str) -> str:
        """Return ``new``, with which a person replaced the text ``old``, as the manifest stores it.

        ``old`` is empty if the image had no target.
        Raises:
            DataError: it is not a valid target.
        """
        self.check_texts(Path(), [new])
        return new

    def annotate(self, text: str) -> Annotation:
        """Return a text of the manifest in the form of labelling tools."""
        raise DataError(f"the task `{self.name}` cannot export its labels for other tools")

    def read_annotation(self, annotation: Annotation) -> str:
        """Return the text of an annotation.

        Raises:
            DataError: the annotation does not fit this task.
        """
        raise DataError(f"the task `{self.name}` cannot import labels from other tools")

    def check(self, root: Path, texts: Sequence[str], listed: Sequence[str], least: int) -> None:
        """Refuse targets from which nothing can be learned.

        ``texts`` are those of the usable images of ``root``, ``listed`` those of all; ``least`` is
        the number of images that each stratum needs.
        Raises:
            DataError: names the problem and a way out.
        """

    def warn(self, texts: Sequence[str]) -> list[str]:
        """Return warnings about unusual texts of all listed images."""
        return []

    def check_splits(self, root: Path, strata: Sequence[str], splits: Sequence[str]) -> list[str]:
        """Return warnings about the distribution of the strata over the splits.

        Raises:
            DataError: nothing can be learned from this training split.
        """
        return []

    def width(self, names: Sequence[str]) -> int:
        """Return the number of outputs K of a network: by default one per name."""
        return len(names)

    def read_tap(self, depth: str, taps: Sequence[str]) -> str:
        """Return the tap that a head reads at ``depth``, with maps if needed: `block5@7+last`.

        ``taps`` are those of the backbone, shallow to deep; the last one has no map.
        """
        return depth

    def probe_tap(self, depth: str, taps: Sequence[str]) -> str:
        """Return the tap that a probe of ``depth`` reads; empty: the depth itself, pooled."""
        return ""

    def open_folder(self, root: Path, *, need_train: bool) -> FolderSource | None:
        """Return a reader of the task's own folder layout, or None.

        None: the folder is read as class folders if `in_folders`, and refused otherwise.
        """
        return None

    def linked_files(self, texts: Sequence[str]) -> list[str]:
        """Return the files that the targets of a table name, relative to its folder."""
        return []

    # Training (needs torch)

    @abstractmethod
    def head(self, weighting: str = "none") -> HeadSolver:
        """Return the exact solver of the task's loss on cached features."""

    @abstractmethod
    def loss(
        self,
        targets: Targets,
        *,
        weighting: str,
        label_smoothing: float,
        device: torch.device,
    ) -> TargetLoss:
        """Return the loss of fine-tuning on these training targets."""

    def average(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return the outputs [N,K] of an ensemble for those of its networks [n,N,K].

        Their meaning is averaged, such as probabilities. It is a part of the exported network.
        """
        raise NotImplementedError

    @abstractmethod
    def losses(
        self, outputs: np.ndarray, targets: Targets, calibration: Calibration | None = None
    ) -> np.ndarray:
        """Return each image's loss float64[N], with or without the calibration."""

    @abstractmethod
    def validate(self, outputs: np.ndarray, targets: Targets) -> dict[str, float]:
        """Return the metrics of an epoch: `selection`, `val_<headline>`, and others."""

    @abstractmethod
    def calibrate(self, outputs: np.ndarray, targets: Targets) -> Calibration:
        """Return the calibration that fits the validation images best."""

    def check_threshold(self, wish: str) -> None:
        """Refuse a `task.threshold` that this task does not support.

        Raises:
            ConfigError: names the allowed values.
        """
        if wish != DEFAULT_THRESHOLD:
            raise ConfigError(
                f"task.threshold is {wish!r}, but the task `{self.name}` has no thresholds",
                hint=f"set it to {DEFAULT_THRESHOLD}",
            )

    def read_units(self, calibration: Calibration) -> np.ndarray | None:
        """Return the `Targets.units` of a model's outputs, or None."""
        return None

    def choose_thresholds(
        self, outputs: np.ndarray, targets: Targets, calibration: Calibration, wish: str
    ) -> Calibration:
        """Return the calibration with thresholds according to ``wish``, if the task has any."""
        return calibration

    def find_fault(self, names: Sequence[str], calibration: Calibration) -> str:
        """Return the fault in the facts of a model directory; empty if there is none."""
        return ""

    def describe_calibration(
        self, outputs: np.ndarray, targets: Targets, calibration: Calibration
    ) -> dict[str, float]:
        """Return the validation metrics to record with a trained model."""
        return self.validate(outputs, targets)

    def doubts(
        self, features: np.ndarray, targets: Targets, *, folds: int, seed: int
    ) -> list[Doubt]:
        """Return the images whose targets look wrong, the clearest doubts first."""
        return []

    def neighbour_score(self, features: np.ndarray, targets: Targets) -> float | None:
        """Return how well the nearest neighbours predict; None if that has no meaning."""
        return None

    def score_bound(self, features: np.ndarray, targets: Targets) -> float:
        """Return a score that no head on these features [N,C] should exceed."""
        return 1.0

    # Prediction

    @abstractmethod
    def decide(self, outputs: np.ndarray, calibration: Calibration) -> np.ndarray:
        """Return decisions [N,...] of outputs float32[N,K]."""

    @abstractmethod
    def answer(
        self,
        decision: np.ndarray,
        names: Sequence[str],
        options: AnswerOptions,
        reference: Arrays,
    ) -> Answer:
        """Return the answer for one decision [...]; ``reference`` comes from `remember`."""

    def subjects(self, names: Sequence[str]) -> dict[str, Subject]:
        """Return the possible subjects of a heat map by name: by default each output."""
        rivals = tuple(range(len(names))) if self.competing else ()
        return {name: Subject((number,), rivals) for number, name in enumerate(names)}

    def explained(self, decision: np.ndarray, names: Sequence[str]) -> list[str]:
        """Return the names of the subjects of a decision [...], the main one first."""
        return list(names)

    def confidences(self, decisions: np.ndarray) -> np.ndarray | None:
        """Return the probability [N,K] of each name; None if outputs are not probabilities."""
        return None

    def remember(self, decisions: np.ndarray, targets: Targets) -> dict[str, np.ndarray]:
        """Return the arrays about the validation images that a model stores."""
        return {}

    def decided(self, decisions: np.ndarray, names: Sequence[str]) -> list[str]:
        """Return each decision as the text of a target; only for `discrete` tasks."""
        raise NotImplementedError

    def tensor_specs(self, names: Sequence[str]) -> list[TensorSpec]:
        """Return the outputs of the Open Inference Protocol."""
        return [TensorSpec("answer", "BYTES")]

    def tensors(self, answers: Sequence[Answer], names: Sequence[str]) -> dict[str, list[Any]]:
        """Return the flat data of each output; the answers contain all names."""
        return {"answer": [answer.text for answer in answers]}

    def drift(
        self, answers: Sequence[Answer], names: Sequence[str], reference: Arrays
    ) -> dict[str, float]:
        """Return how far recent answers are from those on the validation images, by index.

        Predicted names are compared with the ``shares`` of ``reference``, if it has them.
        """
        votes = Counter(name for answer in answers for name in answer.categories)
        if "shares" not in reference or not votes:
            return {}
        shares = np.array([votes[name] for name in names]) / votes.total()
        return {"classes": stability_index(shares, reference["shares"])}

    def rankings(
        self, answers: Sequence[Answer], names: Sequence[str], count: int
    ) -> dict[str, list[list[str]]]:
        """Return the ``count`` best names of each answer, for outputs that can be ranked.

        Each is `value:index:name`, as in the classification extension of Triton.
        """
        return {}

    # Evaluation

    @abstractmethod
    def metrics(self, decisions: np.ndarray, targets: Targets) -> dict[str, float]:
        """Return the test metrics, the main one first."""

    def errors(self, decisions: np.ndarray, targets: Targets) -> np.ndarray | None:
        """Return how wrong the decision on each image is, float64[N]; None if unknown."""
        return None

    def uncertainty(self, decisions: np.ndarray) -> np.ndarray | None:
        """Return how uncertain each decision is, float64[N] from 0 to 1; None if unknown."""
        return None

    def contradiction(self, decisions: np.ndarray, targets: Targets) -> np.ndarray | None:
        """Return how strongly each decision contradicts the target, float64[N]; 0 if it agrees.

        Only the order matters; None if the task cannot say.
        """
        return self.errors(decisions, targets)

    def read_uncertainty(self, row: Mapping[str, Any]) -> float | None:
        """Return the `uncertainty` of an answer's `columns`, maybe approximate; None if unknown."""
        return None

    def expected_scores(self, answers: Sequence[Answer]) -> np.ndarray | None:
        """Return the calibrated probability that each answer is right, float64[N].

        The mean is the expected accuracy. None: the task has no such probability.
        """
        return None

    feedback_metric: ClassVar[str] = "accuracy"
    """The meaning of the mean of `judge`; unless it is the accuracy, values may be any number."""

    def answer_text(self, row: Mapping[str, Any]) -> str:
        """Return the decision of an answer's `columns` as a text."""
        return str(row.get("label") or "")

    def judge(self, row: Mapping[str, Any], label: str) -> float:
        """Return 1 if an answer's `columns` are right, and 0 if the true label is another.

        Raises:
            DataError: ``label`` does not fit this task, or the task takes no feedback.
        """
        raise DataError(f"the task `{self.name}` takes no feedback")

    def check_promises(self, answers: Sequence[Answer], targets: Targets) -> dict[str, float]:
        """Return metrics of the promises in answers, such as the coverage of sets."""
        return {}

    def report(self, evidence: Evidence, metrics: Mapping[str, float], root: Path) -> Report:
        """Return the report of the evaluation; image paths are relative to ``root``."""
        table = markdown_table(("measure", "value"), list_metrics(metrics))
        lines = ["# Evaluation on the test split", "", *table]
        counts = [(name, len(evidence.targets)) for name in evidence.targets.names]
        return Report("\n".join(lines) + "\n", [("name", "images"), *counts])

    @abstractmethod
    def prediction_rows(self, evidence: Evidence) -> list[Sequence[object]]:
        """Return the rows of predictions.csv, its header first."""

    @abstractmethod
    def compare(
        self,
        champion: np.ndarray,
        challenger: np.ndarray,
        targets: Targets,
        *,
        metric: str,
        rule: str,
        min_gain: float,
    ) -> Comparison:
        """Compare the decisions of two models on the same images; see `decide_gate`."""

    def describe(self, names: Sequence[str]) -> str:
        """Return one sentence about the model's function, for its card."""
        return f"Predicts {', '.join(map(escape_markdown, names))} of an image."

    def describe_quality(
        self,
        metrics: Mapping[str, float],
        rows: Sequence[Mapping[str, str]],
        unknown_share: float,
    ) -> list[str]:
        """Return the lines of the model card about the quality of the model.

        ``rows`` are those of `Report`, read from the file.
        """
        name = self.headline
        value = show_metric(name, metrics[name])
        return [f"- The {name_metric(name)} is {value} on {metrics['n_test']} test images."]

    def describe_limits(self, unknown_share: float) -> list[str]:
        """Return the lines of the model card about the limits of the answers."""
        return []
