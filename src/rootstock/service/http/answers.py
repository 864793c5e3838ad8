"""Steps shared by all routes that classify: infer, count, answer, notify the watchers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from anyio.to_thread import run_sync

from rootstock.errors import ImageError
from rootstock.model.known_images import unnamed
from rootstock.model.predictor import DEFAULT_OPTIONS, Predictor
from rootstock.service.http.problems import Problem, image_problem
from rootstock.service.http.uploads import Upload
from rootstock.service.inference.batcher import Row
from rootstock.service.inference.service import Caller, Service
from rootstock.tasks import answer_type
from rootstock.tasks.answer import Answer, AnswerError
from rootstock.tasks.task import AnswerOptions


def choose_model(service: Service, options: AnswerOptions = DEFAULT_OPTIONS) -> Predictor:
    """Return the model for this request: the champion, or the challenger for its share of traffic.

    Raises:
        NotLoadedError: No model is loaded yet.
        Problem: No model supports the requested options.
    """
    champion = service.holder.predictor
    chosen = service.challenger.canary(champion) if service.challenger else champion
    if not _lacks(chosen, options):
        return chosen
    if lack := _lacks(champion, options):
        raise Problem("invalid-request", lack)
    return champion


def _lacks(predictor: Predictor, options: AnswerOptions) -> str:
    """Return the requested option that the model does not support; empty if it supports all."""
    bundle = predictor.bundle
    if options.coverage is not None and bundle.reference is None:
        return "coverage: this model has no validation scores; train it again to add them."
    if options.neighbours and bundle.known_images is None:
        error = unnamed()
        return f"neighbours: {error.message}; {error.hint}."
    return ""


async def classify(
    service: Service,
    request: Caller,
    predictor: Predictor,
    uploads: Sequence[Upload],
    options: AnswerOptions,
    *,
    all_or_none: bool = False,
    explained: str | None = None,
) -> tuple[Predictor, list[Answer]]:
    """Return the model that answered, and one answer per upload, in order.

    ``explained`` names the output to make heat maps of, as in `Service.infer`.

    If the challenger fails, the champion answers. Drift, challenger, and journal see the answers
    of every route. With ``all_or_none``, one unusable upload rejects the whole request.
    Raises:
        Problem: As `Service.answer`; with ``all_or_none``, also for the first unusable upload.
    """
    started = time.perf_counter()
    predictor, results = await _infer_or_fall_back(service, request, predictor, uploads, explained)
    seconds = time.perf_counter() - started
    if all_or_none:
        _require_all(uploads, results)
    answers = [
        answer_type(predictor.task.name)(filename=upload.filename, error=describe(result))
        if isinstance(result, Problem)
        else replace(answer_row(predictor, result, options), filename=upload.filename)
        for upload, result in zip(uploads, results, strict=True)
    ]
    usable = [
        (upload.content, answer)
        for upload, answer in zip(uploads, answers, strict=True)
        if answer.error is None
    ]
    if usable:
        await _inform_watchers(service, request, predictor, usable, seconds)
    return predictor, answers


def answer_row(predictor: Predictor, row: Row, options: AnswerOptions) -> Answer:
    """Return the answer for one row."""
    answer = predictor.answer(row.decision, row.features, options._replace(size=row.size))
    heat_maps = tuple(one.to_answer() for one in row.heat_maps)
    return replace(answer, heat_maps=heat_maps or None)


async def classify_all(
    service: Service,
    request: Caller,
    predictor: Predictor,
    contents: Sequence[bytes],
    *,
    column: str,
    options: AnswerOptions,
) -> tuple[Predictor, list[Answer]]:
    """Classify as `classify` does, for a protocol that cannot report an error per image.

    Raises:
        Problem: Also for the first unusable image, which it calls ``column``[number].
    """
    uploads = [Upload(f"{column}[{number}]", content) for number, content in enumerate(contents)]
    return await classify(service, request, predictor, uploads, options, all_or_none=True)


def describe(problem: Problem) -> AnswerError:
    """Convert a problem into the error of one image."""
    members = problem.body()
    return AnswerError(members["detail"], members.get("reason"), members["type"], members["title"])


async def infer_uploads(
    service: Service,
    request: Caller,
    predictor: Predictor,
    uploads: Sequence[Upload],
    explained: str | None = None,
) -> list[Row | Problem]:
    """Return a Row or a Problem per upload, in order, and count the outcomes."""
    results = await _infer(service, request, predictor, uploads, explained)
    _count(service, results)
    return results


async def _infer_or_fall_back(
    service: Service,
    request: Caller,
    predictor: Predictor,
    uploads: Sequence[Upload],
    explained: str | None,
) -> tuple[Predictor, list[Row | Problem]]:
    """Infer with ``predictor``; if it is the challenger and fails, use the champion."""
    champion = service.holder.predictor
    if predictor is not champion:
        try:
            results = await _infer(service, request, predictor, uploads, explained)
            failed = any(isinstance(one, Problem) and one.kind == "internal" for one in results)
        except Problem as problem:
            if problem.kind != "internal":
                raise
            failed = True
        if not failed:
            _count(service, results)
            return predictor, results
    return champion, await infer_uploads(service, request, champion, uploads, explained)


async def _infer(
    service: Service,
    request: Caller,
    predictor: Predictor,
    uploads: Sequence[Upload],
    explained: str | None,
) -> list[Row | Problem]:
    contents = [upload.content for upload in uploads]
    outcomes = await service.answer(request, predictor, contents, explained)
    return [
        image_problem(outcome) if isinstance(outcome, ImageError) else outcome
        for outcome in outcomes
    ]


def _count(service: Service, results: Sequence[Row | Problem]) -> None:
    for result in results:
        outcome = "ok"
        if isinstance(result, Problem):
            outcome = (result.members or {}).get("reason", result.kind)
        service.telemetry.count_images(service.name, outcome)


def _require_all(uploads: Sequence[Upload], results: Sequence[Row | Problem]) -> None:
    for upload, result in zip(uploads, results, strict=True):
        if isinstance(result, Problem):
            detail = f"{upload.filename}: {result.detail}"
            raise Problem(result.kind, detail, result.headers, result.members)


async def _inform_watchers(
    service: Service,
    request: Caller,
    predictor: Predictor,
    usable: Sequence[tuple[bytes, Answer]],
    seconds: float,
) -> None:
    is_champion = predictor is service.holder.predictor
    for content, answer in usable:
        if answer.unknown:
            service.telemetry.count_unknown(service.name)
        if is_champion:
            service.drift.note(predictor, answer)
            if service.challenger is not None:
                service.challenger.shadow(predictor, content, answer.text, seconds / len(usable))
    if service.journal is not None:
        contents, answers = zip(*usable, strict=True)
        identity = request.state.request_id
        await run_sync(service.journal.note, identity, predictor, contents, answers)
