"""Write docs/benchmarks.md from the result files, one table per subject.

    python benchmarks/tables.py [--print]

A result file is JSON in benchmarks/results. The page shows its keys `command`, `machine`, and
`date` below the table, and `load`, the load of the machine, if it is known. To add a subject, add a
function to table_rows.py that turns the content of its file into rows, and an entry to SUBJECTS. A
file without such an entry is shown as a table of its numbers.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import table_rows
from table_rows import Result, Rows

from rootstock.system.escape import Markdown, markdown_table

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
PAGE = ROOT / "docs/benchmarks.md"
INTRODUCTION = """# Benchmarks

`python benchmarks/tables.py` generates this page from the files in `benchmarks/results`. There is
one table per subject, with its command, machine, and date. Nothing ran on a GPU. If a load is
given, the machine had other work to do: compare times within a table, not between tables.

The image sets are not part of the project. Each script reports the sets that it does not find.
"""

UNMEASURED = """## Scripts without a result file

These scripts print their tables. They have no result file yet.

"""


class Subject(NamedTuple):
    """A result file, the title and text of its section, and the rows of its table."""

    name: str
    title: str
    about: str
    rows: Callable[[Result], Rows]


SUBJECTS = (
    Subject(
        "time_and_accuracy",
        "Time and accuracy",
        "`rootstock train` with the default backbone, all choices left to the plan.",
        table_rows.time_and_accuracy,
    ),
    Subject(
        "default_backbone",
        "The default backbone",
        "Test accuracy of a linear head on pooled features, each network at its card's input size. "
        "Numbers on the first screen of the README come from this table.",
        table_rows.default_backbone,
    ),
    Subject(
        "few_images",
        "Few images per class",
        "Test accuracy on features of the default backbone, means over three seeds. `auto` is the "
        "head search of a plan without fine-tuning. The last two columns are in points.",
        table_rows.few_images,
    ),
    Subject(
        "fewshot",
        "New classes from one or five images",
        "Accuracy of episodes with five classes, on features of the default backbone, with the "
        "standard error in points. `rootstock enroll` uses the same two ways.",
        table_rows.fewshot,
    ),
    Subject(
        "fewshot", "Search for similar images", "Exact search among random rows.", table_rows.search
    ),
    Subject(
        "regret",
        "The planner compared with hindsight",
        "Test accuracy of every strategy, and of `auto`, with processor minutes in brackets. "
        "Regret: the points by which the best strategy beats `auto`. Time: minutes of `auto` "
        "divided by those of all strategies. Last column: logistic regression on features of the "
        "same backbone. With about 100 test images, the standard error is three to four points.",
        table_rows.regret,
    ),
    Subject(
        "tasks",
        "Other tasks",
        "Heads on features of the default backbone, compared with scikit-learn on features of "
        "the last depth. Several splits: medians.",
        table_rows.tasks,
    ),
    Subject(
        "ensemble",
        "Several networks",
        "One network and the average of three (`train.ensemble: 3`): 200 training images, at most "
        "six epochs, one seed. The gain on the validation images decides whether the average is "
        "kept. Milliseconds: ONNX Runtime on one core, both models in turns.",
        table_rows.ensemble,
    ),
    Subject(
        "peers",
        "Other libraries",
        "The same weights (EfficientNet-Lite0), training images, and test images. Processor "
        "seconds of all processes, from the images on disk to the model. Ultralytics trains this "
        "network with its own trainer and defaults, since its networks come from its server. "
        "AutoGluon MultiModal uses its preset `medium_quality`.",
        table_rows.peers,
    ),
    Subject(
        "int8",
        "int8 and float32",
        "The same model, one core, in turns, medians of processor time. Ratios in brackets.",
        table_rows.int8,
    ),
    Subject(
        "int8_features",
        "Features in int8",
        "All of the extraction in turns, in float32 and with `features.precision: int8`, and a "
        "head on each in five-fold cross-validation. Ratios in brackets.",
        table_rows.int8_features,
    ),
    Subject(
        "int8_finetuned",
        "Fine-tuned networks in int8",
        "The default backbone after a short fine-tuning, in float32 and in int8, and what training "
        "decides about its int8 twin. Three epochs, 180 or 104 validation images.",
        table_rows.int8_finetuned,
    ),
    Subject(
        "batch",
        "Many images at once",
        "`rootstock predict FOLDER --out answers.parquet`: images per second of the parts and of "
        "the whole command. The bound is decoding and engine together.",
        table_rows.batch,
    ),
    Subject(
        "refit",
        "A new head",
        "Seconds: a head for 10,000 images of 20 classes, from stored features; then the whole way "
        "for ants and bees, from the correction in the studio to the answer over HTTP. In the "
        "first round, studio and service load PyTorch and MLflow.",
        table_rows.refit,
    ),
    Subject(
        "labels_saved",
        "Labels saved",
        "Labels until the accuracy reaches 95 % of that with all labels, means over three seeds. "
        "The last column: 10 % of the labels are made wrong; this share of them is in the first "
        "20 % of the queue.",
        table_rows.labels_saved,
    ),
    Subject(
        "estimated_accuracy",
        "Accuracy estimated without labels",
        "Test images, six corruptions of them, and the first half of the classes. The service "
        "withholds an estimate if drift is high or validation images are few; the last column is "
        "the largest error that it avoided this way.",
        table_rows.estimated_accuracy,
    ),
    Subject(
        "explain",
        "Heat maps",
        "Raccoons and kangaroos with boxes. Pointing game: is the strongest position inside the "
        "box? Deletion and insertion: mean probability while parts are hidden (lower is better) "
        "or shown (higher is better), compared with a random order.",
        table_rows.numbers,
    ),
    Subject(
        "growth",
        "Cost of growth",
        "CIFAR-10 and Tiny ImageNet in ten classes, `linear_probe`, each stage in a separate "
        "process. Most stages need about 900 MB for torch.",
        table_rows.growth,
    ),
    Subject(
        "image",
        "The inference image",
        "Packages and megabytes, before and after the service got a separate extra. The size of "
        "the base image is assumed.",
        table_rows.image,
    ),
    Subject(
        "mutation",
        "Tests",
        "Share of small changes to the code (mutants) that a test notices.",
        table_rows.mutation,
    ),
)


def render_page() -> str:
    """Return the page for the files in benchmarks/results."""
    known = {subject.name for subject in SUBJECTS}
    others = [path.stem for path in sorted(RESULTS.glob("*.json")) if path.stem not in known]
    subjects = [
        *SUBJECTS,
        *(Subject(name, table_rows.in_words(name), "", table_rows.numbers) for name in others),
    ]
    sections = [render_section(one) for one in subjects if (RESULTS / f"{one.name}.json").exists()]
    return "\n".join([INTRODUCTION, *sections, UNMEASURED + "\n".join(list_unmeasured())]) + "\n"


def render_section(subject: Subject) -> str:
    """Return one section: title, text, table, and the facts about the run."""
    result = json.loads((RESULTS / f"{subject.name}.json").read_text(encoding="utf-8"))
    header, *rows = ([as_code(cell) for cell in row] for row in subject.rows(result))
    about = [textwrap.fill(subject.about, 120, break_long_words=False), ""] if subject.about else []
    newest = result if "date" in result else result["runs"][-1]
    facts = [f"Machine: {newest['machine']}.", f"Date: {newest['date']}."]
    if load := result.get("load"):
        value = load["before"] if isinstance(load, dict) else load
        facts.insert(1, f"Load of the machine: {value}.")
    table = markdown_table(header, rows)
    lines = [f"## {subject.title}", "", *about, *table, "", "```", result["command"], "```"]
    return "\n".join([*lines, "", " ".join(facts), ""])


def as_code(cell: object) -> object:
    """Return a cell; names with an underscore as code."""
    text = str(cell)
    return Markdown(f"`{text}`") if re.fullmatch(r"[a-z]+(_[a-z]+)+", text) else text


def list_unmeasured() -> Iterator[str]:
    """Yield a line with the first sentence and the command of each script without a result file."""
    measured = {path.stem for path in RESULTS.glob("*.json")}
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        command = f"python benchmarks/{path.name}"
        if path.stem in {*measured, Path(__file__).stem} or f"    {command}" not in text:
            continue
        sentence = text.split('"""')[1].split("\n\n")[0].replace("\n", " ")
        yield f"- `{command}`: {sentence}"


if __name__ == "__main__":
    if sys.argv[1:] == ["--print"]:
        sys.stdout.write(render_page())
    else:
        PAGE.write_text(render_page(), encoding="utf-8")
