"""Routes of the Label page: the queue, the model's answers, and corrections."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Body, Request
from fastapi.responses import Response

from rootstock.data.label_corrections import ORIGINAL, REMOVE
from rootstock.errors import ImageError
from rootstock.service.http.access import Router
from rootstock.service.http.problems import Problem
from rootstock.studio.api_data import Filters, describe
from rootstock.studio.label_queue import MAX_QUEUE_IMAGES, Source
from rootstock.studio.labels import read_annotation
from rootstock.studio.opinions import Opinion
from rootstock.studio.pool import make_row
from rootstock.studio.query import Query
from rootstock.studio.studio import Studio

_Text = Annotated[str, Body(max_length=500)]
_Label = Annotated[str | None, Body(max_length=20_000)]


def make_label_router(studio: Studio) -> Router:
    """Create the routes of the Label page."""
    router = Router("predict", prefix="/api")

    @router.get("/queue")
    def queue(filters: Filters, source: Source = "all") -> dict[str, Any]:
        """Return the images to look at: those of the filters, or the most pressing of a source."""
        table, labels = studio.table, studio.desk.read()
        if filters != Query():
            numbers = studio.select(filters)
            shown = [n for n in numbers.tolist() if table.rows[n].sha256][:MAX_QUEUE_IMAGES]
            images = [describe(table, labels, number) for number in shown]
            return {"total": len(numbers), "images": images, "by": "filters"}
        images = []
        for row in studio.queue.list_rows(source):
            number = table.find(row.sha256)
            known = labels.describe(make_row(row.path, row.sha256, 0)) if number is None else {}
            facts = {"id": row.sha256, "path": row.path, "flags": [], **known}
            if number is not None:
                facts = describe(table, labels, number)
            item = row.items[0]
            images.append(
                facts | {"reasons": row.reasons, "suggested": row.suggested, "origin": item.origin}
            )
        return {"total": len(images), "images": images, "by": source}

    @router.get("/images/{digest}/opinion")
    def opinion(digest: str) -> dict[str, Any]:
        """Return the model's answer for an image, with similar training images."""
        found = ask(digest)
        studio.refits.prepare()  # a person who looks at an image may soon want a new head
        table = studio.table
        neighbours = [
            dict(one) | {"id": table.rows[number].sha256}
            for one in found.answer.get("neighbours", [])
            if (number := table.by_path.get(one["path"])) is not None
        ]
        return {
            "answer": found.answer,
            "neighbours": neighbours,
            "explained": found.explained,
            "size": found.size,
        }

    @router.get("/images/{digest}/heat-map", response_class=Response)
    def heat_map(digest: str) -> Response:
        """Return where in the image the model sees the evidence for its answer."""
        return Response(ask(digest).heat_map, media_type="image/png")

    def ask(digest: str) -> Opinion:
        row, root, _ = studio.find_image(digest)
        try:
            return studio.opinions.get(row, root)
        except ImageError as error:
            raise Problem("unusable-image", error.message) from None

    @router.get("/images/{digest}/label")
    def label(digest: str) -> dict[str, Any]:
        """Return the current label of an image, in parts."""
        labels = studio.desk.read()
        row, _, _ = studio.find_image(digest)
        return labels.describe(row) | {"parts": labels.annotate(labels.text_of(row))}

    @router.post("/images/{digest}/label")
    def correct(
        request: Request,
        digest: str,
        seen: _Label = None,
        who: _Text = "",
        why: _Text = "",
        text: _Label = None,
        parts: Annotated[dict[str, Any] | None, Body()] = None,
        remove: Annotated[bool, Body()] = False,
        original: Annotated[bool, Body()] = False,
    ) -> dict[str, Any]:
        """Write a correction: a label as in the manifest, its parts, or the removal of the image.

        ``original`` undoes all corrections of the image. Without ``seen`` the label in force is
        the one that the person saw. The first label of an image of the pool or of the
        service copies it into the data.
        """
        row, root, in_data = studio.find_image(digest)
        person = request.state.session.name or who.strip()
        if not person:
            raise Problem("invalid-request", "Enter your name: corrections are stored with a name.")
        if text is None and parts is None and not (remove or original):
            raise Problem("invalid-request", "Choose a label, or remove the image.")
        seen = studio.desk.read().source.as_old(row) if seen is None else seen
        if original or remove:
            text = ORIGINAL if original else REMOVE
        new = text if text is not None else read_annotation(parts or {})
        try:
            if in_data:
                facts = studio.desk.write(row, new, seen=seen, who=person, why=why)
            else:
                facts = studio.desk.adopt(row, root, new, seen=seen, who=person, why=why)
        except ImageError as error:
            raise Problem("unusable-image", error.message) from None
        studio.refits.prepare()
        labels = studio.desk.read()
        return facts | {"parts": labels.annotate(labels.text_of(row))}

    @router.get("/pool")
    def pool() -> dict[str, Any]:
        """Return the folder of images without labels, and how far its ranking is."""
        return studio.pool.describe()

    @router.post("/pool/rank")
    def rank() -> dict[str, Any]:
        """Rank the images of the folder that have no label yet."""
        return studio.pool.rank()

    @router.get("/corrections")
    def corrections() -> dict[str, Any]:
        """Return how many labels people have corrected, and the conflicts between them."""
        labels, table = studio.desk.read(), studio.table
        numbers = [table.find(digest) for digest in labels.disputed]
        return {
            "total": len(labels.corrected),
            "people": len({one.who for one in labels.corrected.values()}),
            "file": str(labels.source.path),
            "conflicts": [describe(table, labels, one) for one in numbers if one is not None],
        }

    return router


def make_pool_router(studio: Studio) -> Router:
    """Make the route that names a folder of this machine, which only an admin may do."""
    router = Router("admin", prefix="/api/pool")

    @router.post("/choose")
    def choose(folder: Annotated[str, Body(embed=True, max_length=4096)]) -> dict[str, Any]:
        """Look at the images of a folder, and rank them."""
        path = (studio.project.root / folder).expanduser()
        if not folder.strip() or not path.is_dir():
            raise Problem("invalid-request", f"There is no folder {path} on the studio's machine.")
        return studio.pool.choose(path)

    return router
