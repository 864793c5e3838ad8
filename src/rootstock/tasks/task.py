"""Task: what a target is, and all that follows from it.

Everything outside of `rootstock.tasks` works with any task: it hands over texts, targets, outputs
and decisions, and reads names, strata, metrics and answers. Needs numpy only, since a service loads
it; what needs torch is behind `Task.head`, `Task.loss` and `Task.average`.

    text      a target as the manifest holds it, one per image
    targets   the texts of N images, parsed (`Targets`)
    outputs   float32[N,K], what the network gives
    decisions [N,...], what calibrated outputs mean, such as probabilities
    answer    the decision on one image, for people and programs (`Answer`)
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
from rootstock.tasks.targets import Targets

if TYPE_CHECKING:
    import torch

    from rootstock.data.columns import Columns
    from rootstock.tasks.learning import HeadSolver, TargetLoss

Calibration = Mapping[str, Any]
"""What turns outputs into decisions, as JSON holds it; fitted on the validation images."""
Arrays = Mapping[str, np.ndarray]
"""What a model keeps of its validation images, for prediction sets and drift."""


Editor = Literal["choice", "toggles", "numbers", "box", "mask", "text"]
DEFAULT_THRESHOLD = "f1"
"""The default of `task.threshold`; a task without thresholds ignores it."""
PICTURE_FOLDER = "plots/evaluation"
"""Where the pictures of a `Report` are, relative to its text."""


class AnswerOptions(NamedTuple):
    """What a request may ask for; a task ignores what has no meaning for it."""

    top_k: int = 5
    """How many names an answer holds at most."""
    coverage: float | None = None
    """Also give the set or interval that holds the truth in this share of cases."""
    neighbours: int = 0
    """Also name this many of the nearest training images."""
    size: tuple[int, int] = (1, 1)
    """Width and height in pixels of the upright image that is answered."""


class Doubt(NamedTuple):
    """An image whose target looks wrong."""

    row: int
    suggested: str
    confidence: float


class Subject(NamedTuple):
    """What a heat map can be asked about: the numbers of one or several outputs.

    What counts of an output is its distance to the mean of its ``rivals``, if it has any.
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
    """A picture of a report: its file name and the function that draws it to a path."""

    name: str
    draw: Callable[[Path], None]


