"""The race on real images and a small network."""

import dataclasses
import json
import re
import shutil
from functools import partial

import numpy as np
import pytest

from rootstock.assess.profile import DatasetProfile
from rootstock.config.paths import Paths
from rootstock.errors import BackboneError
from rootstock.model.predictor import Predictor
from rootstock.plan.pins import Pins
from rootstock.plan.planner import make_transfer_plan
from rootstock.plan.transfer_plan import Evidence, Race
from rootstock.ports.runs import NullRunLogger
from rootstock.ports.search import SequentialSearcher, Trial
from rootstock.training.objectives import HeadObjective
from rootstock.training.selection import is_spoilt
from rootstock.training.throughput import known_throughput
from rootstock.workflow.assess import assess_data
from rootstock.workflow.estimates import trial_minutes
from rootstock.workflow.features import cache_features
from rootstock.workflow.forecast import plan_minutes
from rootstock.workflow.index import index_images
from rootstock.workflow.plan import make_plan
from rootstock.workflow.project import Project
from rootstock.workflow.race import StrategyRace
from rootstock.workflow.race_heat import _is_below, further_splits
from rootstock.workflow.train import train_model
from rootstock.workflow.training_job import open_job
from tests.bundles import tiny_backbone
from tests.data.folders import write_classes
from tests.workflow.test_run import configure

pytestmark = pytest.mark.integration

CONTEST = ("linear_probe", "partial_finetune")


@pytest.fixture(scope="module")
def assessed(tmp_path_factory):
    """A data set with 120 noisy images that leave the probes uncertain."""
    root = tmp_path_factory.mktemp("race")
    data = write_classes(root / "data", {"ants": 90, "bees": 90})
    config = configure(data)
    paths = Paths(root / "out")
    index_images(config, paths)
    assess_data(config, paths)
    return config, paths


@pytest.fixture(autouse=True)
def one_split(monkeypatch):
    """Make every lead count, although the validation images are few."""
    monkeypatch.setattr("rootstock.plan.race_rules.SURE_VAL_IMAGES", 0)


def race(config, paths, searcher=None, **options):
    return open_race(config, paths, **options).run(searcher or SequentialSearcher())


def open_race(config, paths, *, seed=0, pins=None, **limits):
    project = Project(config, paths)
    return StrategyRace(
        contest=CONTEST,
        profile=DatasetProfile.read(paths.profile),
        pins=pins or Pins(),
        manifest=project.manifest,
        options=config.train,
        seed=seed,
        folder=paths.races,
        scratch=paths.heats,
        open_job=partial(open_job, project),
        **limits,
    )


def tuning_wins(heats):
    tuned = next(heat for heat in heats if heat.epochs)
    return Race(heats=tuple(heats), winner=tuned.strategy, why="for the test.")


class CountingSearcher(SequentialSearcher):
    def __init__(self):
        self.searches = 0

    def search(self, *arguments, **options):
        self.searches += 1
        return super().search(*arguments, **options)


class NotingSearcher(SequentialSearcher):
    """Stores the candidates of every fine-tuning search."""

    def __init__(self):
        self.tuned = []

    def search(self, objective, candidates, **options):
        if "learning_rate" in candidates[0]:
            self.tuned.append(list(candidates))
        return super().search(objective, candidates, **options)


def test_both_contenders_are_measured_and_outcome_is_kept(assessed):
    config, paths = assessed
    counting = CountingSearcher()
    first = race(config, paths, counting)
    ran = counting.searches
    assert {heat.strategy for heat in first.heats} == {"linear_probe", "partial_finetune"}
    assert ran >= 3  # a head, and a head with fine-tuning
    assert race(config, paths, counting) == first
    assert counting.searches == ran


def let_a_race_decide(monkeypatch):
    evidence = Evidence(
        ruled="linear_probe", choice="linear_probe", contest=CONTEST, why="a race decides."
    )
    monkeypatch.setattr("rootstock.workflow.plan.judge_profile", lambda *_, **__: evidence)


def test_plan_says_what_assessment_and_race_have_taken(assessed, monkeypatch):
    config, paths = assessed
    let_a_race_decide(monkeypatch)
    shutil.rmtree(paths.races, ignore_errors=True)
    for _ in range(2):  # the second time the outcome exists
        plan = make_plan(config, paths, searcher=SequentialSearcher())
        minutes = plan_minutes(paths.estimates, plan)
        assert minutes["race_minutes"] > 0
        assert minutes["assessment_minutes"] > 0
        report = (paths.reports / "plan.md").read_text()
        assert re.search(r"^\| race \| [\w. ]+ \| [\w. ]+ \|$", report, re.MULTILINE)
        assert "not measured" not in report


