"""Run index, assess and plan; skip a stage if none of its inputs has changed.

Under DVC each of the three is a stage, and DVC decides. The stages are imported when they run: if
there is nothing to do, torch is not loaded, and the answer takes a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from rootstock.assess.candidates import list_candidates
from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.ports.search import Searcher
from rootstock.system.files import sha256_file
from rootstock.workflow.code_dependencies import digest_code
from rootstock.workflow.index import index_and_warn
from rootstock.workflow.pins import read_candidates
from rootstock.workflow.stage_cache import run_if_changed

PARAMS = {
    "assess": (
        "assess",
        "backbone",
        "data.geometry",
        "features.pooling",
        "plan.input_size",
        "train.epochs",
        "train.learning_rates",
        "quality",
        "seed",
    ),
    "plan": ("plan", "train", "quality", "seed"),
}
"""The keys of params.yaml on which each stage depends, as in dvc.yaml."""


def prepare_plan(config: Config, paths: Paths, *, searcher: Searcher) -> None:
    """Run the stages index, assess and plan; races run on ``searcher``."""
    manifest = index_and_warn(config, paths)

    def assess() -> None:
        from rootstock.workflow.assess import assess_data

        assess_data(config, paths)

    def plan() -> None:
        from rootstock.workflow.plan import make_plan

        make_plan(config, paths, searcher=searcher)

    files = {
        "data": manifest.content_hash,
        "warnings": manifest.warnings,
        "weights": hash_weights(config),
    }
    run_if_changed(
        assess,
        paths.kept / "assess.json",
        code=digest_code("rootstock.workflow.assess"),
        inputs={**files, "params": _select_params(config, PARAMS["assess"])},
        outputs=[paths.profile, paths.review, *_reports(paths, "data.md", "plots/review")],
    )
    run_if_changed(
        plan,
        paths.kept / "plan.json",
        code=digest_code("rootstock.workflow.plan"),
        inputs={
            **files,
            "params": _select_params(config, PARAMS["plan"]),
            "profile": sha256_file(paths.profile),
        },
        outputs=[paths.plan, paths.estimates, *_reports(paths, "plan.md", "plots/plan")],
    )


def hash_weights(config: Config) -> dict[str, str]:
    """Return the SHA-256 of the files of each candidate backbone: weights and card."""
    backbone = config.backbone
    names = list_candidates(read_candidates(config), weights=backbone.weights, name=backbone.name)
    files = [file for name in names for file in (Path(name), Path(name).with_suffix(".json"))]
    return {str(file): sha256_file(file) for file in files if file.is_file()}


def _select_params(config: Config, keys: Sequence[str]) -> dict[str, Any]:
    tree = config.model_dump(mode="json")
    return {key: reduce(getitem, key.split("."), tree) for key in keys}


def _reports(paths: Paths, *names: str) -> list[Path]:
    return [paths.reports / name for name in names]
