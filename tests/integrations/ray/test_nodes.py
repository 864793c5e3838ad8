"""Several Ray nodes on this machine, one of which dies during the work."""

import os
import shutil
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from rootstock.config.paths import Paths
from rootstock.data.manifest import Manifest
from rootstock.errors import DataError, TrainingError
from rootstock.features.reader import FeatureReader
from rootstock.features.store.store import FeatureStore
from rootstock.integrations.ray import spread as ray_spread
from rootstock.integrations.ray.search import RaySearcher
from rootstock.integrations.ray.spread import RaySpreader
from rootstock.model.predictor import Predictor
from rootstock.plan.transfer_plan import TransferPlan
from rootstock.ports.runs import NullRunLogger
from rootstock.ports.search import SequentialSearcher
from rootstock.ports.spread import InProcess
from rootstock.workflow import features as stage
from rootstock.workflow.prepare import prepare_plan
from rootstock.workflow.run import run_all
from rootstock.workflow.train import train_model
from tests.data.folders import write_classes
from tests.integrations.ray.test_cluster import wait_until
from tests.workflow.test_run import configure

pytestmark = [pytest.mark.integration, pytest.mark.slow]


class Nodes:
    """A head and workers with one core each; the workers can be killed."""

    def __init__(self, workers):
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args=node)
        self.address = self.cluster.address
        self.workers = [self.cluster.add_node(**node) for _ in range(workers)]

    def kill_the_one_that_wrote(self, name):
        """Kill the node whose id is in a file, unless it is the head; return False if it is."""
        found = [worker for worker in self.workers if worker.unique_id == name or (
            getattr(worker, "node_id", None) == name)]  # fmt: skip
        for worker in found:
            self.cluster.remove_node(worker, allow_graceful=False)
            self.workers.remove(worker)
        return bool(found)


@pytest.fixture
def nodes():
    """Start nodes on loopback; all are stopped afterwards."""
    started = []
    folder = tempfile.mkdtemp(prefix="rs-nodes-", dir="/tmp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_TMPDIR", folder)
        Path(folder, "ray").mkdir()
        patch.setenv("RAY_health_check_period_ms", "500")
        patch.setenv("RAY_health_check_initial_delay_ms", "500")
        patch.setenv("RAY_health_check_timeout_ms", "1000")
        patch.setenv("RAY_health_check_failure_threshold", "3")

        def start(workers):
            started.append(Nodes(workers))
            return started[0]

        yield start
        for cluster in started:
            cluster.cluster.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def here():
    import ray

    return ray.get_runtime_context().get_node_id()


@dataclass(frozen=True)
class Work:
    """Record when each part starts and ends; the first ones wait for the death."""

    folder: Path

    def __call__(self, part):
        note = self.folder / f"begun-{part}-{here()}-{time.time_ns()}"
        note.touch()
        while part < 2 and not (self.folder / "killed").exists():
            time.sleep(0.1)
        time.sleep(0.3)
        return part, here()


def test_lost_node_costs_parts_it_was_at(nodes, tmp_path):
    cluster = nodes(1)

    def kill():
        wait_until(lambda: len(list(tmp_path.glob("begun-*"))) >= 2, seconds=120)
        notes = [path.name.split("-")[2] for path in tmp_path.glob("begun-*")]
        assert any(cluster.kill_the_one_that_wrote(name) for name in notes)
        (tmp_path / "killed").touch()

    killing = threading.Thread(target=kill)
    killing.start()
    with RaySpreader(address=cluster.address).spread(Work(tmp_path), range(6)) as results:
        found = list(results)
    killing.join()
    assert sorted(part for part, _ in found) == list(range(6))
    begun = [path.name.split("-")[1] for path in tmp_path.glob("begun-*")]
    # One core per node: one part was lost and started again, no other.
    assert len(begun) == 7
    assert len({node for _, node in found}) == 1


def same(part):
    return part


def test_parts_are_handed_out_as_others_are_done(nodes, monkeypatch):
    monkeypatch.setattr(ray_spread, "MAX_PENDING_TASKS", 3)
    taken, done = [], []

    def parts():
        for part in range(8):
            assert part - len(done) <= 3
            taken.append(part)
            yield part

    with RaySpreader(address=nodes(0).address).spread(same, parts()) as results:
        for part in results:
            done.append(part)
    assert sorted(done) == taken == list(range(8))


def fail(part):
    raise DataError(f"image {part} has changed", hint="run the stage `index` again")


