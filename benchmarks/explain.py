"""Check that heat maps show the evidence for answers, on images of animals with boxes.

    python benchmarks/explain.py --data-dir ../shared/data

Trains a linear head on `animals_boxes` (raccoon or kangaroo, the default backbone, no race). On
the test images it measures: the pointing game (is the strongest position inside the box?);
deletion and insertion, compared with random orders; both again for a map of the centre; the same
maps by a head with shuffled weights (a map that does not change does not explain the model); and
the time of a request to the service with and without its map.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
from PIL import Image
from serving import served
from sets import find_set
from stamp import describe_run

from rootstock.cli.main import main as rootstock
from rootstock.data.manifest import Manifest
from rootstock.data.read import read_file
from rootstock.explain.faithfulness import measure_faithfulness
from rootstock.explain.heat_map import HeatMap, explain_images
from rootstock.model.predictor import Predictor

RESULT = Path(__file__).parent / "results/explain.json"
WARM_ROUNDS, ROUNDS = 20, 200


def main() -> None:
    """Print one table and write benchmarks/results/explain.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--run", type=Path, help="folder for the trained model")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = find_set(options.data_dir, "animals_boxes", Path(scratch))
        if folder is None:
            print(f"{options.data_dir} has no animals_boxes; nothing is downloaded.")
            return
        figures = measure(folder, options.run or Path(scratch) / "run")
    for name, value in figures.items():
        print(f"{name:40} {value}")
    about = describe_run("python benchmarks/explain.py --data-dir ../shared/data")
    RESULT.write_text(json.dumps(about | figures, indent=2) + "\n", encoding="utf-8")


def measure(folder: Path, out: Path) -> dict[str, float]:
    """Train, explain the test images and return the figures."""
    with (folder / "largest_box.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    table = folder / "classes.csv"
    lines = [f"{row['path']},{row['label']}" for row in rows]
    table.write_text("\n".join(["path,label", *lines]) + "\n", encoding="utf-8")
    settings = ["plan.strategy=linear_probe", "tracking.enabled=false", "data.geometry=crop"]
    flags = [part for setting in settings for part in ("--set", setting)]
    rootstock(["train", str(table), "--out", str(out), *flags])
    model = out / "artifacts/model"
    predictor = Predictor(model)
    boxes = {row["path"]: [float(row[k]) for k in ("x", "y", "width", "height")] for row in rows}
    paths = [row.path for row in Manifest.read(out / "artifacts/manifest.parquet").rows("test")]
    heat_maps, hits, centre_hits = [], [], []
    for path in paths:
        content = read_file(folder / path, predictor.limits).content
        (one,) = explain_images(predictor, [predictor.prepare(content)])
        heat_maps.append(one.heat_map)
        box = box_in_view(folder / path, boxes[path], predictor)
        if box is not None:
            hits.append(is_inside(one.heat_map, box))
            centre_hits.append(is_inside(at_centre(one.heat_map), box))
    figures = {
        "test_images": len(paths),
        "boxes_in_view": len(hits),
        "pointing_game": float(np.mean(hits)),
        "pointing_game_of_the_centre": float(np.mean(centre_hits)),
    }
    figures |= measure_faithfulness(predictor, heat_maps).metrics()
    figures["rank_correlation_with_shuffled_head"] = compare_with_shuffled(
        predictor, folder, paths, heat_maps
    )
    figures |= time_service(model, [(folder / path).read_bytes() for path in paths])
    return {name: round(value, 4) for name, value in figures.items()}


def box_in_view(path: Path, box: list[float], predictor: Predictor) -> list[float] | None:
    """Return left, top, right, bottom of a box as shares of the view; None if it is outside."""
    preprocess = predictor.bundle.preprocess
    with Image.open(path) as image:
        width, height = image.size
    # The centre square after resizing the short side to input_size / crop_pct.
    side = min(width, height) * preprocess.crop_pct
    left, top = (width - side) / 2, (height - side) / 2
    x, y, w, h = box
    corners = np.array([x - left, y - top, x + w - left, y + h - top]) / side
    corners = corners.clip(0, 1)
    return None if corners[2] <= corners[0] or corners[3] <= corners[1] else corners.tolist()


def is_inside(heat_map: HeatMap, box: list[float]) -> bool:
    """Return whether the centre of the strongest position is inside the box."""
    evidence = heat_map.evidence
    row, column = np.unravel_index(evidence.argmax(), evidence.shape)
    y, x = (row + 0.5) / evidence.shape[0], (column + 0.5) / evidence.shape[1]
    return bool(box[0] <= x <= box[2] and box[1] <= y <= box[3])


def at_centre(heat_map: HeatMap) -> HeatMap:
    """Return a map whose only evidence is in the centre."""
    evidence = np.zeros_like(heat_map.evidence)
    evidence[tuple(side // 2 for side in evidence.shape)] = 1
    return replace(heat_map, evidence=evidence)


def compare_with_shuffled(
    predictor: Predictor, folder: Path, paths: list[str], heat_maps: list[HeatMap]
) -> float:
    """Return the mean rank correlation of maps with those of a head with shuffled weights."""
    from scipy.stats import spearmanr

    true_head = predictor.head
    chance = np.random.default_rng(0)
    shuffled = tuple(chance.permuted(one, axis=1) for one in true_head.weights)
    predictor.head = replace(true_head, weights=shuffled)
    values = []
    for path, heat_map in zip(paths, heat_maps, strict=True):
        content = read_file(folder / path, predictor.limits).content
        prepared = predictor.prepare(content)
        (one,) = explain_images(predictor, [prepared], output=heat_map.output)
        pair = heat_map.evidence.ravel(), one.heat_map.evidence.ravel()
        values.append(float(spearmanr(*pair).statistic))
    predictor.head = true_head
    return float(np.mean(values))


def time_service(model: Path, contents: list[bytes]) -> dict[str, float]:
    """Return milliseconds per request with one image, in turns, with and without its map.

    One client and one connection. Apart from the map, the answers must be equal.
    """
    command = [sys.executable, "-m", "services.inference", "--port", "PORT", "--model", str(model)]
    environment = os.environ | {"ROOTSTOCK_LOG_LEVEL": "warning"}
    seconds: dict[bool, list[float]] = {False: [], True: []}
    with (
        served(command, environment, ready="/readyz") as (port, _),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        for number in range(WARM_ROUNDS + ROUNDS):
            content, answers = contents[number % len(contents)], []
            for explain in (number % 2 == 0, number % 2 == 1):
                start = time.perf_counter()
                response = client.post("/v1/predict", params={"explain": explain}, content=content)
                if number >= WARM_ROUNDS:
                    seconds[explain].append(time.perf_counter() - start)
                (answer,) = response.raise_for_status().json()["predictions"]
                assert (answer.pop("heat_maps", None) is not None) == explain
                answers.append(answer)
            assert answers[0] == answers[1]
    plain, explained = (1000 * float(np.median(seconds[explain])) for explain in (False, True))
    return {
        "milliseconds_plain": plain,
        "milliseconds_explained": explained,
        "ratio": explained / plain,
    }


if __name__ == "__main__":
    main()
