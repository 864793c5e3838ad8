"""The page "How long and how good", from the results of the benchmarks."""

import json
from pathlib import Path
from typing import Any

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
WHOLE = """## Whole runs

`rootstock train` with the default backbone on a processor, from the images to the report. Processor
time is that of all cores together. The machines had other work too (column load), so the minutes on
the clock are longer than on an idle machine. Command: `{command}`.

"""


def make_time_page() -> str:
    """Return the page: accuracy with few images, and time and quality of whole runs."""
    few = read_result("few_images")["cells"]
    return "".join([INTRODUCTION, FEW.format(seeds=few[0]["seeds"]), _few(few), "\n", _whole()])


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


def _whole() -> str:
    if not (RESULTS / "time_and_accuracy.json").exists():
        return ""
    result = read_result("time_and_accuracy")
    header = ["images", "quality", "training images", "strategy", "result on test images"]
    header += ["processor minutes", "minutes", "load", "machine"]
    rows = [
        (
            *(SETS[run["set"]], run["quality"], f"{run['train_images']:,}"),
            *(f"`{run['strategy']}`", _result(run), run["processor_minutes"], run["minutes"]),
            *(run["load_before"], run["machine"]),
        )
        for run in result["runs"]
    ]
    return WHOLE.format(command=result["command"]) + make_table(header, rows)


def _result(run: dict[str, Any]) -> str:
    """Return a share in percent; a metric that is not a share as it is."""
    words = run["metric"].replace("_", " ")
    values = [run[key] for key in ("value", "low", "high")]
    if max(values) > 1:
        return "{}: {:.2f} ({:.2f} to {:.2f})".format(words, *values)
    return "{}: {:.1f} % ({:.0f} to {:.0f})".format(words, *(100 * value for value in values))
