"""Run one trial in several processes: Ray Train starts them, the objective shares its work."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rootstock.errors import TrainingError
from rootstock.ports.search import Objective, Params, group_size
from rootstock.system.files import write_json

_ANSWER_FILE = "team.json"
_DRIVER_SHARE = 0.01
# torch has no exception for a lost process of the group, only these texts.
_PEER_PHRASES = ("closed by peer", "reset by peer", "gloo", "NCCL")


def run_in_group(
    objective: Objective,
    params: Params,
    home: Path,
    *,
    metric: str,
    resources: Mapping[str, float],
    max_failures: int,
) -> Mapping[str, float]:
    """Call ``objective`` in all of its processes at once, with torch.distributed set up.

    Reports go to the calling Ray Tune trial, in the form of `tune_message`. ``resources`` are
    those of one process. If a process dies, all are started again, or as many as there is room
    for. They continue from the trial's directory, at most ``max_failures`` times. An exception of
    the objective is a result, which is not computed again.
    Raises:
        TrainingError: the objective raised, or processes died too often.
    """
    import ray
    from ray import train
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError
    from ray.tune.integration.ray_train import TuneReportCallback

    workers, gpus = group_size(objective), resources["gpu"]
    # Slightly less than whole cores, because the process that waits for the group needs a share.
    cpus = min(resources["cpu"], ray.cluster_resources().get("CPU", 1) / workers) - _DRIVER_SHARE
    trainer = TorchTrainer(
        _run_process,
        train_loop_config={
            "objective": objective,
            "params": dict(params),
            "metric": metric,
            "home": str(home),
            "threads": max(1, round(cpus)),
            "folder": os.getcwd(),
        },
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=train.ScalingConfig(
            # A group that has lost a machine continues with the remaining processes.
            num_workers=(1, workers),
            use_gpu=bool(gpus),
            resources_per_worker={"CPU": cpus} | ({"GPU": gpus} if gpus else {}),
        ),
        run_config=train.RunConfig(
            name="team",
            storage_path=str(home / ".team"),
            failure_config=train.FailureConfig(max_failures=max_failures),
            callbacks=[TuneReportCallback()],
        ),
    )
    (home / _ANSWER_FILE).unlink(missing_ok=True)
    try:
        trainer.fit()
    except TrainingFailedError as error:
        message = _answer(home).get("error") or str(error).strip().replace("\n", " ")[:300]
        raise TrainingError(message) from error
    values: dict[str, float] = _answer(home)["values"]
    return values


def _answer(home: Path) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads((home / _ANSWER_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return answer


def tune_message(metric: str, step: int, values: Mapping[str, float]) -> dict[str, Any]:
    """Return a report in the form for Ray Tune; nested, because Ray adds keys."""
    message: dict[str, Any] = {"step": step, "values": as_floats(values)}
    if metric in values:
        message["value"] = float(values[metric])
    return message


def as_floats(values: Mapping[str, float]) -> dict[str, float]:
    """Return plain floats, which any process can read."""
    return {key: float(value) for key, value in values.items()}


def _run_process(config: dict[str, Any]) -> None:
    """Run the objective in one process; all report, and Ray forwards the first report."""
    import torch
    from ray import train
    from ray.train.torch import get_device

    os.chdir(config["folder"])
    torch.set_num_threads(config["threads"])
    device = get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    home = Path(config["home"])

    def report(step: int, values: Mapping[str, float]) -> None:
        train.report(tune_message(config["metric"], step, values))

    if earlier := _answer(home).get("error"):
        raise RuntimeError(earlier)
    try:
        values = config["objective"](config["params"], home, report)
    except Exception as error:
        lost = any(word in str(error) for word in _PEER_PHRASES)
        if not lost:
            write_json(home / _ANSWER_FILE, {"error": f"{type(error).__name__}: {error}"})
        raise
    if train.get_context().get_world_rank() == 0:
        write_json(home / _ANSWER_FILE, {"values": as_floats(values)})