def test_expected_minutes_cover_the_planned_trials(assessed):
    config, paths = assessed
    profile, backbone = DatasetProfile.read(paths.profile), tiny_backbone()
    throughput = known_throughput(paths.paces, backbone, tuning_size=32)

    def minutes(**pins):
        plan = make_transfer_plan(profile, pins=Pins(**pins), l2_grid=(1.0,))
        return trial_minutes(throughput, profile, backbone, plan)

    one, two = (
        minutes(strategy="full_finetune", learning_rates=rates) for rates in ((1e-3,), (1e-3, 1e-4))
    )
    epoch = throughput.tuning_minutes(
        "full_finetune", n_train=profile.n_train, n_val=profile.n_val, epochs=15
    )
    assert two - one == pytest.approx(epoch)
    last, several = (minutes(strategy=name) for name in ("linear_probe", "early_features"))
    assert 0 < last < several < one


def test_expected_minutes_of_race_hold_further_splits(assessed, monkeypatch):
    config, paths = assessed
    throughput = known_throughput(paths.paces, tiny_backbone(), tuning_size=32)

    def minutes(budget=None):
        opened = open_race(config, paths, throughput=throughput, budget_minutes=budget)
        return opened.expected_minutes

    rounds = minutes()
    monkeypatch.setattr("rootstock.plan.race_rules.SURE_VAL_IMAGES", 60)
    assert rounds < minutes() < 3.1 * rounds  # two more splits, at one rate each
    assert minutes(budget=1.01 * rounds) == rounds


def test_training_reuses_a_race_on_all_images(assessed, monkeypatch):
    config, paths = assessed
    config = configure(paths.root.parent / "data", "plan.budget.minutes=100")
    for folder in (paths.races, paths.trials):
        shutil.rmtree(folder, ignore_errors=True)
    let_a_race_decide(monkeypatch)
    monkeypatch.setattr("rootstock.plan.race_rules.is_settled", lambda *_: False)
    monkeypatch.setattr("rootstock.workflow.race.decide", lambda heats, **_: tuning_wins(heats))
    plan = make_plan(config, paths, searcher=SequentialSearcher())
    assert plan.race.winner == plan.strategy == "partial_finetune"
    cache_features(config, paths)
    trained = []
    monkeypatch.setattr(
        "rootstock.training.objectives.finetune", lambda *_, **__: trained.append(1)
    )
    train_model(config, paths, runs=NullRunLogger(), searcher=SequentialSearcher())
    assert not trained
    assert not list(paths.trials.iterdir())  # the loser's are gone, too


def test_each_rate_is_tried_and_one_trained(assessed, monkeypatch):
    config, paths = assessed
    monkeypatch.setattr("rootstock.workflow.race_heat.ALL_RATES_MAX_IMAGES", 0)
    noting = NotingSearcher()
    tuned = race(config, paths, noting, seed=5).heats[-1]
    briefly, *in_full = noting.tuned
    assert briefly == [{"learning_rate": rate, "epochs": 2} for rate in (3e-4, 1e-3)]
    assert in_full[0] in ([{"learning_rate": 3e-4}], [{"learning_rate": 1e-3}])
    assert tuned.rates == (in_full[-1][0]["learning_rate"],)


def test_failed_fine_tuning_retries_at_lower_rate(assessed, monkeypatch):
    config, paths = assessed
    verdicts = iter([True, False])  # below the head at first, and no longer
    monkeypatch.setattr("rootstock.workflow.race_heat._is_below", lambda *_: next(verdicts))
    noting = NotingSearcher()
    tuned = race(config, paths, noting, seed=6).heats[-1]
    assert noting.tuned == [
        [{"learning_rate": 3e-4}, {"learning_rate": 1e-3}],
        [{"learning_rate": pytest.approx(1e-4)}],
    ]
    assert (tuned.rates, tuned.valid) == ((pytest.approx(1e-4),), True)


def test_heat_worse_than_its_head_is_invalid(assessed, monkeypatch):
    config, paths = assessed
    monkeypatch.setattr("rootstock.workflow.race_heat._is_below", lambda *_: True)
    outcome = race(config, paths, seed=7)
    assert not outcome.heats[-1].valid
    assert outcome.winner == "linear_probe"


def test_losses_above_start_count_beyond_noise():
    start = np.array([0.1, 0.2, 0.3, 0.4])
    assert _is_below(start + 0.1, start)
    assert not _is_below(start - 0.1, start)
    assert not _is_below(start + np.array([0.9, -0.5, 0.3, -0.4]), start)


def leave_a_doubt(monkeypatch):
    monkeypatch.setattr("rootstock.workflow.race.is_in_doubt", lambda _: True)
    monkeypatch.setattr("rootstock.workflow.race_heat._is_below", lambda *_: False)