@dataclass(frozen=True)
class Report:
    """What the evaluation shows for people.

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
    """Of a table, beside `path`; several are joined into one text as a JSON list."""
    in_folders: ClassVar[bool] = False
    """Whether the name of a class folder is a target."""
    discrete: ClassVar[bool] = False
    """Whether an answer is either right or wrong, so that two models can be compared by image."""
    competing: ClassVar[bool] = False
    """Whether only the differences of outputs count, as in a softmax."""
    weightings: ClassVar[tuple[str, ...]] = ("none",)
    """Values of `train.class_weight` that the loss knows."""
    gate_metrics: ClassVar[tuple[str, ...]]
    """Metrics that the gate can compare; the first is the headline of every report."""
    lower_is_better: ClassVar[frozenset[str]] = frozenset()
    """Those of the gate's metrics that are errors."""
    spatial: ClassVar[bool] = False
    """Whether a target has a place in the image: the whole image is seen, and the target moves with
    every crop; outputs of several views are not averaged, nor targets mixed."""
    editor: ClassVar[Editor] = "text"
    """How a person gives a target: one name, any number of names, numbers, or a name and a box.

    Masks are shown, and drawn in other tools.
    """
    averages_networks: ClassVar[bool] = False
    """Whether `average` is there: what several networks say can be averaged."""
    output_grid: ClassVar[int] = 0
    """Positions along each side of an image that have outputs; 0: outputs are of whole images."""
    selection: ClassVar[str] = "val_loss"
    """The validation metric that trials are chosen by; lower is better."""

    @property
    def headline(self) -> str:
        """The metric that comes first in every report."""
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
        """The headline of the validation images."""
        return f"val_{self.headline}"

    @property
    def val_score(self) -> str:
        """The score of the validation images."""
        return f"val_{self.score}"

    # Data

    def recognise(self, root: Path, columns: Columns | None) -> str:
        """Return what shows that data is of this task, in a few words; empty if nothing does.

        ``columns`` are those of a table; None for a folder. The tasks are asked in the order of
        their registration.
        """
        if columns is None:
            return "class folders" if self.in_folders and root.is_dir() else ""
        names = self.find_columns(columns)
        return f"the column{'s' if names[1:] else ''} {list_names(names)}" if names else ""

    def find_columns(self, columns: Columns) -> tuple[str, ...]:
        """Return the names of a table's columns that hold the target; none if it has none.

        Raises:
            DataError: the columns are those of this task, and wrong.
        """
        return PlainReader(self.columns).find_columns(columns)

    def read_cells(self, columns: Columns, names: Sequence[str]) -> list[str]:
        """Return the target of each row as a text; those of several columns as a JSON list.

        Raises:
            DataError: says which row is wrong; an empty text is refused afterwards.
        """
        return columns.join(names)

    @abstractmethod
    def read_names(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Return what the outputs are called, from the texts of all usable images."""

    @abstractmethod
    def parse(self, texts: Sequence[str], names: Sequence[str]) -> np.ndarray:
        """Return the values [N,...] of texts that `check` accepted.

        Raises:
            DataError: a text names what is not among ``names``.
        """

    @abstractmethod
    def strata(self, texts: Sequence[str]) -> list[str]:
        """Return the stratum of each text; splits, folds and samples keep the strata's shares."""

    def balance(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        """Return what splits keep the shares of, for each text; its stratum by default."""
        return [(stratum,) for stratum in self.strata(texts)]

    def measure_units(self, values: np.ndarray) -> np.ndarray | None:
        """Return the `Targets.units` of training values [N,...]; None if there are none."""
        return None

    def caption(self, text: str) -> str:
        """Return a target for people."""
        return text

    def check_texts(self, root: Path, texts: Sequence[str]) -> None:
        """Refuse targets that cannot be read, before any image is decoded.

        Raises:
            DataError: says which text of ``root`` is wrong, and what it may be.
        """

    def settle(
        self, root: Path, texts: Sequence[str], paths: Sequence[str], sizes: np.ndarray
    ) -> Settled:
        """Return the texts of usable images as the manifest keeps them.

        ``paths`` are relative to the folder ``root``; ``sizes`` int[N,2] are width and height of
        the upright images.
        Raises:
            DataError: a target does not fit its image.
        """
        return Settled(list(texts), [])

    def correct(self, old: str, new: str) -> str:
        """Return ``new``, given by a person in place of the text ``old``, as the manifest keeps it.

        ``old`` is empty if the image had no target.
        Raises:
            DataError: it is not a target.
        """
        self.check_texts(Path(), [new])
        return new

    def annotate(self, text: str) -> Annotation:
        """Return a text of the manifest as tools for labelling write it."""
        raise DataError(f"the task `{self.name}` has no form of its labels for other tools")

    def read_annotation(self, annotation: Annotation) -> str:
        """Return the inverse of `annotate`.

        Raises:
            DataError: it is not an annotation of this task.
        """
        raise DataError(f"the task `{self.name}` reads no labels of other tools")

    def check(self, root: Path, texts: Sequence[str], listed: Sequence[str], least: int) -> None:
        """Refuse targets that cannot be learnt from.

        ``texts`` are those of the usable images of ``root``, ``listed`` those of all;
        ``least`` is how many images a stratum needs.
        Raises:
            DataError: says what is wrong and what to do.
        """

    def warn(self, texts: Sequence[str]) -> list[str]:
        """Return what looks odd about the texts of all listed images."""
        return []

    def check_splits(self, root: Path, strata: Sequence[str], splits: Sequence[str]) -> list[str]:
        """Return warnings about how the strata fell into the splits.

        Raises:
            DataError: nothing can be learnt from this training split.
        """
        return []

    def width(self, names: Sequence[str]) -> int:
        """Return how many outputs K a network has: one for each name."""
        return len(names)

    def read_tap(self, depth: str, taps: Sequence[str]) -> str:
        """Return the tap that a head reads at ``depth``: maps besides, such as `block5@7+last`.

        ``taps`` are those of the backbone, shallow to deep; the last has no map.
        """
        return depth

    def probe_tap(self, depth: str, taps: Sequence[str]) -> str:
        """Return the tap that a probe of ``depth`` reads; empty: the depth, pooled."""
        return ""

    def open_folder(self, root: Path, *, need_train: bool) -> FolderSource | None:
        """Return what lists the images of a folder and their targets, in the task's own way.

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
        """Refuse a `task.threshold` that means nothing to this task.

        Raises:
            ConfigError: says what it may be.
        """
        if wish != DEFAULT_THRESHOLD:
            raise ConfigError(
                f"task.threshold is {wish!r}, and the task `{self.name}` has no thresholds",
                hint=f"leave it at {DEFAULT_THRESHOLD}",
            )

    def read_units(self, calibration: Calibration) -> np.ndarray | None:
        """Return the `Targets.units` that a model's outputs are in; None if there are none."""
        return None

    def choose_thresholds(
        self, outputs: np.ndarray, targets: Targets, calibration: Calibration, wish: str
    ) -> Calibration:
        """Return the calibration with the thresholds that ``wish`` asks for, if it has any."""
        return calibration

    def find_fault(self, names: Sequence[str], calibration: Calibration) -> str:
        """Return what is wrong with the facts of a model directory; empty if nothing is."""
        return ""

    def describe_calibration(
        self, outputs: np.ndarray, targets: Targets, calibration: Calibration
    ) -> dict[str, float]:
        """Return the validation metrics that a trained model is recorded with."""
        return self.validate(outputs, targets)

    def doubts(
        self, features: np.ndarray, targets: Targets, *, folds: int, seed: int
    ) -> list[Doubt]:
        """Return the images whose targets look wrong, the surest doubts first."""
        return []

    def neighbour_score(self, features: np.ndarray, targets: Targets) -> float | None:
        """Return how well the nearest neighbours predict; None where that has no meaning."""
        return None

    def score_bound(self, features: np.ndarray, targets: Targets) -> float:
        """Return a score that no head on these features [N,C] is expected to pass."""
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
        """Return the answer for one decision [...]; ``reference`` is what `remember` returned."""

    def subjects(self, names: Sequence[str]) -> dict[str, Subject]:
        """Return by name what a heat map can be asked about: each output by default."""
        rivals = tuple(range(len(names))) if self.competing else ()
        return {name: Subject((number,), rivals) for number, name in enumerate(names)}

    def explained(self, decision: np.ndarray, names: Sequence[str]) -> list[str]:
        """Return the names of the subjects that a decision [...] is about, the main one first."""
        return list(names)

    def confidences(self, decisions: np.ndarray) -> np.ndarray | None:
        """Return the probability [N,K] of each name; None if outputs are not probabilities."""
        return None

    def remember(self, decisions: np.ndarray, targets: Targets) -> dict[str, np.ndarray]:
        """Return what a model keeps of its validation images."""
        return {}

    def decided(self, decisions: np.ndarray, names: Sequence[str]) -> list[str]:
        """Return what each decision says as the text of a target; for `discrete` tasks only."""
        raise NotImplementedError

    def tensor_specs(self, names: Sequence[str]) -> list[TensorSpec]:
        """Return the outputs of the Open Inference Protocol."""
        return [TensorSpec("answer", "BYTES")]

    def tensors(self, answers: Sequence[Answer], names: Sequence[str]) -> dict[str, list[Any]]:
        """Return the flat data of each output; the answers hold all names."""
        return {"answer": [answer.text for answer in answers]}

    def drift(
        self, answers: Sequence[Answer], names: Sequence[str], reference: Arrays
    ) -> dict[str, float]:
        """Return how far recent answers are from those of the validation images, by index.

        Names that are said are compared with the ``shares`` of ``reference``, if it has them.
        """
        votes = Counter(name for answer in answers for name in answer.categories)
        if "shares" not in reference or not votes:
            return {}
        shares = np.array([votes[name] for name in names]) / votes.total()
        return {"classes": stability_index(shares, reference["shares"])}

    def rankings(
        self, answers: Sequence[Answer], names: Sequence[str], count: int
    ) -> dict[str, list[list[str]]]:
        """Return the ``count`` best names of each answer, for the outputs that can be ranked.

        Each is `value:index:name`, as the classification extension of Triton has it.
        """
        return {}

    # Evaluation

    @abstractmethod
    def metrics(self, decisions: np.ndarray, targets: Targets) -> dict[str, float]:
        """Return the test metrics, the headline first."""

    def errors(self, decisions: np.ndarray, targets: Targets) -> np.ndarray | None:
        """Return how wrong the decision on each image is, float64[N]; None if that is unknown."""
        return None

    def uncertainty(self, decisions: np.ndarray) -> np.ndarray | None:
        """Return how unsure each decision is, float64[N] from 0 to 1; None if it does not say."""
        return None

    def contradiction(self, decisions: np.ndarray, targets: Targets) -> np.ndarray | None:
        """Return how strongly each decision speaks against the target, float64[N], 0 if it agrees.

        Only the order counts; None if the task cannot say.
        """
        return self.errors(decisions, targets)

    def read_uncertainty(self, row: Mapping[str, Any]) -> float | None:
        """Return the `uncertainty` of an answer's `columns`, or about that; None if unknown."""
        return None

    def expected_scores(self, answers: Sequence[Answer]) -> np.ndarray | None:
        """Return the calibrated probability that each answer is right, float64[N].

        Its mean is then the expected accuracy. None: the task has no such probability.
        """
        return None

    feedback_metric: ClassVar[str] = "accuracy"
    """What the mean of `judge` is; for another one than accuracy, a judgement may be any number."""

    def answer_text(self, row: Mapping[str, Any]) -> str:
        """Return the decision of an answer's `columns` as a text."""
        return str(row.get("label") or "")

    def judge(self, row: Mapping[str, Any], label: str) -> float:
        """Return 1 if an answer's `columns` are right, 0 if the true label is another.

        Raises:
            DataError: ``label`` is not one of this task, or it takes no feedback.
        """
        raise DataError(f"the task `{self.name}` takes no feedback")

    def check_promises(self, answers: Sequence[Answer], targets: Targets) -> dict[str, float]:
        """Return metrics of what the answers promised, such as the coverage of sets."""
        return {}

    def report(self, evidence: Evidence, metrics: Mapping[str, float], root: Path) -> Report:
        """Return the evaluation for people; ``root`` is the folder of the images' paths."""
        rows = [(name.replace("_", " "), f"{value:g}") for name, value in metrics.items()]
        lines = ["# Evaluation on the test split", "", *markdown_table(("measure", "value"), rows)]
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
        """Return what the model does in one sentence, for its card."""
        return f"Predicts {', '.join(map(escape_markdown, names))} of an image."

    def describe_quality(
        self,
        metrics: Mapping[str, float],
        rows: Sequence[Mapping[str, str]],
        unknown_share: float,
    ) -> list[str]:
        """Return the lines of the model card that say how good the model is.

        ``rows`` are those of `Report`, read back.
        """
        name = self.headline
        return [f"- {name.replace('_', ' ')}: {metrics[name]:.4g} on {metrics['n_test']} images."]

    def describe_limits(self, unknown_share: float) -> list[str]:
        """Return the lines of the model card that say what the answers do not cover."""
        return []
