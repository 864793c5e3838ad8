"""Read and write label files of other tools: COCO, Label Studio, and tables.

Label Studio: https://labelstud.io/guide/export (tasks with `data` and `annotations`).
COCO: https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rootstock.errors import DataError
from rootstock.tasks.annotation import Annotation, Shares
from rootstock.tasks.task import Task

Format = Literal["coco", "label-studio", "csv"]
TABLE_COLUMNS = ("path", "sha256", "label")


class Labelled(NamedTuple):
    """One image and its label; ``sha256`` is empty if the file does not contain it."""

    path: str
    sha256: str
    label: str
    size: tuple[int, int] = (1, 1)
    """Width and height in pixels of the upright image."""


def write_labels(images: Sequence[Labelled], task: Task, form: Format) -> str:
    """Return the content of a file in this format.

    Raises:
        DataError: The format cannot hold labels of this task.
    """
    if form == "csv":
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerows([TABLE_COLUMNS, *((one.path, one.sha256, one.label) for one in images)])
        return buffer.getvalue()
    annotated = [(one, task.annotate(one.label)) for one in images]
    if form == "coco":
        tree: Any = _to_coco(annotated)
    else:
        tree = [_to_label_studio(image, annotation) for image, annotation in annotated]
    return json.dumps(tree, indent=1, ensure_ascii=False) + "\n"


def read_labels(path: Path, task: Task) -> list[Labelled]:
    """Return the labels in a file of one of the formats; a JSON list is Label Studio's.

    Raises:
        DataError: The file has another format, or a label is not valid for this task.
    """
    hint = (
        f"pass a table with the columns {' or '.join(TABLE_COLUMNS[:2])}, and label; or an export "
        "from Label Studio (JSON) or in COCO format"
    )
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() != ".json":
            return _read_table(text)
        tree = json.loads(text)
        pairs = _read_label_studio(tree) if isinstance(tree, list) else _read_coco(tree)
    except (KeyError, TypeError, ValueError, IndexError, RecursionError, OSError) as error:
        why = f"{type(error).__name__}: {error}"
        raise DataError(f"{path} cannot be read as labels ({why})", hint=hint) from None
    labelled = []
    for image, annotation in pairs:
        try:
            labelled.append(image._replace(label=task.read_annotation(annotation)))
        except DataError as error:
            raise DataError(f"{path}, {image.path}: {error.message}", hint=error.hint) from None
    return labelled


def _read_table(text: str) -> list[Labelled]:
    reader = csv.DictReader(io.StringIO(text), strict=True)
    names = set(reader.fieldnames or ())
    if "label" not in names or not names & {"path", "sha256"}:
        raise ValueError(f"the columns are {', '.join(sorted(names))}")
    return [
        Labelled(row.get("path") or "", row.get("sha256") or "", row["label"] or "")
        for row in reader
    ]


def _to_coco(annotated: Sequence[tuple[Labelled, Annotation]]) -> dict[str, Any]:
    names = sorted({label for _, annotation in annotated for label in annotation.labels})
    number = {name: index for index, name in enumerate(names, start=1)}
    images: list[dict[str, Any]] = []
    marks: list[dict[str, Any]] = []
    for image_id, (image, annotation) in enumerate(annotated, start=1):
        if annotation.numbers:
            raise DataError("the COCO format cannot hold numbers", hint="choose another format")
        width, height = image.size
        images.append(
            {"id": image_id, "file_name": image.path, "width": width, "height": height}
            | {"sha256": image.sha256}
        )
        for label in annotation.labels:
            mark: dict[str, Any] = {"image_id": image_id, "category_id": number[label]}
            if annotation.box:
                left, top, right, bottom = annotation.box
                x, y = left * width, top * height
                box = [x, y, right * width - x, bottom * height - y]
                mark["bbox"] = [round(side, 3) for side in box]
                mark |= {"area": round(box[2] * box[3], 3), "iscrowd": 0}
            marks.append({"id": len(marks) + 1} | mark)
    categories = [{"id": index, "name": name} for name, index in number.items()]
    return {"images": images, "annotations": marks, "categories": categories}


def _read_coco(tree: dict[str, Any]) -> Iterable[tuple[Labelled, Annotation]]:
    names = {one["id"]: str(one["name"]) for one in tree["categories"]}
    marks = defaultdict(list)
    for one in tree["annotations"]:
        marks[one["image_id"]].append(one)
    pairs = []
    for image in tree["images"]:
        size = (int(image.get("width", 1)), int(image.get("height", 1)))
        some = marks[image["id"]]
        labels = tuple(dict.fromkeys(names[one["category_id"]] for one in some))
        boxes = [one["bbox"] for one in some if len(one.get("bbox") or ()) == 4]
        box = max(boxes, key=lambda box: box[2] * box[3], default=None)
        shares = _shares(box, *size) if box and "width" in image else None
        named = Labelled(str(image["file_name"]), str(image.get("sha256", "")), "", size)
        pairs.append((named, Annotation(labels, shares)))
    return pairs


def _to_label_studio(image: Labelled, annotation: Annotation) -> dict[str, Any]:
    where = {"from_name": "label", "to_name": "image"}
    result: list[dict[str, Any]] = []
    if annotation.box:
        left, top, right, bottom = (100 * share for share in annotation.box)
        value = {"x": left, "y": top, "width": right - left, "height": bottom - top}
        value = {name: round(side, 4) for name, side in value.items()} | {"rotation": 0}
        width, height = image.size
        result.append(
            {**where, "type": "rectanglelabels", "original_width": width}
            | {"original_height": height}
            | {"value": value | {"rectanglelabels": list(annotation.labels)}}
        )
    elif annotation.numbers:
        result += [
            {"from_name": name, "to_name": "image", "type": "number", "value": {"number": number}}
            for name, number in annotation.numbers.items()
        ]
    else:
        result.append({**where, "type": "choices", "value": {"choices": list(annotation.labels)}})
    data = {"image": image.path, "sha256": image.sha256}
    return {"data": data, "annotations": [{"result": result}]}


def _read_label_studio(tree: list[Any]) -> Iterable[tuple[Labelled, Annotation]]:
    pairs = []
    for entry in tree:
        finished = [one for one in entry["annotations"] if not one.get("was_cancelled")]
        if not finished:
            continue
        labels: list[str] = []
        numbers: dict[str, float] = {}
        boxes: list[Shares] = []
        for part in finished[-1]["result"]:
            value = part["value"]
            labels += [*value.get("choices", ()), *value.get("rectanglelabels", ())]
            if "number" in value:
                numbers[str(part.get("from_name", "target"))] = float(value["number"])
            if "rectanglelabels" in value:
                sides = [value[side] for side in ("x", "y", "width", "height")]
                boxes.append(_shares(sides, 100, 100))
        box = max(boxes, key=lambda one: (one[2] - one[0]) * (one[3] - one[1]), default=None)
        data = entry["data"]
        path = str(data.get("image") or next(iter(data.values())))
        unique = tuple(dict.fromkeys(map(str, labels)))
        named = Labelled(path, str(data.get("sha256", "")), "")
        pairs.append((named, Annotation(unique, box, numbers)))
    return pairs


def _shares(box: Sequence[float], width: float, height: float) -> Shares:
    x, y, wide, high = map(float, box)
    return x / width, y / height, (x + wide) / width, (y + high) / height
