"""Routes of the Data page: images, counts, pictures, and the map."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
from fastapi import Depends
from fastapi import Query as Parameter
from fastapi.responses import Response

from rootstock.errors import ImageError
from rootstock.service.http.access import Router
from rootstock.service.http.problems import Problem
from rootstock.studio.feature_map import installed_methods
from rootstock.studio.image_table import ImageTable
from rootstock.studio.labels import Labels
from rootstock.studio.query import MAX_CORNERS, Query, count_facets
from rootstock.studio.studio import Studio
from rootstock.studio.thumbnails import MEDIA_TYPE

MAX_PAGE_IMAGES = 500
KEPT = "private, max-age=31536000, immutable"
"""The address of a picture contains its hash, so browsers may cache it."""
_Texts = Annotated[list[str], Parameter(max_length=1_000)]


def read_query(
    term: _Texts = [],  # noqa: B006 - FastAPI's own way to declare a list
    split: _Texts = [],  # noqa: B006
    reason: _Texts = [],  # noqa: B006
    flag: _Texts = [],  # noqa: B006
    fact: _Texts = [],  # noqa: B006
    said: _Texts = [],  # noqa: B006
    target: _Texts = [],  # noqa: B006
    picture: int | None = None,
    min_side: int | None = None,
    max_side: int | None = None,
    text: str = "",
    order: str = "path",
    lasso: str = "",
    method: str = "pca",
) -> Query:
    """Return the filters of a request; a metadata filter is `column=value`."""
    facts = [(one.partition("=")[0], one.partition("=")[2]) for one in fact]
    return Query(
        terms=tuple(term),
        splits=tuple(split),
        reasons=tuple(reason),
        flags=tuple(flag),
        facts=tuple(facts),
        said=tuple(said),
        targets=tuple(target),
        picture=picture,
        min_side=min_side,
        max_side=max_side,
        text=text,
        order=order,
        lasso=_read_lasso(lasso),
        method=method,
    )


Filters = Annotated[Query, Depends(read_query)]


def make_data_router(studio: Studio) -> Router:
    """Create the routes of the Data page."""
    router = Router("predict", prefix="/api")

    @router.get("/images")
    def images(
        filters: Filters,
        offset: Annotated[int, Parameter(ge=0)] = 0,
        limit: Annotated[int, Parameter(ge=1, le=MAX_PAGE_IMAGES)] = 100,
    ) -> dict[str, Any]:
        """Return a page of the images that match the filters."""
        table, labels, numbers = studio.table, studio.desk.read(), studio.select(filters)
        shown = numbers[offset : offset + limit].tolist()
        images = [describe(table, labels, number) for number in shown]
        return {"total": len(numbers), "images": images}

    @router.get("/facets")
    def facets(filters: Filters) -> dict[str, Any]:
        """Return how many of the matching images have each value of each filter."""
        numbers = studio.select(filters)
        return {"total": len(numbers), "facets": count_facets(studio.table, numbers)}

    @router.get("/findings")
    def findings() -> dict[str, Any]:
        """Return the findings of the data review, the most important first."""
        review = studio.project.review.get()
        return {"findings": [asdict_record(one) for one in review.findings]}

    @router.get("/images/{digest}")
    def image(digest: str) -> dict[str, Any]:
        """Return everything known about one image."""
        table = studio.table
        number = require(table, digest)
        return describe(table, studio.desk.read(), number) | {"facts": table.rows[number].facts}

    @router.get("/images/{digest}/thumbnail", response_class=Response)
    def thumbnail(digest: str) -> Response:
        """Return a small picture of an image."""
        return picture(digest, small=True)

    @router.get("/images/{digest}/picture", response_class=Response)
    def view(digest: str) -> Response:
        """Return a picture of an image in viewing size."""
        return picture(digest, small=False)

    def picture(digest: str, *, small: bool) -> Response:
        row, root, _ = studio.find_image(digest)
        draw = studio.thumbnails.read if small else studio.thumbnails.view
        rendering = studio.project.manifest.get().rendering
        try:
            content = draw(row, root, rendering)
        except ImageError as error:
            raise Problem("unusable-image", error.message) from None
        return Response(content, media_type=MEDIA_TYPE, headers={"Cache-Control": KEPT})

    @router.get("/map")
    def feature_map(method: str = "pca") -> dict[str, Any]:
        """Return the images on the map, the colours, and the available methods."""
        table = studio.table
        found = studio.read_map(method)
        counts = table.stratum.count(found.rows)
        return {
            "method": method,
            "methods": installed_methods(),
            "total": len(found.rows),
            "names": list(counts),
        }

    @router.get("/map/image")
    def image_at(number: Annotated[int, Parameter(ge=0)], method: str = "pca") -> dict[str, Any]:
        """Return the image of a point on the map."""
        table = studio.table
        found = studio.read_map(method)
        if number >= len(found.rows):
            raise Problem("not-found", "The map has no such point. Reload the page.")
        return describe(table, studio.desk.read(), int(found.rows[number]))

    @router.get("/map/points", response_class=Response)
    def points(method: str = "pca") -> Response:
        """Return per point x and y in 1/65535 and the number of its colour, as uint16."""
        table = studio.table
        found = studio.read_map(method)
        order = {name: number for number, name in enumerate(table.stratum.count(found.rows))}
        colours = np.array([order.get(name, 0) for name in table.stratum.names] or [0], np.uint16)
        packed = np.empty((len(found.rows), 3), "<u2")
        packed[:, :2] = np.round(found.points * 65535)
        packed[:, 2] = colours[table.stratum.codes[found.rows]]
        return Response(packed.tobytes(), media_type="application/octet-stream")

    return router


def describe(table: ImageTable, labels: Labels, number: int) -> dict[str, Any]:
    """Return one image as the grid shows it."""
    row = table.rows[number]
    doubt = table.doubts.get(number)
    return {
        "id": row.sha256,
        "path": row.path,
        **labels.describe(row),
        "split": row.split,
        "reason": row.quarantine,
        "width": row.width,
        "height": row.height,
        "bytes": row.bytes,
        "picture": str(row.picture),  # JavaScript rounds large numbers
        "flags": [flag for flag, has in table.flags.items() if has[number]],
        **({"said": table.said[number]} if number in table.said else {}),
        **({"doubt": asdict(doubt)} if doubt else {}),
    }


def asdict_record(record: Any) -> dict[str, Any]:
    """Return a record in a form that JSON can hold."""
    return dict(record.model_dump(mode="json"))


def require(table: ImageTable, digest: str) -> int:
    """Return the number of an image.

    Raises:
        Problem: No image of the project has this SHA-256.
    """
    number = table.find(digest)
    if number is None:
        raise Problem("not-found", "No image of the project has this hash. Reload the page.")
    return number


def _read_lasso(text: str) -> tuple[float, ...]:
    """Return the corners of a line given as `x,y,x,y,...`; none for an empty text."""
    try:
        numbers = tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise Problem("invalid-request", "A lasso must be a list of x and y values.") from None
    if numbers and (len(numbers) % 2 or not 6 <= len(numbers) <= 2 * MAX_CORNERS):
        raise Problem("invalid-request", f"A lasso must have 3 to {MAX_CORNERS} corners.")
    if not np.isfinite(numbers).all():
        raise Problem("invalid-request", "The corners of a lasso must be numbers.")
    return numbers
