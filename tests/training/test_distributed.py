"""Fine-tuning in two processes over gloo gives the same result as in one."""

import multiprocessing
import traceback

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rootstock.training.distributed import ProcessGroup
from rootstock.training.finetune import BEST, HISTORY
from tests.training.test_finetune import images, run  # noqa: F401 - a fixture

pytestmark = pytest.mark.integration  # it starts processes that each load torch

SIZE = 2


RUNS = {
    "plain": {"epochs": 2},
    "weighted": {"epochs": 2, "ema_decay": 0.9, "weighting": "balanced", "micro_batch": 3},
}


def member(rank, folder, images):  # noqa: F811
    """Run one of the processes through all runs; write a failure to a file."""
    import torch.distributed as dist

    torch.set_num_threads(1)
    try:
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=SIZE
        )
        for name, options in RUNS.items():
            losses = []

            def note(step, values, losses=losses):
                losses.append(values["val_log_loss"])

            run(images, folder / name, report=note, **options)
            np.save(folder / f"{name}/losses-{rank}.npy", losses)
        dist.destroy_process_group()
    except BaseException:
        (folder / f"failed-{rank}.txt").write_text(traceback.format_exc())
        raise


@pytest.fixture(scope="module")
def team(images, tmp_path_factory):  # noqa: F811
    """The folder of the runs of one team of processes, because importing torch takes seconds."""
    folder = tmp_path_factory.mktemp("team")
    start = multiprocessing.get_context("spawn")
    members = [start.Process(target=member, args=(rank, folder, images)) for rank in range(SIZE)]
    for process in members:
        process.start()
    for process in members:
        process.join(timeout=120)
    failures = [path.read_text() for path in folder.glob("failed-*.txt")]
    assert not failures, failures[0]
    assert all(process.exitcode == 0 for process in members)
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_end_where_one_does(team, images, tmp_path, name):  # noqa: F811
    run(images, tmp_path / "alone", **RUNS[name])
    shared, alone = load_file(team / name / BEST), load_file(tmp_path / "alone" / BEST)
    for key, value in alone.items():
        torch.testing.assert_close(shared[key], value, rtol=1e-3, atol=1e-4, msg=key)
    losses = [np.load(team / f"{name}/losses-{rank}.npy") for rank in range(SIZE)]
    assert np.array_equal(*losses)
    assert (team / name / HISTORY).is_file()


def test_a_single_process_keeps_all():
    group, rows = ProcessGroup.current(), torch.arange(5)
    assert group.is_main
    assert torch.equal(group.shard(rows), rows)
    assert torch.equal(group.sum(rows), rows)
    assert np.array_equal(group.gather(rows.numpy()), rows.numpy())


def test_parts_are_joined_in_their_order():
    rows = torch.arange(7)
    parts = [ProcessGroup(rank, 3).shard(rows) for rank in range(3)]
    assert sorted(torch.cat(parts).tolist()) == rows.tolist()
    assert [len(part) for part in parts] == [3, 2, 2]
