"""What every route that classifies does: infer, count, answer, and let the watchers know."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from anyio.to_thread import run_sync
from fastapi import Request

from rootstock.errors import ImageError
from rootstock.predict import Prediction, Predictor
from services.inference.batcher import Row
from services.inference.problems import Problem, image_problem
from services.inference.service import Outcome, Service
from services.inference.uploads import Upload

Answer = Prediction | Problem


def choose_model(service: Service) -> Predictor:
    """The model that answers this request: the champion, or the challenger for its share.

    Raises:
        Problem: there is no model yet.
    """
    champion = service.holder.predictor
    return service.challenger.canary(champion) if service.challenger else champion


def require_ready(service: Service) -> None:
    """Whether requests should be sent here, as an error.

    Raises:
        Problem: there is no model, no decoder, or the end has begun.
    """
    _ = service.holder.predictor
    if not service.ready:
        why = "The service is ending." if service.draining else "No decoder is alive."
        raise Problem("lost", why, headers={"Retry-After": "1"})


async def classify(
    service: Service,
    request: Request,
    predictor: Predictor,
    uploads: Sequence[Upload],
    *,
    top_k: int,
    coverage: float | None = None,
) -> list[Answer]:
    """A Prediction or a Problem for each upload, in order.

    Drift, challenger and journal learn of the answers, whichever route was asked.
    Raises:
        Problem: as `Service.answer`.
    """
    return await _classify(service, request, predictor, uploads, top_k=top_k, coverage=coverage)


async def classify_all(
    service: Service,
    request: Request,
    predictor: Predictor,
    contents: Sequence[bytes],
    *,
    where: str,
    top_k: int,
) -> list[Prediction]:
    """As `classify`, for a protocol that has no room for the error of one image.

    Raises:
        Problem: also of the first that cannot be used, named as ``where``[number]; then nobody
            learns of the others, for nobody was answered.
    """
    uploads = [Upload(f"{where}[{number}]", content) for number, content in enumerate(contents)]
    answers = await _classify(service, request, predictor, uploads, top_k=top_k, whole=True)
    return [answer for answer in answers if isinstance(answer, Prediction)]


async def infer_uploads(
    service: Service, request: Request, predictor: Predictor, uploads: Sequence[Upload]
) -> list[Row | Problem]:
    """A Row or a Problem for each upload, in order; each is counted by its outcome."""
    contents = [upload.content for upload in uploads if upload.problem is None]
    found: Iterator[Outcome] = iter(
        await service.answer(request, predictor, contents) if contents else []
    )
    results: list[Row | Problem] = []
    for upload in uploads:
        outcome = upload.problem or next(found)
        result = image_problem(outcome) if isinstance(outcome, ImageError) else outcome
        word = "ok"
        if isinstance(result, Problem):
            word = (result.members or {}).get("reason", result.kind)
        service.telemetry.count_images(word)
        results.append(result)
    return results


async def _classify(
    service: Service,
    request: Request,
    predictor: Predictor,
    uploads: Sequence[Upload],
    *,
    top_k: int,
    coverage: float | None = None,
    whole: bool = False,
) -> list[Answer]:
    started = time.perf_counter()
    found = await infer_uploads(service, request, predictor, uploads)
    seconds = time.perf_counter() - started
    if whole:
        _refuse_if_any_bad(uploads, found)
    answers: list[Answer] = [
        outcome
        if isinstance(outcome, Problem)
        else predictor.answer(*outcome, top_k=top_k, coverage=coverage)
        for outcome in found
    ]
    await _tell(service, request, predictor, uploads, answers, seconds)
    return answers


def _refuse_if_any_bad(uploads: Sequence[Upload], found: Sequence[Row | Problem]) -> None:
    for upload, outcome in zip(uploads, found, strict=True):
        if isinstance(outcome, Problem):
            detail = f"{upload.filename}: {outcome.detail}"
            raise Problem(outcome.kind, detail, members=outcome.members)


async def _tell(
    service: Service,
    request: Request,
    predictor: Predictor,
    uploads: Sequence[Upload],
    answers: Sequence[Answer],
    seconds: float,
) -> None:
    usable = [
        (upload.content, answer)
        for upload, answer in zip(uploads, answers, strict=True)
        if isinstance(answer, Prediction)
    ]
    champion = predictor is service.holder.predictor
    for content, answer in usable:
        if answer.unknown:
            service.telemetry.unknown.inc()
        if champion:
            service.drift.note(predictor, answer)
            if service.challenger is not None:
                service.challenger.shadow(predictor, content, answer.label, seconds / len(usable))
    if service.journal is not None and usable:
        contents, predictions = zip(*usable, strict=True)
        identity = request.state.request_id
        await run_sync(service.journal.note, identity, predictor, contents, predictions)