def test_lead_on_few_images_needs_more_splits(assessed, monkeypatch):
    config, paths = assessed
    leave_a_doubt(monkeypatch)
    noting = NotingSearcher()
    outcome = race(config, paths, noting, seed=9)
    n_val = DatasetProfile.read(paths.profile).n_val
    head, tuned = outcome.heats[-2:]
    assert [heat.splits for heat in outcome.heats] == [1, 1, 3, 3]
    assert head.n_val == tuned.n_val >= 2.5 * n_val
    assert "validation images of 3 splits" in outcome.why
    at_all_rates, *again = noting.tuned
    assert len(at_all_rates) == 2
    assert len(again) == 2
    assert again[0] == again[1]  # at the rates that have won, and only at those
    assert {one["learning_rate"] for one in again[0]} <= {3e-4, 1e-3}


def test_no_further_split_is_trained_beyond_the_budget(assessed, monkeypatch):
    config, paths = assessed
    leave_a_doubt(monkeypatch)
    throughput = known_throughput(paths.paces, tiny_backbone(), tuning_size=32)
    limits = {"throughput": throughput, "budget_minutes": 1e-6}
    outcome = race(config, paths, seed=10, **limits)
    assert [heat.splits for heat in outcome.heats] == [1, 1]


def test_further_splits_share_no_images_or_groups(assessed):
    manifest = Project(*assessed).manifest
    pairs = [row._replace(group=number // 2) for number, row in enumerate(manifest.images)]
    grouped = dataclasses.replace(manifest, images=tuple(pairs))
    n_val = len(manifest.rows("val"))
    splits = [grouped, *further_splits(grouped, n_val=n_val, count=2, seed=0)]
    held_out = [{row.path for row in split.rows("val")} for split in splits]
    assert len(splits) == 3
    assert len(set().union(*held_out)) == sum(map(len, held_out))
    for split in splits[1:]:
        assert split.rows("test") == grouped.rows("test")
        assert 0.6 * n_val < len(split.rows("val")) < 1.5 * n_val
        train, val = ({row.group for row in split.rows(name)} for name in ("train", "val"))
        held = {row.group for row in grouped.rows("val")}  # these pairs were divided before
        assert not (train & val) - held
        assert {row.stratum for row in split.rows("val")} == set(manifest.strata)


def test_small_classes_get_no_further_splits(assessed):
    manifest = Project(*assessed).manifest
    few = [row for row in manifest.rows("train") if row.stratum == "ants"][:2]
    images = [row for row in manifest.images if row.stratum == "bees"] + few
    assert (
        further_splits(
            dataclasses.replace(manifest, images=tuple(images)), n_val=20, count=2, seed=0
        )
        == []
    )


def test_pinned_rates_are_all_trained_in_full(assessed, monkeypatch):
    config, paths = assessed
    monkeypatch.setattr("rootstock.workflow.race_heat.ALL_RATES_MAX_IMAGES", 0)
    monkeypatch.setattr("rootstock.workflow.race_heat._is_below", lambda *_: True)
    noting = NotingSearcher()
    race(config, paths, noting, seed=8, pins=Pins(learning_rates=(1e-4, 2e-4)))
    assert noting.tuned == [[{"learning_rate": 1e-4}, {"learning_rate": 2e-4}]]


def test_head_that_lost_is_compared_again_after_training(assessed, monkeypatch):
    config, paths = assessed
    let_a_race_decide(monkeypatch)
    monkeypatch.setattr("rootstock.workflow.race.decide", lambda heats, **_: tuning_wins(heats))
    shutil.rmtree(paths.races, ignore_errors=True)
    plan = make_plan(config, paths, searcher=SequentialSearcher())
    assert plan.raced_head.taps == plan.for_raced_head().taps
    assert len(plan.raced_head.taps) > len(plan.taps) == 1
    cache_features(config, paths)
    fitted = []
    real = HeadObjective._fit
    monkeypatch.setattr(HeadObjective, "_fit", lambda *a: fitted.append(a[1]["tap"]) or real(*a))
    monkeypatch.setattr("rootstock.workflow.choice.is_spoilt", lambda *_, **__: True)
    bundle = train_model(config, paths, runs=NullRunLogger(), searcher=SequentialSearcher())
    told = json.loads(paths.training.read_text())
    assert fitted == []  # all of them were fitted in the race
    taps = [trial["params"]["tap"] for trial in told["heads"]]
    assert taps == ["last", *plan.raced_head.taps]
    assert told["kept_head"]
    assert told["best"]["tap"] == bundle.facts.tap in plan.raced_head.taps
    assert not list(paths.trials.iterdir())
    assert Predictor(bundle).predict([next(config.data.root.rglob("*.png")).read_bytes()])


def test_a_damaged_outcome_is_raced_again(assessed):
    config, paths = assessed
    first = race(config, paths)
    for file in paths.races.glob("*.json"):
        file.write_text("{}")
    assert race(config, paths) == first


@pytest.mark.parametrize("setting", ["plan.race=never", "plan.strategy=linear_probe"])
def test_disabled_race_or_pinned_choice_runs_no_race(assessed, setting):
    _, paths = assessed
    counting = CountingSearcher()
    make_plan(configure(paths.root.parent / "data", setting), paths, searcher=counting)
    assert counting.searches == 0


def test_a_limit_of_minutes_rules_out_fine_tuning(assessed):
    _, paths = assessed
    config = configure(paths.root.parent / "data", "plan.budget.minutes=0.0001", "plan.race=never")
    plan = make_plan(config, paths, searcher=SequentialSearcher())
    assert plan.finetune is None


def test_strategy_over_time_limit_is_not_raced(assessed):
    _, paths = assessed
    counting = CountingSearcher()
    config = configure(paths.root.parent / "data", "plan.budget.minutes=0.0001")
    plan = make_plan(config, paths, searcher=counting)
    assert (plan.finetune, plan.race, counting.searches) == (None, None, 0)


def test_the_throughput_of_a_machine_is_measured_once(tmp_path):
    backbone = tiny_backbone()
    first = known_throughput(tmp_path, backbone, tuning_size=32)
    assert known_throughput(tmp_path, backbone, tuning_size=32) == first
    assert first.latency_ms > 0
    (damaged,) = tmp_path.glob("*.json")
    damaged.write_text("{}")
    known_throughput(tmp_path, backbone, tuning_size=32)
    assert json.loads(damaged.read_text())["latency_ms"] > 0


def test_fine_tuning_takes_longer_than_a_head(tmp_path):
    throughput = known_throughput(tmp_path, tiny_backbone(), tuning_size=32)
    head, partial, full = (
        throughput.minutes(strategy, n_train=1000, n_val=100, epochs=5, n_rates=1)
        for strategy in ("linear_probe", "partial_finetune", "full_finetune")
    )
    assert head < partial < full


@pytest.mark.parametrize(
    ("accuracy", "losses", "spoilt"),
    [
        (0.9, [0.5, 0.4, 0.6, 0.5], True),
        (0.91, [0.5, 0.4, 0.6, 0.5], False),  # more answers are right
        (0.9, [0.1, 0.2, 0.9, 0.2], False),  # a difference within its own noise
        (0.9, [0.1, 0.2, 0.1, 0.2], False),
    ],
)
def test_clearly_better_head_replaces_fine_tuning(accuracy, losses, spoilt):
    head, tuned = (Trial({}, {"val_accuracy": share}, None) for share in (0.9, accuracy))
    measured = {"head_losses": np.array([0.3, 0.2, 0.4, 0.3]), "tuned_losses": np.array(losses)}
    assert is_spoilt(head, tuned, score="val_accuracy", **measured) is spoilt


@pytest.fixture(scope="module")
def compared(assessed, tmp_path_factory):
    """The same images, with the packaged backbone and a missing one as candidates."""
    _, paths = assessed
    other = Paths(tmp_path_factory.mktemp("compared"))
    config = configure(
        paths.root.parent / "data",
        "backbone.candidates=[packaged:tf_efficientnet_lite0, gone.safetensors]",
    )
    index_images(config, other)
    assess_data(config, other)
    return config, other


def test_every_candidate_is_assessed_or_reported_missing(compared):
    profile = DatasetProfile.read(compared[1].profile)
    assert [other.candidate for other in profile.alternatives] == ["packaged:tf_efficientnet_lite0"]
    assert [gone.candidate for gone in profile.unusable] == ["gone.safetensors"]


def test_plan_chooses_one_candidate_with_reason(compared):
    config, paths = compared
    plan = make_plan(config, paths, searcher=SequentialSearcher())
    taken = next(score for score in plan.backbones if score.name == plan.backbone)
    assert taken.accuracy >= max(score.accuracy - score.noise for score in plan.backbones)
    report = (paths.reports / "plan.md").read_text()
    assert "gone.safetensors" in report
    assert report.count(" ms | ") == 2  # the time of each backbone here
    assert "not measured" not in report


def test_a_limit_of_parameters_decides(compared):
    config, paths = compared
    limited = config.model_copy(
        update={"plan": config.plan.model_copy(update={"max_params": 1_000_000})}
    )
    plan = make_plan(limited, paths, searcher=SequentialSearcher())
    assert plan.backbone == tiny_backbone().card.name


def test_a_limit_of_latency_is_measured(compared):
    config, paths = compared
    limited = config.model_copy(
        update={"plan": config.plan.model_copy(update={"max_latency_ms": 1e-6})}
    )
    with pytest.raises(BackboneError, match="slower here than"):
        make_plan(limited, paths, searcher=SequentialSearcher())
