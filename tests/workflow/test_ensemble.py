"""`train.ensemble`: more networks are trained like the chosen one, and served if that pays."""

import json
import shutil

import pytest
from safetensors.torch import load_file

from rootstock.config.paths import Paths
from rootstock.errors import BundleError
from rootstock.model.predictor import Predictor
from rootstock.ports.runs import NullRunLogger
from rootstock.ports.search import SequentialSearcher
from rootstock.training import objectives, selection
from rootstock.workflow.evaluate import evaluate_model
from rootstock.workflow.features import cache_features
from rootstock.workflow.plan import make_plan
from rootstock.workflow.prepare import prepare_plan
from rootstock.workflow.project import Project
from rootstock.workflow.refit import refit_head
from rootstock.workflow.train import open_planned_job
from tests.data.folders import write_classes
from tests.workflow.test_run import configure, trained

pytestmark = pytest.mark.integration
TUNED = ["plan.strategy=full_finetune", "train.ensemble=3"]
ALWAYS, NEVER = -1e9, 1e9


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "insects"
    return write_classes(folder, dict.fromkeys(("ants", "bees", "wasps"), 24))


@pytest.fixture(scope="module")
def assessed(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("assessed")
    prepare_plan(configure(data), Paths(out), searcher=SequentialSearcher())
    return out


@pytest.fixture
def paths(assessed, tmp_path):
    """A project whose images were assessed."""
    return Paths(shutil.copytree(assessed, tmp_path / "copy"))


def test_ensemble_is_served_if_it_is_better_beyond_chance(data, paths, monkeypatch):
    monkeypatch.setattr(selection, "SURE_ERRORS", ALWAYS)
    config = configure(data, *TUNED)
    bundle, told = trained(config, paths)
    assert bundle.facts.networks == told["ensemble"]["networks"] == 3
    assert bundle.strategy == "full_finetune"
    first, *others = (trial["params"] for trial in told["finetuning"])
    assert [one["seed"] for one in others] == [1, 2]
    assert [one | {"seed": 0} for one in others] == [first | {"seed": 0}] * 2
    assert "it is kept, at 3 forward passes per image" in told["won"]
    weights = load_file(bundle.weights_path)
    heads = [weights[prefix + "head.weight"] for prefix in ("", "others.0.", "others.1.")]
    assert len({float(one.sum()) for one in heads}) == 3
    assert Predictor(bundle, engine="torch").golden_difference < 1e-3
    evaluate_model(config, paths, runs=NullRunLogger())
    forecast = json.loads((paths.reports / "forecast.json").read_text())
    assert forecast["minutes"] > 0
    with pytest.raises(BundleError, match="averages 3 networks"):
        refit_head(config, paths)


def test_one_network_is_kept_if_gain_may_be_chance(data, paths, monkeypatch):
    monkeypatch.setattr(selection, "SURE_ERRORS", NEVER)
    bundle, told = trained(configure(data, *TUNED), paths)
    assert bundle.facts.networks == told["ensemble"]["networks"] == 1
    assert told["won"].endswith("not beyond chance: one network is kept")
    assert len(told["finetuning"]) == 3


def test_an_average_is_repeated_as_an_average(data, paths, monkeypatch):
    monkeypatch.setattr(selection, "SURE_ERRORS", ALWAYS)
    monkeypatch.setattr(
        "rootstock.training.training_job.choose_tuned", lambda trials, losses: pick(trials)
    )
    rates = "train.learning_rates=[0.001, 0.002]"
    bundle, told = trained(configure(data, *TUNED, rates), paths)
    assert told["best"] == {"average_of": 2, "with_start": True, "networks": 3}
    assert len(told["finetuning"]) == 6
    assert bundle.facts.networks == 3


def pick(trials):
    """Return the number of the average with the start."""
    return next(number for number, trial in enumerate(trials) if trial.with_start)


def test_killed_ensemble_continues_with_its_current_network(data, paths, monkeypatch):
    begun, finetune = [], objectives.finetune

    def watched(network, train, val, *, settings, **more):
        begun.append(settings.seed)
        if len(begun) == 3:
            raise KeyboardInterrupt
        return finetune(network, train, val, settings=settings, **more)

    monkeypatch.setattr(objectives, "finetune", watched)
    config = configure(data, *TUNED)
    with pytest.raises(KeyboardInterrupt):
        trained(config, paths)
    _, told = trained(config, paths)
    assert begun == [0, 1, 2, 2]
    assert len(told["finetuning"]) == 3


def test_head_trains_once_and_plan_shows_ensemble_cost(data, paths):
    config = configure(data, "quality=fast", "train.ensemble=3")
    bundle, told = trained(config, paths)
    assert bundle.facts.networks == 1
    assert "the same for every seed" in told["won"]
    assert told["finetuning"] == []
    text = (paths.reports / "plan.md").read_text()
    assert "this plan does not fine-tune" in text
    assert "would have taken at most about" in text
    make_plan(configure(data, *TUNED), paths, searcher=SequentialSearcher())
    text = (paths.reports / "plan.md").read_text()
    assert "Training takes up to 3 times as long: at most" in text
    assert "costs 3 forward passes, about 3 × " in text


def test_asking_for_more_networks_trains_none_again(data, paths):
    one, three = (configure(data, *TUNED[:1], f"train.ensemble={count}") for count in (1, 3))
    make_plan(one, paths, searcher=SequentialSearcher())
    cache_features(one, paths)
    jobs = [open_planned_job(Project(config, paths)) for config in (one, three)]
    assert jobs[0].directory == jobs[1].directory
