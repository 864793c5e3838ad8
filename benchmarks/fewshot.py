"""Evaluate classes that training never saw, from one or five images, and time the search.

    python benchmarks/fewshot.py --data-dir ../shared/data

Episodes of five classes (Vinyals et al. 2016) on features of the default backbone, without any
fitting: given one or five images of each class, fifteen others are classified. `class means` and
`linear head` are the two ways of `rootstock enroll` and of small classes. The second table times
the exact search of similar images among random rows.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from few_images import read_set
from stamp import describe_run

from rootstock.explain.similar import ImageIndex
from rootstock.heads.prototypes import fit_prototypes
from rootstock.system.files import write_json
from rootstock.tasks.single_label.learning import SoftmaxSolver
from rootstock.tasks.targets import Targets

SETS = ("flowers12", "sign_digits", "cifar10", "tiny_imagenet")
WAYS, QUERIES, SHOTS = 5, 15, (1, 5)
L2 = 0.1
RESULT = Path(__file__).parent / "results/fewshot.json"
ROWS, WIDTH = (10_000, 100_000), 1_280
SEARCHES, NEAREST = 41, 10


def main() -> None:
    """Print two tables and write benchmarks/results/fewshot.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--cache", type=Path, help="folder for computed features")
    options = parser.parse_args()
    if options.cache:
        options.cache.mkdir(parents=True, exist_ok=True)
    cells = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.sets:
            arrays = read_set(name, options.data_dir, options.cache or Path(scratch))
            if arrays:
                cells += [measure(name, arrays, shots, options.episodes) for shots in SHOTS]
    searches = [time_search(rows) for rows in ROWS]
    about = describe_run("python benchmarks/fewshot.py --data-dir ../shared/data")
    write_json(RESULT, about | {"episodes": cells, "search": searches})
    print(json.dumps({"episodes": cells, "search": searches}, indent=2))


def measure(
    name: str, arrays: dict[str, np.ndarray], shots: int, episodes: int
) -> dict[str, object]:
    """Return the mean accuracy over episodes, with its standard error."""
    features = np.concatenate([arrays["train_last"], arrays["test_last"]])
    labels = np.concatenate([arrays["train_y"], arrays["test_y"]])
    chance = np.random.default_rng(0)
    classes = [one for one in np.unique(labels) if (labels == one).sum() >= max(SHOTS) + QUERIES]
    scores: dict[str, list[float]] = {"class means": [], "linear head": []}
    for _ in range(episodes):
        chosen = chance.choice(classes, WAYS, replace=False)
        drawn = [
            chance.permutation(np.flatnonzero(labels == one))[: shots + QUERIES] for one in chosen
        ]
        shown = np.concatenate([rows[:shots] for rows in drawn])
        asked = np.concatenate([rows[shots:] for rows in drawn])
        numbers = np.repeat(np.arange(WAYS), shots)
        answers = np.repeat(np.arange(WAYS), QUERIES)
        targets = Targets(numbers, tuple(map(str, range(WAYS))), numbers)
        heads = {
            "class means": fit_prototypes(features[shown], numbers),
            "linear head": SoftmaxSolver().fit(features[shown], targets, l2=L2),
        }
        for way, head in heads.items():
            right = head.outputs(features[asked]).argmax(axis=1) == answers
            scores[way].append(float(right.mean()))
    return {
        "set": name,
        "ways": WAYS,
        "shots": shots,
        "episodes": episodes,
        "accuracy": {way: round(float(np.mean(values)), 4) for way, values in scores.items()},
        "standard_error": {
            way: round(float(np.std(values) / len(values) ** 0.5), 4)
            for way, values in scores.items()
        },
    }


def time_search(rows: int) -> dict[str, float]:
    """Return the milliseconds of a search for the ten nearest: the median, and the fastest.

    ``recall``: how many of them a comparison with every row finds as well.
    """
    chance = np.random.default_rng(0)
    features = chance.normal(size=(rows, WIDTH)).astype(np.float32)
    names = [""] * rows
    index = ImageIndex.make(features, names, names, "")
    seconds, found = [], []
    queries = chance.normal(size=(SEARCHES, WIDTH))
    for query in queries[:, None]:
        start = time.perf_counter()
        found += index.search(query, NEAREST)
        seconds.append(time.perf_counter() - start)
    del seconds[0]  # it opens the session
    expected = replace(index, coarse=None).search(queries, NEAREST)
    hits = [
        match.row in {one.row for one in all_of_them}
        for matches, all_of_them in zip(found, expected, strict=True)
        for match in matches
    ]
    return {
        "rows": rows,
        "width": WIDTH,
        "milliseconds": round(1000 * float(np.median(seconds)), 1),
        "fastest_milliseconds": round(1000 * min(seconds), 1),
        "recall": float(np.mean(hits)),
    }


if __name__ == "__main__":
    main()
