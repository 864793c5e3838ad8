"""Each key of params.yaml reaches its stage and changes what that stage makes."""

import functools
import io
import json
import shutil

import numpy as np
import pytest
import timm
from PIL import Image

from rootstock.config.paths import Paths
from rootstock.data.duplicates import group_duplicates, thumbnail
from rootstock.data.manifest import Manifest
from rootstock.errors import BackboneError, DataError
from rootstock.features import reader
from rootstock.model.predictor import Predictor
from rootstock.plan.transfer_plan import Race
from rootstock.ports.runs import NullRunLogger
from rootstock.ports.search import SequentialSearcher
from rootstock.review.record import DataReview
from rootstock.tasks.single_label.measures import log_loss, softmax
from rootstock.training.objectives import FinetuneObjective
from rootstock.workflow import index, plan
from rootstock.workflow.assess import assess_data
from rootstock.workflow.evaluate import evaluate_model
from rootstock.workflow.features import cache_features
from rootstock.workflow.plan import make_plan
from rootstock.workflow.register import register_model
from rootstock.workflow.train import train_model
from tests.data.folders import photo, write_classes
from tests.folder_registry import FolderRegistry, alter_bundle
from tests.workflow.test_run import configure

pytestmark = pytest.mark.integration

COUNTS = {"ants": 40, "bees": 40, "wasps": 12}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_classes(tmp_path_factory.mktemp("data") / "insects", COUNTS)


# Stage index


def indexed(root, *overrides):
    """Return the manifest of a folder, made with changed settings."""
    out = root.parent / "-".join(["out", *overrides]).replace("/", "")
    return index.index_images(configure(root, *overrides), Paths(out))


@pytest.fixture(scope="module")
def usual(data):
    return indexed(data)


def share(manifest, split):
    return len(manifest.rows(split)) / len(manifest.rows())


@pytest.mark.parametrize("split", ["val", "test"])
def test_fractions_say_how_many_images_are_split_off(data, usual, split):
    assert share(usual, split) == pytest.approx(0.15, abs=0.1)
    assert share(indexed(data, f"data.{split}_fraction=0.5"), split) == pytest.approx(0.5, abs=0.12)


def test_the_layout_says_what_the_folders_are(tmp_path):
    root = write_classes(tmp_path / "images", {"ants": 6, "bees": 6, "test": 6})
    with pytest.raises(DataError, match="is ambiguous"):
        indexed(root)
    assert indexed(root, "data.layout=classes").strata == ["ants", "bees", "test"]


def test_another_seed_splits_other_images_off(data, usual):
    assert indexed(data, "seed=1").rows("test") != usual.rows("test")


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("max_bytes=12000", "too-large"),
        ("max_pixels=4000", "too-many-pixels"),
        ("max_aspect_ratio=1.5", "aspect-ratio"),
    ],
)
def test_an_image_over_a_limit_is_quarantined(tmp_path, setting, reason):
    root = write_classes(tmp_path / "images", {"ants": 6, "bees": 6})
    wide = photo(99, side=200)
    (root / "ants/wide.png").write_bytes(crop(wide, 200, 100))
    assert not indexed(root).quarantined
    (row,) = indexed(root, f"data.{setting}").quarantined
    assert row.path == "ants/wide.png"
    assert row.quarantine == reason


