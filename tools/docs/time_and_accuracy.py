"""The page "How long and how good", from the results of the benchmarks."""

import json
from pathlib import Path
from typing import Any

from rootstock.tasks import get_task
from tools.docs.markdown import make_table

RESULTS = Path(__file__).parents[2] / "benchmarks/results"
SETS = {
    "animals_boxes": "raccoons and kangaroos, one box each",
    "ants_bees": "photos of ants and bees",
    "blood_boxes": "blood smears, number of red cells",
    "brain_mri": "MRI slices with and without a tumour",
    "cifar10": "small photos of ten kinds",
    "flowers12": "twelve kinds of flowers",
    "sign_digits": "hand signs for ten digits",
    "street_scenes": "street scenes, what is in them",
    "tiny_imagenet": "small photos of many kinds",
}
INTRODUCTION = """# How long and how good

This page is made from the results below `benchmarks/results/` when the site is built. It shows what
others reached, to give you an idea. Your data and your machine decide: `rootstock plan FOLDER`
estimates both for them.

"""
FEW = """## Accuracy with few images

Test accuracy in percent by the number of training images per class: default backbone, head on
frozen features (`quality: fast`), mean of {seeds} draws. Command:
`python benchmarks/few_images.py`.

"""
TASKS = """## Other tasks

Default backbone with a head on frozen features. Command: `python benchmarks/tasks.py`.

"""
GROWTH = """## Seconds per stage

One run with small images (32 and 64 pixels), a small network and a head (`linear_probe`) on
{machine}. Each stage starts its own process, which takes about 5 seconds. Photos and larger
networks take longer; so do races and fine-tuning. Command: `python benchmarks/growth.py`.

"""


def make_time_page() -> str:
    """Return the page: accuracy by images and by task, and seconds per stage."""
    few = read_result("few_images")["cells"]
    head = [INTRODUCTION, FEW.format(seeds=few[0]["seeds"]), _few(few), "\n"]
    return "".join([*head, _tasks(), _growth()])


def read_result(name: str) -> dict[str, Any]:
    """Return a file below benchmarks/results."""
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return content


def _few(cells: list[dict[str, Any]]) -> str:
    counts = sorted({cell["per_class"] for cell in cells})
    found = {(cell["set"], cell["per_class"]): cell["accuracy"]["auto"] for cell in cells}
    rows = [
        (SETS[name], *(_percent(found.get((name, count))) for count in counts))
        for name in sorted({cell["set"] for cell in cells})
    ]
    return make_table(["images", *(str(count) for count in counts)], rows)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f}"


def _tasks() -> str:
    result = read_result("tasks")
    rows = []
    for name in ("multi_label", "regression", "localisation", "segmentation"):
        task = result[name]
        values, metric = task.get("median", task), get_task(name).headline
        rows.append((f"`{name}`", SETS[task["set"]], f"`{metric}`", f"{values[metric]:.3g}"))
    return TASKS + make_table(["task", "images", "metric", "test images"], rows) + "\n"


def _growth() -> str:
    result = read_result("growth")
    costs = result["runs"][-1]["costs"]
    stages = next(iter(costs.values()))
    rows = [
        (stage, *(f"{cost[stage]['seconds']:.0f}" for cost in costs.values())) for stage in stages
    ]
    first = [stage for stage in stages if "new" not in stage]
    sums = (sum(cost[stage]["seconds"] for stage in first) for cost in costs.values())
    rows.append(("first run", *(f"{seconds:.0f}" for seconds in sums)))
    header = ["stage", *(f"{int(size):,} images" for size in costs)]
    return GROWTH.format(machine=result["machine"]) + make_table(header, rows) + "\n"
