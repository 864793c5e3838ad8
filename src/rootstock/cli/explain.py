"""Commands that show how a model decides: explain, visualise, robustness."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from itertools import islice
from pathlib import Path
from typing import Any

from rootstock.cli.common import (
    add_command,
    add_options,
    open_model,
    print_json,
    read_config,
    workspace,
)
from rootstock.cli.predict import list_images, positive, prepare_files
from rootstock.system.escape import escape_terminal


def add_commands(commands: Any) -> None:
    """Add explain, visualise and robustness."""
    command = add_command(
        commands, "explain", explain, "show which parts of an image an answer depends on"
    )
    command.add_argument(
        "images", type=Path, nargs="+", metavar="IMAGE", help="a file, or a folder of images"
    )
    command.add_argument("--model", default="", help="model directory or models:/ URI")
    command.add_argument("--out", type=Path, required=True, help="folder for the pictures (PNG)")
    command.add_argument(
        "--output",
        default="",
        metavar="NAME",
        help="the class, label or number to explain, or `box`; default: the whole answer",
    )
    command.add_argument(
        "--method",
        choices=("auto", "maps", "occlusion"),
        default="auto",
        help="maps: exact and fast; occlusion: hides parts of the image, works for every network",
    )
    add_options(command, "json")

    command = add_command(
        commands, "visualise", visualise, "write a page with pictures of a network's inner layers"
    )
    command.add_argument(
        "images", type=Path, nargs="+", metavar="IMAGE", help="a file, or a folder of images"
    )
    command.add_argument("--model", default="", help="model directory or models:/ URI")
    command.add_argument("--out", type=Path, required=True, help="the page to write (HTML)")

    command = add_command(
        commands,
        "robustness",
        robustness,
        "measure how corruptions and attacks change a model's answers",
    )
    command.add_argument(
        "data", type=Path, help="labelled images; only the test split is used, if there is one"
    )
    command.add_argument("--model", default="", help="model directory or models:/ URI")
    command.add_argument("--out", type=Path, required=True, help="folder for the report")
    command.add_argument(
        "--images",
        type=positive,
        default=100,
        metavar="N",
        help="maximum number of images (default 100)",
    )
    add_options(command, "set", "json")


def explain(options: argparse.Namespace) -> None:
    """Write one picture per image; exit with 1 if an image cannot be used."""
    from rootstock.explain.heat_map import explain_images
    from rootstock.explain.overlay import draw_overlay, encode_png
    from rootstock.explain.subject import find_subject
    from rootstock.model.predictor import Predictor
    from rootstock.system.files import write_atomic
    from rootstock.tasks.task import AnswerOptions

    paths = [path for given in options.images for path in list_images(given)]
    with open_model(options.model) as directory:
        predictor = Predictor(directory)
        if options.output:
            find_subject(predictor, options.output)
    options.out.mkdir(parents=True, exist_ok=True)
    answers = []
    for number, path in enumerate(paths):
        prepared = next((image for *_, image in prepare_files(predictor, [path])), None)
        if prepared is None:
            continue
        (one,) = explain_images(
            predictor, [prepared.views], output=options.output, method=options.method
        )
        pictures = []
        for rank, heat_map in enumerate(one.heat_maps):
            more = f"-{rank + 1}" if rank else ""
            picture = options.out / f"{number:04d}-{path.stem}{more}.png"
            with write_atomic(picture) as temporary:
                temporary.write_bytes(encode_png(draw_overlay(heat_map)))
            pictures.append(str(picture))
        answer = dataclasses.replace(
            predictor.answer(one.decision, one.features, AnswerOptions(size=prepared.size)),
            filename=str(path),
            heat_maps=tuple(heat_map.to_answer() for heat_map in one.heat_maps),
        )
        answers.append(answer.to_json() | {"pictures": pictures})
        if not options.json:
            print(escape_terminal(f"{path}: {answer.summary}"))
            for heat_map, drawn in zip(one.heat_maps, pictures, strict=True):
                print(escape_terminal(f"  {heat_map.output}: {drawn}"))
    if options.json:
        print_json({"explanations": answers})
    if len(answers) < len(paths):
        sys.exit(1)


def robustness(options: argparse.Namespace) -> None:
    """Write robustness.md and its pictures; print the summary."""
    from rootstock.explain.robustness_report import summarise
    from rootstock.workflow.robustness import measure_robustness

    config = read_config(options)
    with open_model(options.model) as model, workspace(None) as paths:
        numbers = measure_robustness(
            config, paths, model=model, out=options.out, most=options.images
        )
    if options.json:
        print_json(numbers)
        return
    print(summarise(numbers))
    print(f"report: {options.out / 'robustness.md'}")


def visualise(options: argparse.Namespace) -> None:
    """Write one page; exit with 1 if no image can be used."""
    from rootstock.explain.inside_report import MAX_IMAGES, write_inside
    from rootstock.explain.lens import Lens
    from rootstock.model.predictor import Predictor

    paths = [path for given in options.images for path in list_images(given)]
    with open_model(options.model) as directory:
        predictor = Predictor(directory)
        lens = Lens.open(predictor.bundle)
    usable = islice(prepare_files(predictor, paths), MAX_IMAGES)
    prepared = [image.views for *_, image in usable]
    if not prepared:
        sys.exit(1)
    decisions = predictor.infer(prepared).decisions
    task, names = predictor.task, predictor.names
    answers = [task.explained(decision, names)[0] for decision in decisions]
    views = [one[0] for one in prepared]
    write_inside(lens, views, answers, task.subjects(names), options.out)
    print(f"page: {options.out}")
