"""Routes of the Models page: plan, progress, evaluation, champion, and challenger."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any

from fastapi import Body, Request

from rootstock.errors import ArtifactError, RootstockError
from rootstock.evaluate.slices import SliceSearch
from rootstock.service.http.access import Router
from rootstock.studio.studio import Studio

_Text = Annotated[str, Body(max_length=300)]


def make_models_router(studio: Studio) -> Router:
    """Create the routes that read."""
    router = Router("predict", prefix="/api")

    @router.get("/plan")
    def plan() -> dict[str, Any]:
        """Return the plan, the reason for each choice, and the result."""
        found = studio.project.plan.get()
        tree = found.model_dump(mode="json")
        keys = ("strategy", "backbone", "size_class", "similarity_score", "score_name")
        shown = {key: tree[key] for key in (*keys, "candidates", "reasons", "evidence")}
        return shown | {"forecast": _read(studio.project.forecast)}

    @router.get("/progress")
    def progress() -> dict[str, Any]:
        """Return whether a run is active, and its progress."""
        return studio.pipeline.describe()

    @router.get("/run")
    def run() -> dict[str, Any]:
        """Return the run that was started here, and whether another one pays."""
        advice = None
        with contextlib.suppress(RootstockError):  # before the first plan
            advice = studio.advise()._asdict()
        return studio.run.describe() | {"advice": advice}

    @router.get("/evaluation")
    def evaluation() -> dict[str, Any]:
        """Return the metrics, and label, answer, and certainty of each test image."""
        found = studio.evaluations.get()
        return {
            "metrics": studio.project.metrics.get(),
            **studio.models.rank_metrics(found.task.name),
            "confusions": found.confusions(),
            **found.answers(),
        }

    @router.get("/slices")
    def slices() -> dict[str, Any]:
        """Return the groups of test images on which the model is worse."""
        found: SliceSearch | None = studio.evaluations.get().worse_slices()
        if found is None:
            return {"looked_at": 0, "worse": []}
        return {"looked_at": found.n_slices, "worse": [one._asdict() for one in found.worse]}

    @router.get("/refit")
    def refit() -> dict[str, Any]:
        """Return the head that was fitted to the current labels, with its model."""
        corrected = len(studio.desk.read().corrected)
        return studio.refits.describe() | {"waiting": corrected}

    @router.post("/refit")
    def start_refit() -> dict[str, Any]:
        """Fit the head again to the current labels."""
        return studio.refits.start()

    @router.get("/models")
    def models() -> dict[str, Any]:
        """Return the versions in the registry and the history of the champion."""
        return studio.models.list() | {"compared": studio.models.compare()}

    return router


def make_decision_router(studio: Studio) -> Router:
    """Create the routes that change the champion."""
    router = Router("admin", prefix="/api/champion")

    @router.post("/promote")
    def promote(
        request: Request, version: _Text, expect: _Text, why: _Text, who: _Text = ""
    ) -> Any:
        """Make a version the champion, unless the champion is no longer ``expect``."""
        by = request.state.session.name or who
        return {"version": studio.models.promote(version, expect=expect, why=why, by=by)}

    @router.post("/refit")
    def register_refit() -> dict[str, Any]:
        """Register the new head and compare it with the champion."""
        return studio.refits.register()

    @router.post("/rollback")
    def rollback(request: Request, why: _Text, who: _Text = "") -> dict[str, str]:
        """Make the previous champion the champion again."""
        by = request.state.session.name or who
        return {"version": studio.models.rollback(why=why, by=by)}

    return router


def make_run_router(studio: Studio) -> Router:
    """Create the routes that start and stop the pipeline."""
    router = Router("admin", prefix="/api/run")

    @router.post("/start")
    def start() -> dict[str, Any]:
        """Bring the project up to date, which takes as long as a training run."""
        return studio.run.start()

    @router.post("/stop")
    def stop() -> dict[str, Any]:
        """Stop the run that was started here."""
        return studio.run.stop()

    return router


def _read(view: Any) -> dict[str, Any] | None:
    try:
        return dict(view.get())
    except ArtifactError:
        return None