def test_truncated_file_is_used_if_set(tmp_path):
    root = write_classes(tmp_path / "images", {"ants": 6, "bees": 6})
    whole = photo(99)
    (root / "ants/cut.png").write_bytes(whole[: len(whole) // 2])
    assert [row.quarantine for row in indexed(root).quarantined] == ["truncated"]
    manifest = indexed(root, "data.truncated=use")
    assert not manifest.quarantined
    assert manifest.limits.truncated == "use"


def crop(content, width, height):
    buffer = io.BytesIO()
    Image.open(io.BytesIO(content)).crop((0, 0, width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def test_near_duplicate_bits_follow_the_setting(tmp_path):
    root = write_classes(tmp_path / "images", {"ants": 6, "bees": 6})
    pair = near_pair()
    for number, content in enumerate(pair):
        (root / f"ants/near-{number}.png").write_bytes(content)

    def is_one_group(bits):
        manifest = indexed(root, f"data.near_duplicate_bits={bits}")
        first, second = (row.group for row in manifest.images if "near" in row.path)
        return first == second

    assert is_one_group(16)
    assert not is_one_group(0)


def near_pair():
    """Return two pictures that are near duplicates but have different hashes."""
    base = np.asarray(Image.open(io.BytesIO(photo(7)))).astype(int)
    for seed in range(100):
        noise = np.random.default_rng(seed).integers(-6, 7, base.shape)
        other = Image.fromarray((base + noise).clip(0, 255).astype(np.uint8))
        buffer = io.BytesIO()
        other.save(buffer, "PNG")
        pair = [photo(7), buffer.getvalue()]
        thumbs = [thumbnail(Image.open(io.BytesIO(one)).convert("L")) for one in pair]
        exact, near = (group_duplicates(["a", "b"], thumbs, bits=bits) for bits in (0, 16))
        if exact[0] != exact[1] and near[0] == near[1]:
            return pair
    raise AssertionError("no seed gives such a pair")


def test_class_of_fewer_images_than_least_is_error(data):
    with pytest.raises(DataError, match="wasps"):
        indexed(data, "data.min_per_class=13")


@pytest.mark.parametrize(("workers", "number"), [("3", 3), ("auto", 7)])
def test_index_process_count_follows_the_setting(data, monkeypatch, workers, number):
    class NotedError(Exception):
        pass

    def note(*_, workers, **__):
        raise NotedError(workers)

    monkeypatch.setattr(index, "usable_cores", lambda: 7)
    monkeypatch.setattr(index, "build_manifest", note)
    with pytest.raises(NotedError, match=str(number)):
        indexed(data, f"data.workers={workers}")


# Stage assess


@pytest.fixture(scope="module")
def assess(data, tmp_path_factory):
    """Run the stages index and assess; return the profile and review."""

    @functools.cache
    def run(*overrides):
        paths = Paths(tmp_path_factory.mktemp("assess"))
        config = configure(data, *overrides)
        index.index_images(config, paths)
        return assess_data(config, paths), DataReview.read(paths.review)

    return run


SMALL_BELOW = "assess.small_below=20"
MEDIUM = (SMALL_BELOW, "assess.probe_folds=5")
LARGE = (
    SMALL_BELOW,
    "assess.large_from=30",
    "assess.sample=25",
    "assess.review_images=30",
    "assess.target_accuracy=0.77",
    "assess.similar_from=0.0",
)
FEW_OF_A_CLASS = (SMALL_BELOW, "assess.small_per_class_below=60")


def test_probe_image_count_follows_the_setting(assess):
    usual, other = (assess(*overrides)[0].probes[-1] for overrides in ((), LARGE))
    assert usual.n_images > 50
    assert 20 <= other.n_images <= 30


def test_probe_fold_count_follows_the_setting(assess):
    usual, other = (assess(*overrides)[0] for overrides in ((), MEDIUM))
    assert [probe.n_images for probe in usual.probes] == [probe.n_images for probe in other.probes]
    assert usual.probes != other.probes


def test_review_uses_image_count_and_target(assess):
    usual, other = (assess(*overrides)[1] for overrides in ((), LARGE))
    assert usual.n_reviewed == sum(COUNTS.values())
    assert 28 <= other.n_reviewed <= 33
    assert [target.accuracy for target in usual.feasibility.targets] == [0.9, 0.95, 0.99]
    assert [target.accuracy for target in other.feasibility.targets] == [0.77]


def test_similarity_begins_where_the_setting_says(assess):
    usual, other = (assess(*overrides)[0].similarity for overrides in ((), LARGE))
    assert usual.score == other.score < 0.5
    assert (usual.similar, other.similar) == (False, True)


@pytest.mark.parametrize(
    ("overrides", "size"),
    [((), "small"), (MEDIUM, "medium"), (LARGE, "large"), (FEW_OF_A_CLASS, "small")],
)
def test_the_borders_of_the_sizes_are_settings(assess, overrides, size):
    assert assess(*overrides)[0].size_class == size


def test_the_backbone_is_the_one_that_is_named(assess, monkeypatch):
    assert assess()[0].backbone.name == "tiny"
    # As if the hub had answered before; without weights, because only the name counts
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: "here")
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **options: create(name))
    profile, _ = assess("backbone.weights=hub", "backbone.name=test_resnet.r160_in1k")
    assert (profile.backbone.weights, profile.backbone.name) == ("hub", "test_resnet.r160_in1k")


@pytest.mark.parametrize("stage", [assess_data, cache_features])
def test_features_are_computed_on_device_that_is_named(project, stage):
    with pytest.raises(BackboneError, match="unknown device 'abacus'"):
        stage(project.configure("features.device=abacus"), project.paths)


def test_features_use_batch_size_and_store(project, monkeypatch):
    sizes = []

    def note(*arguments, batch_size, real=reader.prepared_batches, **options):
        sizes.append(batch_size)
        return real(*arguments, batch_size=batch_size, **options)

    monkeypatch.setattr(reader, "prepared_batches", note)
    report = cache_features(
        project.configure("features.store=elsewhere", "features.batch_size=5"), project.paths
    )
    assert report.computed == len(project.rows("train")) + len(project.rows("val"))
    assert set(sizes) == {5}
    assert any((project.paths.root / "elsewhere").rglob("*.safetensors"))


# Stage plan


class Project:
    """A finished run of all stages except `register`, to be repeated with other settings."""

    def __init__(self, data, root):
        self.data, self.paths = data, Paths(root)

    def configure(self, *overrides):
        return configure(self.data, *overrides)

    def plan(self, *overrides):
        return make_plan(self.configure(*overrides), self.paths, searcher=SequentialSearcher())

    def train(self, *overrides, searcher=None):
        config = self.configure(*overrides)
        make_plan(config, self.paths, searcher=SequentialSearcher())
        cache_features(config, self.paths)
        return train_model(
            config, self.paths, runs=NullRunLogger(), searcher=searcher or SequentialSearcher()
        )

    def rows(self, split):
        return Manifest.read(self.paths.manifest).rows(split)


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    project = Project(data, tmp_path_factory.mktemp("finished"))
    index.index_images(project.configure(), project.paths)
    assess_data(project.configure(), project.paths)
    project.train("plan.strategy=linear_probe")
    evaluate_model(project.configure(), project.paths, runs=NullRunLogger())
    return project


@pytest.fixture
def project(finished, tmp_path):
    return Project(finished.data, shutil.copytree(finished.paths.root, tmp_path / "project"))


TUNED = "plan.strategy=partial_finetune"


@pytest.mark.parametrize(
    ("setting", "field", "value"),
    [
        ("plan.strategy=full_finetune", "strategy", "full_finetune"),
        ("plan.input_size=96", "input_size", 96),
        ("plan.tap=last", "taps", ("last",)),
        ("train.l2_grid=[0.5, 5.0]", "strengths", [0.5, 5.0]),
        ("plan.budget.minutes=77", "budget_minutes", 77),
        (f"{TUNED} plan.augmentation=strong", "finetune.augmentation", "strong"),
        (f"{TUNED} plan.augmentation=none", "finetune.augmentation", "none"),
        (f"{TUNED} plan.flip=false", "finetune.flip", False),
        (f"{TUNED} plan.flip=true", "finetune.flip", True),
        (f"{TUNED} plan.freeze_through=block1", "finetune.freeze_through", "block1"),
        (f"{TUNED} plan.freeze_through=last", "finetune.freeze_through", "last"),
        (
            "quality=best plan.strategy=full_finetune train.learning_rates=[0.1]",
            "rates",
            [0.1],
        ),
        (f"{TUNED} train.epochs=9", "finetune.epochs", 9),
        (f"{TUNED} train.learning_rates=[0.2, 0.1]", "rates", [0.2, 0.1]),
    ],
)
def test_a_pinned_choice_is_that_of_the_plan(project, setting, field, value):
    made = project.plan("plan.strategy=early_features", *split_settings(setting))
    facts = made.model_dump() | {
        "strengths": made.head_candidates[0]["strengths"],
        "rates": [trial["learning_rate"] for trial in made.finetune_candidates],
    }
    section, _, name = field.partition(".")
    assert (facts[section][name] if name else facts[section]) == value


def split_settings(text):
    """Settings with a space between two."""
    return text.replace(", ", ",").split()


def test_shares_set_the_expected_fine_tuning_gain(project):
    def expected(*overrides):
        (one,) = [c for c in project.plan(*overrides).candidates if c.strategy == "full_finetune"]
        return one.expected_accuracy

    low, high = expected("plan.shares={small: [0.5, 0.9], medium: [0, 0], large: [0, 0]}")
    usual = expected()
    assert low > usual[0]
    assert high > usual[1]


@pytest.mark.parametrize(("setting", "races"), [("auto", 1), ("never", 0)])
def test_doubt_is_raced_unless_setting_forbids_it(project, monkeypatch, setting, races):
    ran = []

    def note(race, _):
        ran.append(race.contest)
        return Race(heats=(), winner=race.contest[1], why="noted.")

    monkeypatch.setattr(plan.StrategyRace, "run", note)
    made = project.plan(f"plan.race={setting}")
    assert len(ran) == races
    assert (made.strategy == ran[0][1]) if ran else made.race is None


@pytest.mark.parametrize("setting", ["plan.max_params=10", "plan.max_latency_ms=0.000001"])
def test_a_backbone_over_a_limit_is_rejected(project, setting):
    project.plan()
    with pytest.raises(BackboneError):
        project.plan(setting)


def test_run_is_added_to_ledger_that_is_named(project):
    config = project.configure("plan.ledger=shared/all.jsonl")
    evaluate_model(config, project.paths, runs=NullRunLogger())
    assert len((project.paths.root / "shared/all.jsonl").read_text().splitlines()) == 1


# Stage train


class HandedOverError(Exception):
    """Ends a training run as soon as the objective of its fine-tuning is known."""


class NotingSearcher(SequentialSearcher):
    def search(self, objective, candidates, **options):
        if isinstance(objective, FinetuneObjective):
            raise HandedOverError(objective)
        return super().search(objective, candidates, **options)


def handed_over(project, *overrides):
    """Return the objective that a training run with these settings would fine-tune."""
    with pytest.raises(HandedOverError) as caught:
        project.train(TUNED, *overrides, searcher=NotingSearcher())
    return caught.value.args[0]


SETTINGS = {
    "ema_decay": 0.9,
    "label_smoothing": 0.2,
    "cutmix": 0.7,
    "mixup": 0.3,
    "weight_decay": 0.2,
    "batch_size": 7,
    "patience": 2,
    "optimizer": "sgd",
    "micro_batch": 3,
    "recompute": True,
    "epochs": 6,
}
"""Keys of the section `train` that are settings of the fine-tuning under the same name."""


@pytest.fixture(scope="module")
def objectives(finished, tmp_path_factory):
    """Return the default objective, and the one with all of `SETTINGS`."""
    root = shutil.copytree(finished.paths.root, tmp_path_factory.mktemp("handed") / "project")
    project = Project(finished.data, root)
    changed = [f"train.{key}={json.dumps(value)}" for key, value in SETTINGS.items()]
    planned = ["plan.augmentation=strong", "plan.flip=false", "plan.freeze_through=block1"]
    others = ["search.workers_per_trial=2", "seed=5", "train.device=cpu"]
    return handed_over(project), handed_over(project, *changed, *planned, *others)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_of_fine_tuning_is_handed_over(objectives, name):
    usual, other = (getattr(objective.settings, name) for objective in objectives)
    assert other == SETTINGS[name]
    assert usual != other


@pytest.mark.parametrize(
    ("name", "value"),
    [("augmentation", "strong"), ("flip", False), ("freeze_through", "block1"), ("seed", 5)],
)
def test_what_the_plan_chose_is_handed_over(objectives, name, value):
    usual, other = (getattr(objective.settings, name) for objective in objectives)
    assert other == value
    assert usual != other


def test_workers_and_device_of_trial_are_handed_over(objectives):
    usual, other = objectives
    assert (usual.workers, other.workers) == (1, 2)
    assert (usual.device, other.device) == ("auto", "cpu")


@pytest.mark.parametrize("weight", ["balanced", "balanced_sampling", "logit_adjusted"])
def test_class_weight_is_handed_over_to_fine_tuning(objectives, project, weight):
    settings = handed_over(project, f"train.class_weight={weight}").settings
    assert settings.weighting == weight
    assert objectives[0].settings.weighting == "none"


def test_training_runs_on_the_device_that_is_named(project):
    with pytest.raises(BackboneError, match="unknown device 'abacus'"):
        train_model(
            project.configure("train.device=abacus"),
            project.paths,
            runs=NullRunLogger(),
            searcher=SequentialSearcher(),
        )


HEAD = ("plan.strategy=linear_probe", "train.l2_grid=[1.0]")


@pytest.mark.parametrize("weight", ["balanced", "balanced_sampling", "logit_adjusted"])
def test_class_weight_lifts_rare_class_of_head(project, weight):
    images = [(project.data / row.path).read_bytes() for row in project.rows("train")]

    def rare_share(*overrides):
        predictor = Predictor(project.train(*HEAD, *overrides))
        prepared = np.concatenate([predictor.prepare(image) for image in images])
        logits = predictor.outputs(predictor.bundle.preprocess.normalise(prepared))
        return softmax(logits)[:, predictor.names.index("wasps")].mean()

    assert rare_share(f"train.class_weight={weight}") > 1.2 * rare_share()


def test_temperature_fits_images_unseen_by_head(project):
    """A head that memorizes its training images is far too confident about others."""
    bundle = project.train("plan.strategy=linear_probe", "train.l2_grid=[0.0001]")
    predictor, rows = Predictor(bundle), project.rows("test")
    labels = np.array([predictor.names.index(row.target) for row in rows])
    prepared = [predictor.prepare((project.data / row.path).read_bytes()) for row in rows]
    calibrated = predictor.infer(prepared).decisions

    def loss(power):
        scaled = calibrated.astype(float) ** power
        return log_loss(scaled / scaled.sum(axis=1, keepdims=True), labels)

    assert bundle.facts.calibration["temperature"] > 1.2
    assert loss(1.0) < 0.9 * loss(
        bundle.facts.calibration["temperature"]
    )  # as the head itself answers


def test_bundle_keeps_the_share_of_unknown(project):
    assert project.train(*HEAD, "train.unknown_share=0.07").facts.unknown_share == 0.07


# Stage register


def register(project, registry, *overrides):
    config = project.configure(*overrides)
    return register_model(config, project.paths, runs=NullRunLogger(), registry=registry)


def test_card_has_licence_and_source_of_images(project, tmp_path):
    register(project, None, "data.licence=CC0", "data.source=a meadow in June")
    text = project.paths.model_card.read_text()
    assert "Source of the images: a meadow in June. Licence of the images: CC0." in text


def test_version_is_registered_under_name_that_is_given(project, tmp_path):
    registry = FolderRegistry(tmp_path / "registry")
    outcome = register(project, registry, "registry.name=insects")
    assert outcome["name"] == "insects"
    assert registry.find("insects", alias="champion").version == "1"


@pytest.mark.parametrize("metric", ["balanced_accuracy", "macro_f1"])
def test_gate_compares_by_metric_that_is_given(project, tmp_path, metric):
    registry = FolderRegistry(tmp_path / "registry")
    register(project, registry)
    alter_bundle(project.paths.model)
    outcome = register(project, registry, f"registry.gate.metric={metric}")
    assert outcome["comparison"]["metric"] == metric
