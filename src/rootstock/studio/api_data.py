"""Routes of the page Data: images, counts, pictures and the map."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
from fastapi import Depends
from fastapi import Query as Parameter
from fastapi.responses import Response

from rootstock.data.manifest import ImageRow
from rootstock.errors import ImageError
from rootstock.service.http.access import Router
from rootstock.service.http.problems import Problem
from rootstock.studio.feature_map import FeatureMap, installed_methods
from rootstock.studio.image_table import ImageTable, read_labels
from rootstock.studio.query import MAX_CORNERS, Query, count_facets, inside_polygon
from rootstock.studio.studio import Studio
from rootstock.studio.thumbnails import MEDIA_TYPE
from rootstock.tasks import get_task
from rootstock.tasks.task import Task

MAX_PAGE_IMAGES = 500
KEPT = "private, max-age=31536000, immutable"
"""Pictures are addressed by their content."""
_Texts = Annotated[list[str], Parameter(max_length=1_000)]


def read_query(
    term: _Texts = [],  # noqa: B006 - FastAPI's own way to declare a list
    split: _Texts = [],  # noqa: B006
    reason: _Texts = [],  # noqa: B006
    flag: _Texts = [],  # noqa: B006
    fact: _Texts = [],  # noqa: B006
    picture: int | None = None,
    min_side: int | None = None,
    max_side: int | None = None,
    text: str = "",
    order: str = "path",
) -> Query:
    """Return the filters of a request; a fact is `column=value`."""
    facts = [one.partition("=")[::2] for one in fact]
    return Query(
        *(tuple(term), tuple(split), tuple(reason), tuple(flag), tuple(facts)),
        *(picture, min_side, max_side, text, order),
    )


_Filters = Annotated[Query, Depends(read_query)]


def make_data_router(studio: Studio) -> Router:
    """Make the routes of the page Data."""
    router = Router("predict", prefix="/api")

    def select(filters: Query, lasso: str, method: str) -> tuple[ImageTable, np.ndarray]:
        table = studio.table
        inside = None
        if lasso:
            inside = _lasso(table, read_map(table, method), lasso)
        return table, filters.apply(table, inside)

    def read_map(table: ImageTable, method: str) -> FeatureMap:
        index = studio.project.features.get()
        return studio.maps.get(table.rows, studio.project.store, index, method)

    @router.get("/images")
    def images(
        filters: _Filters,
        offset: Annotated[int, Parameter(ge=0)] = 0,
        limit: Annotated[int, Parameter(ge=1, le=MAX_PAGE_IMAGES)] = 100,
        lasso: str = "",
        method: str = "pca",
    ) -> dict[str, Any]:
        """Return a page of the images that the filters let through."""
        table, numbers = select(filters, lasso, method)
        shown = numbers[offset : offset + limit].tolist()
        return {"total": len(numbers), "images": [describe(table, number) for number in shown]}

    @router.get("/facets")
    def facets(filters: _Filters, lasso: str = "", method: str = "pca") -> dict[str, Any]:
        """Return how many images each value of each filter has among those shown."""
        table, numbers = select(filters, lasso, method)
        return {"total": len(numbers), "facets": count_facets(table, numbers)}

    @router.get("/findings")
    def findings() -> dict[str, Any]:
        """Return what the data review found, the weightiest first."""
        review = studio.project.review.get()
        return {"findings": [asdict_record(one) for one in review.findings]}

    @router.get("/images/{digest}")
    def image(digest: str) -> dict[str, Any]:
        """Return everything that is known of one image."""
        table = studio.table
        number = require(table, digest)
        return describe(table, number) | {"facts": table.rows[number].facts}

    @router.get("/images/{digest}/thumbnail", response_class=Response)
    def thumbnail(digest: str) -> Response:
        """Return a small picture of an image."""
        return picture(digest, small=True)

    @router.get("/images/{digest}/picture", response_class=Response)
    def view(digest: str) -> Response:
        """Return an image to look at."""
        return picture(digest, small=False)

    def picture(digest: str, *, small: bool) -> Response:
        table = studio.table
        row = table.rows[require(table, digest)]
        draw = studio.thumbnails.read if small else studio.thumbnails.view
        rendering = studio.project.manifest.get().rendering
        try:
            content = draw(row, studio.project.images, rendering)
        except ImageError as error:
            raise Problem("unusable-image", error.message) from None
        return Response(content, media_type=MEDIA_TYPE, headers={"Cache-Control": KEPT})

    @router.get("/map")
    def feature_map(method: str = "pca") -> dict[str, Any]:
        """Return which images are on the map, in which colours, and the ways to draw one."""
        table = studio.table
        found = read_map(table, method)
        counts = table.stratum.count(found.rows)
        return {
            "method": method,
            "methods": installed_methods(),
            "total": len(found.rows),
            "names": list(counts),
        }

    @router.get("/map/image")
    def image_at(number: Annotated[int, Parameter(ge=0)], method: str = "pca") -> dict[str, Any]:
        """Return the image of a point of the map."""
        table = studio.table
        found = read_map(table, method)
        if number >= len(found.rows):
            raise Problem("not-found", "The map has no such point. Load the page again.")
        return describe(table, int(found.rows[number]))

    @router.get("/map/points", response_class=Response)
    def points(method: str = "pca") -> Response:
        """Return for each point x and y in 1/65535 and the number of its colour, as uint16."""
        table = studio.table
        found = read_map(table, method)
        order = {name: number for number, name in enumerate(table.stratum.count(found.rows))}
        colours = np.array([order.get(name, 0) for name in table.stratum.names] or [0], np.uint16)
        packed = np.empty((len(found.rows), 3), "<u2")
        packed[:, :2] = np.round(found.points * 65535)
        packed[:, 2] = colours[table.stratum.codes[found.rows]]
        return Response(packed.tobytes(), media_type="application/octet-stream")

    return router


def describe(table: ImageTable, number: int) -> dict[str, Any]:
    """Return one image as the grid shows it."""
    row = table.rows[number]
    doubt = table.doubts.get(number)
    task = get_task(table.task)
    return {
        "id": row.sha256,
        "path": row.path,
        "label": _caption(row, task),
        "split": row.split,
        "reason": row.quarantine,
        "width": row.width,
        "height": row.height,
        "bytes": row.bytes,
        "picture": str(row.picture),  # JavaScript rounds large numbers
        "flags": [flag for flag, has in table.flags.items() if has[number]],
        **({"doubt": asdict(doubt)} if doubt else {}),
    }


def _caption(row: ImageRow, task: Task) -> str:
    # The target of an image that is left out was never checked.
    return (
        row.target
        if row.quarantine
        else ", ".join(read_labels(task, row.target)) or task.caption(row.target)
    )


def asdict_record(record: Any) -> dict[str, Any]:
    """Return a record as JSON holds it."""
    return dict(record.model_dump(mode="json"))


def require(table: ImageTable, digest: str) -> int:
    """Return the number of an image.

    Raises:
        Problem: no image of the project has this SHA-256.
    """
    number = table.find(digest)
    if number is None:
        raise Problem("not-found", "No image of the project has this hash. Load the page again.")
    return number


def _lasso(table: ImageTable, found: FeatureMap, text: str) -> np.ndarray:
    """Return bool[N]: which images are inside a polygon given as `x,y,x,y,...` in 0..1."""
    try:
        numbers = np.array([float(part) for part in text.split(",")])
        corners = numbers.reshape(-1, 2)
    except ValueError:
        raise Problem("invalid-request", "The lasso is not a list of x and y.") from None
    if not 3 <= len(corners) <= MAX_CORNERS or not np.isfinite(corners).all():
        raise Problem("invalid-request", f"A lasso has 3 to {MAX_CORNERS} corners.")
    inside = np.zeros(len(table.rows), bool)
    inside[found.rows[inside_polygon(found.points, corners)]] = True
    return inside
