"""The route that receives true labels of answered images."""

from __future__ import annotations

from typing import Any

from anyio.to_thread import run_sync
from fastapi import Request

from rootstock.errors import ArtifactError, DataError
from rootstock.evaluate.feedback import (
    AmbiguousRequestError,
    Feedback,
    UnknownRequestError,
    append_feedback,
    judge_answer,
)
from rootstock.service.http.access import Router
from rootstock.service.http.problems import Problem, document
from rootstock.service.http.schemas import FeedbackAnswer, FeedbackQuestion
from rootstock.service.http.uploads import bounded_route
from rootstock.service.inference.services import Services
from rootstock.service.watch.journal import Journal

_MAX_ELEMENTS = 100
_MAX_NESTED = 9


def make_feedback_router(services: Services) -> Router:
    """Make the route of feedback."""
    router = Router(
        "predict",
        tags=["operation"],
        route_class=bounded_route(_MAX_ELEMENTS, nested=_MAX_NESTED),
    )

    @router.post(
        "/v1/feedback",
        summary="Send the true label of an image",
        responses=document("not-found", "conflict", "lost"),
        response_model_exclude_none=True,
    )
    async def feedback(request: Request, question: FeedbackQuestion) -> FeedbackAnswer:
        """Needs a journal. A second label for an image replaces the first; both are stored."""
        # Without keys the caller is an IP address, which should not be stored.
        kind, _, who = str(getattr(request.state, "caller", "")).partition(" ")
        who = who if kind == "key" else ""
        row = await run_sync(_store, services.resources.journal, question, who)
        live: Any = await run_sync(services.named(row.model).live_score)
        return FeedbackAnswer(
            request_id=row.request_id,
            sha256=row.sha256,
            label=row.label,
            answer=row.answer,
            score=row.score,
            live=live and live._asdict(),
        )

    return router


def _store(journal: Journal | None, question: FeedbackQuestion, who: str) -> Feedback:
    if journal is None:
        raise Problem(
            "conflict",
            "Feedback needs a journal: set ROOTSTOCK_JOURNAL and restart the service.",
        )
    try:
        answers = journal.find(question.request_id)
        row = judge_answer(answers, question.label, sha256=question.sha256, who=who)
        append_feedback(journal.folder, [row])
    except UnknownRequestError as error:
        raise Problem("not-found", f"{error.message[:1].upper()}{error.message[1:]}.") from None
    except AmbiguousRequestError as error:
        raise Problem("conflict", f"{error.message}: {error.hint}.") from None
    except DataError as error:
        raise Problem("invalid-request", f"label: {error.message}") from None
    except ArtifactError:
        raise Problem("lost", "The feedback could not be stored; send it again later.") from None
    return row