def die(part):
    os.kill(os.getpid(), 9)


def test_errors_pass_through_and_deaths_are_retried(nodes):
    spreader = RaySpreader(address=nodes(0).address, max_failures=1)
    with (
        pytest.raises(DataError, match="image 3 has changed") as error,
        spreader.spread(fail, [3]) as results,
    ):
        list(results)
    assert error.value.hint == "run the stage `index` again"
    with (
        pytest.raises(TrainingError, match="a piece of work was lost 2 times"),
        spreader.spread(die, [1]) as results,
    ):
        list(results)


def test_features_of_two_nodes_are_those_of_one(nodes, tmp_path, monkeypatch):
    data = write_classes(tmp_path / "images", {"ants": 12, "bees": 12})
    monkeypatch.setattr(stage, "PART_IMAGES", 6)
    config, paths, alone, features = extracted_alone(data, tmp_path / "out")
    spread = stage.cache_features(config, paths, spreader=RaySpreader(address=nodes(1).address))
    assert (spread.computed, spread.reused) == (alone.computed, 0)
    # PyTorch's last bit depends on its number of threads, and a node's task has one.
    np.testing.assert_allclose(stored(config, paths), features, rtol=2e-3, atol=2e-3)


def extracted_alone(data, out):
    """Config and paths of a plan; the report and features of this process, and an empty store."""
    config, paths = configure(data, "plan.race=never"), Paths(out)
    prepare_plan(config, paths, searcher=SequentialSearcher())
    store = paths.below(config.features.store)
    shutil.rmtree(store)
    alone = stage.cache_features(config, paths)
    features = stored(config, paths)
    shutil.rmtree(store)
    return config, paths, alone, features


def stored(config, paths):
    """Return the features float16[N,C] that the plan needs, from the store."""
    plan = TransferPlan.read(paths.plan)
    backbone = stage.load_planned_backbone(plan, device="cpu")
    store = FeatureStore(paths.below(config.features.store))
    preprocess = backbone.card.preprocess(plan.input_size)
    reader = FeatureReader(paths.root, backbone, preprocess, store)
    return reader.read(Manifest.read(paths.manifest).rows("train"), plan.taps[0])


@dataclass(frozen=True)
class Training:
    """Run three epochs, stored in the trial's folder; the second waits for the death."""

    workers: int = 1

    def __call__(self, params, home, report):
        rank = 0
        if self.workers > 1:
            import torch.distributed as dist

            rank = dist.get_rank()
        done = len(list(home.glob("epoch-*"))) if rank == 0 else 0
        if self.workers > 1:
            shared = [done]
            dist.broadcast_object_list(shared, src=0)
            (done,) = shared
        for epoch in range(done, 3):
            (home / f"at-{rank}-{epoch}-{here()}-{time.time_ns()}").touch()
            while epoch == 1 and not (home.parent / "killed").exists():
                time.sleep(0.1)
            if self.workers > 1:
                dist.barrier()
            if rank == 0:
                (home / f"epoch-{epoch}").touch()
            report(epoch + 1, {"acc": float(epoch)})
        return {"acc": 2.0}


@pytest.mark.parametrize("workers", [1, 2], ids=["search", "team"])
def test_a_lost_node_costs_an_epoch(nodes, tmp_path, workers):
    cluster = nodes(1)  # one of a team of two is left and continues

    def second_epochs():
        return [path.name.split("-") for path in tmp_path.glob("trial-*/at-*-1-*")]

    def kill():
        wait_until(lambda: len(second_epochs()) >= 2, seconds=180)
        assert any(cluster.kill_the_one_that_wrote(name[3]) for name in second_epochs())
        (tmp_path / "killed").touch()

    killing = threading.Thread(target=kill)
    killing.start()
    trials = RaySearcher(address=cluster.address, max_failures=3).search(
        Training(workers),
        [{"lr": 1}] if workers > 1 else [{"lr": 1}, {"lr": 2}],
        directory=tmp_path,
        metric="acc",
        mode="max",
        early_stop=False,
    )
    killing.join()
    assert [trial.error for trial in trials] == [""] * len(trials)
    assert all(trial.metrics["acc"] == 2.0 for trial in trials)
    firsts = list(tmp_path.glob("trial-*/at-0-0-*"))
    assert len(firsts) == len(trials)  # finished trials are not repeated


