"""Batch prediction against its bound, in one run: `rootstock predict FOLDER --out answers.parquet`.

    python benchmarks/batch.py --model artifacts/model --images photos/

The photos are enlarged to --count as in extraction.py. The bound is the decoding of all photos and
the engine, each with all cores: on a processor they share the cores, so their times add up. The
table is what the command writes: hashes, decoding, engine, answers, parts and the joined file. The
three take turns, so that other work on the machine hits all of them; processor time is reported as
well, which such work changes little.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from extraction import enlarge
from stamp import describe_run

from rootstock.model.answer_table import AnswerTable
from rootstock.model.predictor import Predictor
from rootstock.system.files import write_json
from rootstock.system.threads import spread
from rootstock.tasks.task import AnswerOptions

ROOT = Path(__file__).parents[1]
ROUNDS, ENGINE_IMAGES = 3, 4


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=ROOT / "artifacts/model")
    parser.add_argument("--images", type=Path, required=True, help="a folder with photos")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/batch.json")
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        rows = enlarge(options.images, folder / "photos", options.count)
        paths = [folder / "photos" / row.path for row in rows]
        for precision in ("float32", "int8"):
            results[precision] = measure(options.model, paths, folder, precision)
            print(precision, results[precision], flush=True)
    write_json(
        options.out,
        {
            **describe_run("python benchmarks/batch.py --model MODEL --images PHOTOS"),
            "images": options.count,
            "precisions": results,
        },
    )


def measure(model: Path, paths: list[Path], folder: Path, precision: str) -> dict[str, float]:
    """Return images per second and processor milliseconds per image of the parts and the whole."""
    predictor = Predictor(model, engine="onnx", precision=precision, threads=1)
    if predictor.precision != precision:
        return {}
    views = [predictor.prepare(path.read_bytes()) for path in paths[:64]]
    groups = [views[i : i + ENGINE_IMAGES] for i in range(0, len(views), ENGINE_IMAGES)]
    groups = (groups * (len(paths) // len(views) + 1))[: len(paths) // ENGINE_IMAGES]
    names = [path.name for path in paths]
    table = AnswerTable(model, folder / "answers.parquet", AnswerOptions(), precision=precision)
    ways: dict[str, Callable[[], object]] = {
        "decode": lambda: [
            None for _ in spread(lambda p: predictor.prepare(p.read_bytes()), paths)
        ],
        "engine": lambda: [None for _ in spread(predictor.infer, groups)],
        "table": lambda: table.write(names, paths),
    }
    walls: dict[str, list[float]] = {name: [] for name in ways}
    used: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, run in ways.items():
            wall, processor = time.perf_counter(), time.process_time()
            run()
            walls[name].append(time.perf_counter() - wall)
            used[name].append(time.process_time() - processor)
    best = {name: min(laps) for name, laps in walls.items()}
    least = {name: min(laps) for name, laps in used.items()}
    bound = best["decode"] + best["engine"]
    found = {f"{name}_per_second": len(paths) / lap for name, lap in best.items()}
    found |= {f"{name}_processor_ms": 1000 * lap / len(paths) for name, lap in least.items()}
    found["of_the_bound"] = bound / best["table"]
    found["of_the_bound_in_processor_time"] = (least["decode"] + least["engine"]) / least["table"]
    return {name: round(value, 3) for name, value in found.items()}


if __name__ == "__main__":
    main()
