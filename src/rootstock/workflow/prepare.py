"""Index, assess and plan in one go; what the last run left is used where nothing has changed.

Under DVC each of the three is a stage of its own and DVC decides. The stages are imported when they
run: where nothing is to do, torch is not even loaded, and the answer takes a second.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rootstock.config.paths import Paths
from rootstock.config.schema import Config
from rootstock.data.manifest import Manifest
from rootstock.ports.search import Searcher
from rootstock.system.files import sha256_file
from rootstock.workflow.index import index_images
from rootstock.workflow.stage_cache import run_unless_kept


def prepare_plan(config: Config, paths: Paths, *, searcher: Searcher) -> None:
    """Write what the stages index, assess and plan write; races run on ``searcher``."""
    manifest = index_images(config, paths)

    def assess() -> None:
        from rootstock.workflow.assess import assess_data

        assess_data(config, paths)

    def plan() -> None:
        from rootstock.workflow.plan import make_plan

        make_plan(config, paths, searcher=searcher)

    facts = _facts(config, manifest)
    run_unless_kept(
        assess,
        paths.kept / "assess.json",
        inputs={**facts, "params": _sections(config, "seed", "data", "backbone", "assess")},
        outputs=[paths.profile, paths.review, *_reports(paths, "data.md", "plots/review")],
    )
    run_unless_kept(
        plan,
        paths.kept / "plan.json",
        inputs={
            **facts,
            "params": _sections(config, "seed", "data", "backbone", "assess", "plan", "train"),
            "profile": sha256_file(paths.profile),
        },
        outputs=[paths.plan, paths.estimates, *_reports(paths, "plan.md", "plots/plan")],
    )


def _facts(config: Config, manifest: Manifest) -> dict[str, Any]:
    """The images, and every weights file that is named."""
    named = [config.backbone.weights]
    if isinstance(config.backbone.candidates, list):
        named += map(str, config.backbone.candidates)
    files = {name: sha256_file(Path(name)) for name in named if Path(name).is_file()}
    return {"data": manifest.content_hash, "weights": files}


def _sections(config: Config, *names: str) -> dict[str, Any]:
    return config.model_dump(mode="json", include=set(names))


def _reports(paths: Paths, *names: str) -> list[Path]:
    return [paths.reports / name for name in names]