def test_extraction_that_loses_a_node_gives_same_features(nodes, tmp_path, monkeypatch):
    data = write_classes(tmp_path / "images", {"ants": 60, "bees": 60})
    for path in data.rglob("*.png"):
        # Enough work for a death in between
        Image.open(path).resize((1500, 1100)).save(path, compress_level=1)
    monkeypatch.setattr(stage, "PART_IMAGES", 4)
    config, paths, alone, features = extracted_alone(data, tmp_path / "out")
    store = paths.below(config.features.store)
    cluster, ended, late = nodes(1), threading.Event(), []

    def kill():
        wait_until(lambda: list(store.rglob("*.safetensors")), seconds=120)
        late.append(ended.is_set())
        cluster.cluster.remove_node(cluster.workers.pop(), allow_graceful=False)

    killing = threading.Thread(target=kill)
    killing.start()
    spread = stage.cache_features(config, paths, spreader=RaySpreader(address=cluster.address))
    ended.set()
    killing.join()
    assert late == [False]  # it died in the middle
    # A part on disk whose node could not report it is started again, and found there.
    assert spread.computed + spread.reused == alone.computed
    assert spread.reused <= 4
    np.testing.assert_allclose(stored(config, paths), features, rtol=2e-3, atol=2e-3)


def test_fine_tuning_that_loses_node_gives_same_weights(nodes, tmp_path):
    data = write_classes(tmp_path / "images", {"ants": 60, "bees": 60})
    settings = ("plan.race=never", "plan.strategy=full_finetune", "train.epochs=6")
    config = configure(data, *settings, "train.learning_rates=[0.001,0.0003]", "train.trials=2")
    cluster, seen = nodes(1), []

    def kill():
        trials = tmp_path / "cluster/.rootstock"
        wait_until(lambda: list(trials.rglob("checkpoint*")), seconds=180)
        cluster.cluster.remove_node(cluster.workers.pop(), allow_graceful=False)
        seen.append(len(list(trials.rglob("checkpoint*"))))

    found = {}
    killing = threading.Thread(target=kill)
    for name, searcher in (
        ("alone", SequentialSearcher()),
        ("cluster", RaySearcher(address=cluster.address, max_failures=3)),
    ):
        paths = Paths(tmp_path / name)
        prepare_plan(config, paths, searcher=SequentialSearcher())
        stage.cache_features(config, paths)
        if name == "cluster":
            killing.start()
        train_model(config, paths, runs=NullRunLogger(), searcher=searcher)
        found[name] = load_file(paths.model / "model.safetensors")
    killing.join()
    assert seen
    assert set(found["alone"]) == set(found["cluster"])
    for name, value in found["alone"].items():
        # Sums depend on the number of threads, which is one on a node.
        np.testing.assert_allclose(
            found["cluster"][name], value, rtol=2e-2, atol=2e-3, err_msg=name
        )


@pytest.mark.parametrize("strategy", ["linear_probe", "partial_finetune"])
def test_run_on_two_nodes_equals_run_on_one(nodes, tmp_path, monkeypatch, strategy):
    monkeypatch.setattr(stage, "PART_IMAGES", 20)
    data = write_classes(tmp_path / "images", {"ants": 40, "bees": 40, "wasps": 40})
    config = configure(data, f"plan.strategy={strategy}", "train.epochs=2")
    cluster = nodes(1)
    on_nodes = RaySearcher(address=cluster.address)
    ways = {
        "one": (SequentialSearcher(), InProcess()),
        "two": (on_nodes, RaySpreader(address=cluster.address)),
    }
    found = {}
    for name, (searcher, spreader) in ways.items():
        paths = Paths(tmp_path / name)
        bundle = run_all(
            config,
            paths,
            runs=NullRunLogger(),
            searcher=searcher,
            racer=searcher,
            spreader=spreader,
            registry=None,
        )
        predictor, rows = Predictor(bundle), Manifest.read(paths.manifest).rows("test")
        images = [predictor.prepare((data / row.path).read_bytes()) for row in rows]
        found[name] = predictor.infer(images).decisions
    one, two = (Paths(tmp_path / name) for name in ways)
    assert two.manifest.read_bytes() == one.manifest.read_bytes()
    plans = [TransferPlan.read(paths.plan) for paths in (one, two)]
    for field in ("strategy", "taps", "head_candidates", "finetune_candidates"):
        assert getattr(plans[1], field) == getattr(plans[0], field)
    # Sums depend on the number of threads, which is one on a node.
    np.testing.assert_allclose(found["two"], found["one"], atol=0.02)
