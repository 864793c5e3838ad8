"""What every route that classifies does: infer, count, answer, and let the watchers know."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from anyio.to_thread import run_sync
from fastapi import Request

from rootstock.errors import ImageError
from rootstock.model.predictor import Prediction, Predictor
from rootstock.service.http.problems import Problem, image_problem
from rootstock.service.http.uploads import Upload
from rootstock.service.inference.batcher import Row
from rootstock.service.inference.service import Outcome, Service

Answer = Prediction | Problem


def choose_model(service: Service, *, coverage: float | None = None) -> Predictor:
    """The model that answers this request: the champion, or the challenger for its share.

    Raises:
        Problem: there is no model yet, or none that can give prediction sets.
    """
    champion = service.holder.predictor
    chosen = service.challenger.canary(champion) if service.challenger else champion
    if coverage is None or chosen.bundle.reference is not None:
        return chosen
    if champion.bundle.reference is None:
        raise Problem(
            "invalid-request",
            "coverage: this model keeps no validation scores; train it again to have them.",
        )
    return champion


async def classify(
    service: Service,
    request: Request,
    predictor: Predictor,
    uploads: Sequence[Upload],
    *,
    top_k: int,
    coverage: float | None = None,
) -> tuple[Predictor, list[Answer]]:
    """Which model answered, and a Prediction or a Problem for each upload, in order.

    Where the challenger fails, the champion answers. Drift, challenger and journal learn of the
    answers, whichever route was asked.
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
) -> tuple[Predictor, list[Prediction]]:
    """As `classify`, for a protocol that has no room for the error of one image.

    Raises:
        Problem: also of the first that cannot be used, named as ``where``[number]; then nobody
            learns of the others, for nobody was answered.
    """
    uploads = [Upload(f"{where}[{number}]", content) for number, content in enumerate(contents)]
    predictor, answers = await _classify(
        service, request, predictor, uploads, top_k=top_k, whole=True
    )
    return predictor, [answer for answer in answers if isinstance(answer, Prediction)]


async def infer_uploads(
    service: Service, request: Request, predictor: Predictor, uploads: Sequence[Upload]
) -> list[Row | Problem]:
    """A Row or a Problem for each upload, in order; each is counted by its outcome."""
    results = await _infer_uploads(service, request, predictor, uploads)
    _count(service, results)
    return results


async def _infer_uploads(
    service: Service, request: Request, predictor: Predictor, uploads: Sequence[Upload]
) -> list[Row | Problem]:
    contents = [upload.content for upload in uploads if upload.problem is None]
    found: Iterator[Outcome] = iter(
        await service.answer(request, predictor, contents) if contents else []
    )
    results: list[Row | Problem] = []
    for upload in uploads:
        outcome = upload.problem or next(found)
        results.append(image_problem(outcome) if isinstance(outcome, ImageError) else outcome)
    return results


def _count(service: Service, results: Sequence[Row | Problem]) -> None:
    for result in results:
        word = "ok"
        if isinstance(result, Problem):
            word = (result.members or {}).get("reason", result.kind)
        service.telemetry.count_images(word)


async def _infer_or_fall_back(
    service: Service, request: Request, predictor: Predictor, uploads: Sequence[Upload]
) -> tuple[Predictor, list[Row | Problem]]:
    """The outcomes, and whose they are: what the challenger fails on is the champion's."""
    champion = service.holder.predictor
    try:
        found = await _infer_uploads(service, request, predictor, uploads)
        failed = any(isinstance(one, Problem) and one.kind == "internal" for one in found)
    except Problem as problem:
        if predictor is champion or problem.kind != "internal":
            raise
        failed = True
    if failed and predictor is not champion:
        predictor = champion
        found = await _infer_uploads(service, request, champion, uploads)
    _count(service, found)
    return predictor, found


async def _classify(
    service: Service,
    request: Request,
    predictor: Predictor,
    uploads: Sequence[Upload],
    *,
    top_k: int,
    coverage: float | None = None,
    whole: bool = False,
) -> tuple[Predictor, list[Answer]]:
    started = time.perf_counter()
    predictor, found = await _infer_or_fall_back(service, request, predictor, uploads)
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
    return predictor, answers


def _refuse_if_any_bad(uploads: Sequence[Upload], found: Sequence[Row | Problem]) -> None:
    for upload, outcome in zip(uploads, found, strict=True):
        if isinstance(outcome, Problem):
            detail = f"{upload.filename}: {outcome.detail}"
            raise Problem(outcome.kind, detail, outcome.headers, outcome.members)


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
