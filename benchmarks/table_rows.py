"""The rows of the tables in docs/benchmarks.md, one function per subject."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from statistics import mean
from typing import Any

STRATEGIES = (
    "linear_probe",
    "early_features",
    "partial_finetune",
    "probe_then_finetune",
    "full_finetune",
)

WORDS = {
    "chosen_micro_f1": "micro f1, chosen thresholds",
    "chosen_macro_f1": "macro f1, chosen thresholds",
    "half_micro_f1": "micro f1, thresholds of 0.5",
    "half_macro_f1": "macro f1, thresholds of 0.5",
    "r2": "R²",
    "spearman": "rank correlation (Spearman)",
    "covered_90": "true numbers inside the 90 % intervals",
    "of_20_masks_mean_iou": "mean iou, trained with 20 masks",
    "of_20_masks_pixel_accuracy": "pixel accuracy, trained with 20 masks",
    "explanation_deletion": "deletion",
    "explanation_deletion_random": "deletion, random order",
    "explanation_insertion": "insertion",
    "explanation_insertion_random": "insertion, random order",
    "pointing_game_of_the_centre": "pointing game, map of the centre",
    "rank_correlation_with_shuffled_head": "rank correlation with a shuffled head's maps",
    "milliseconds_plain": "milliseconds per request without a map",
    "milliseconds_explained": "milliseconds per request with a map",
}
"""Text for keys that are not clear as they are."""

Result = dict[str, Any]
Rows = Iterable[Sequence[object]]
"""The header, then the rows of a table."""


def percent(share: float, digits: int = 1) -> str:
    """Return ``96.7 %``."""
    return f"{100 * share:.{digits}f} %"


def default_backbone(result: Result) -> Rows:
    """Yield the accuracy of a linear probe, one row per set of weights."""
    sets = list(result["rows"][0]["accuracy"])
    yield "weights", "pixels", *sets
    for row in result["rows"]:
        yield row["weights"], row["input_pixels"], *(percent(row["accuracy"][s]) for s in sets)


def few_images(result: Result) -> Rows:
    """Yield the accuracy of the head search and of references, one row per set and size."""
    names = {"auto": "auto", "class_means": "class means", "knn": "5 neighbours"}
    names |= {"logistic": "logistic regression"}
    yield "set", "images per class", *names.values(), "auto minus best", "standard error"
    for cell in result["cells"]:
        scores = [cell["accuracy"][name] for name in names]
        yield (
            *(cell["set"], cell["per_class"], *(percent(score) for score in scores)),
            *(f"{100 * (scores[0] - max(scores[1:])):+.1f}", f"{100 * cell['error']:.1f}"),
        )


def fewshot(result: Result) -> Rows:
    """Yield the accuracy of few-shot episodes, one row per set and number of shots."""
    ways = list(result["episodes"][0]["accuracy"])
    yield "set", "images per class", "episodes", *ways
    for one in result["episodes"]:
        cells = (
            f"{percent(one['accuracy'][way])} ± {100 * one['standard_error'][way]:.1f}"
            for way in ways
        )
        yield one["set"], one["shots"], one["episodes"], *cells


def search(result: Result) -> Rows:
    """Yield the time of an exact search, one row per index."""
    yield "rows", "numbers per row", "ms per query", "fastest ms", "share of true neighbours found"
    for one in result["search"]:
        times = (one["milliseconds"], one["fastest_milliseconds"])
        yield f"{one['rows']:,}", f"{one['width']:,}", *times, percent(one["recall"])


def regret(result: Result) -> Rows:
    """Yield test accuracy and minutes of each strategy, one row per set."""
    cells: dict[tuple[Any, ...], list[Result]] = {}
    for run in result["runs"]:
        cells.setdefault((run["set"], run["weights"], run["size"]), []).append(run)
    yield (
        *("set", "weights", "training images", "seeds", *STRATEGIES, "auto", "chosen"),
        *("regret", "time", "scikit-learn"),
    )
    errors = result.get("regret_errors", {})
    for (name, weights, size), runs in cells.items():
        by = {way: [run for run in runs if run["strategy"] == way] for way in {*STRATEGIES, "auto"}}
        if not all(by.values()):
            continue
        score = {way: mean(run["accuracy"] for run in tries) for way, tries in by.items()}
        minutes = {way: mean(run["minutes"] for run in tries) for way, tries in by.items()}
        references = [run["accuracy"] for run in runs if run["strategy"] == "reference"]
        yield (
            *(name, weights, round(mean(run["n_train"] for run in by["auto"])), len(by["auto"])),
            *(f"{percent(score[way])} ({minutes[way]:.1f})" for way in (*STRATEGIES, "auto")),
            ", ".join(sorted({run["trained"] for run in by["auto"]})),
            f"{100 * (max(score[way] for way in STRATEGIES) - score['auto']):+.1f}"
            + (f" ± {errors[key]:.1f}" if (key := f"{name}, {size}") in errors else ""),
            percent(minutes["auto"] / sum(minutes[way] for way in STRATEGIES), 0),
            percent(mean(references)) if references else "",
        )


def tasks(result: Result) -> Rows:
    """Yield each measure of each task next to the baseline's."""
    yield "task", "set", "measure", "Rootstock", "scikit-learn"
    for task, row in result.items():
        if not isinstance(row, dict):
            continue
        figures = row.get("median", row)
        for name, value in figures.items():
            if isinstance(value, float) and not name.startswith("baseline_"):
                other = figures.get(f"baseline_{name}", "")
                yield (
                    task.replace("_", " "),
                    row["set"],
                    in_words(name),
                    rounded(value),
                    rounded(other),
                )


def estimated_accuracy(result: Result) -> Rows:
    """Yield the errors of estimates without labels, one row per set."""
    yield (
        "set",
        "validation images",
        "estimates",
        "mean error, points",
        "largest",
        "largest withheld",
    )
    for name, one in result["sets"].items():
        given = [abs(shift["error_points"]) for shift in one["shifts"] if shift["told"]]
        held = [abs(s["error_points_if_told"]) for s in one["shifts"] if not s["told"]]
        largest = [f"{max(errors):.1f}" if errors else "" for errors in (given, held)]
        average = f"{mean(given):.1f}" if given else ""
        yield name, one["n_val"], f"{len(given)} of {len(one['shifts'])}", average, *largest


def labels_saved(result: Result) -> Rows:
    """Yield the labels that suggestions save, one row per set."""
    yield (
        *("set", "images", "accuracy with all labels", "labels, random order"),
        *("labels, suggested order", "ratio", "wrong labels found"),
    )
    for name, one in result["sets"].items():
        labels = [round(mean(one["labels"][way])) for way in ("random", "suggest")]
        accuracy, found = percent(one["accuracy_with_all"]), percent(one["found"], 0)
        yield name, one["n_pool"], accuracy, *labels, f"{one['ratio']:.2f}", found
    yield "mean", "", "", "", "", f"{result['mean_ratio']:.2f}", percent(result["mean_found"], 0)


def time_and_accuracy(result: Result) -> Rows:
    """Yield time and quality of `rootstock train`, one row per set."""
    yield (
        *("set", "task", "quality", "seed", "training images", "strategy", "measure", "value"),
        *("95 % interval", "minutes", "processor minutes"),
    )
    for one in result["runs"]:
        interval = f"{one['low']:.3g} to {one['high']:.3g}"
        yield (
            *(one["set"], one["task"], one["quality"], one["seed"], one["train_images"]),
            *(one["strategy"], in_words(one["metric"]), rounded(one["value"]), interval),
            *(rounded(one["minutes"]), rounded(one["processor_minutes"])),
        )


def ensemble(result: Result) -> Rows:
    """Yield metrics and cost of one network and of an average, one row per set and side."""
    metrics = [in_words(name) for name in result["cells"][0]["one"]]
    yield "set", "networks", *metrics, "gain in validation loss", "kept"
    for cell in result["cells"]:
        gain = f"{cell['gain']:.3f} ± {cell['noise']:.3f}", "yes" if cell["sure"] else "no"
        for networks, verdict in (("one", ("", "")), ("several", gain)):
            values = (rounded(value) for value in cell[networks].values())
            yield cell["set"], networks, *values, *verdict


def int8(result: Result) -> Rows:
    """Yield quality and milliseconds in float32 and int8, one row per set."""
    yield (
        "set", "test images", "accuracy", "log-loss", "same decision",
        "engine, ms", "from JPEG, ms", "HTTP service, ms",
    )  # fmt: skip
    for name, one in result["sets"].items():
        times = (
            f"{part['float32_ms']:.1f} and {part['int8_ms']:.1f} ({part['ratio']:.2f})"
            for part in (one["engine"], one["from_jpeg"], one["service"])
        )
        score, loss = (" and ".join(f"{x:.3f}" for x in one[key]) for key in ("score", "loss"))
        yield name, one["test_images"], score, loss, percent(one["agreement"]), *times


def int8_features(result: Result) -> Rows:
    """Yield rates and quality with features in float32 and in int8, one row per set."""
    yield (
        "set", "images", "images/s", "images per processor second", "accuracy", "log-loss",
    )  # fmt: skip
    for name, one in result["sets"].items():
        rates, quality = (list(one[key].values()) for key in ("rates", "quality"))
        pairs = (
            (*(each["images_per_s"] for each in rates), one["ratio"]),
            (*(each["images_per_processor_s"] for each in rates), one["processor_ratio"]),
        )
        shown = (f"{exact:.1f} and {int8:.1f} ({ratio:.2f})" for exact, int8, ratio in pairs)
        scores = (" and ".join(f"{each[key]:.3f}" for each in quality) for key in ("score", "loss"))
        yield name, one["images"], *shown, *scores


def int8_finetuned(result: Result) -> Rows:
    """Yield quality of fine-tuned networks in float32 and in int8, one row per network."""
    yield (
        "set", "strategy", "training images", "validation accuracy", "twin",
        "test images", "test accuracy", "test log-loss", "95 % interval of its rise",
        "same decision",
    )  # fmt: skip
    for cell in result["cells"]:
        figures, test = cell["twin"]["figures"], cell["test"]
        scores, losses = (" and ".join(f"{x:.3f}" for x in test[key]) for key in ("score", "loss"))
        yield (
            *(cell["set"], cell["strategy"], cell["images"]["train"]),
            f"{figures['score_float32']:.3f} and {figures['score']:.3f}",
            "kept" if cell["twin"]["kept"] else "refused",
            *(cell["images"]["test"], scores, losses),
            " to ".join(f"{x:+.3f}" for x in test["loss_rise_95"]),
            percent(test["agreement"]),
        )


def batch(result: Result) -> Rows:
    """Yield images per second of the parts and of the whole command, one row per precision."""
    yield "precision", "decode", "engine", "whole command", "share of the bound"
    for precision, one in result["precisions"].items():
        rates = (f"{one[f'{part}_per_second']:.0f}" for part in ("decode", "engine", "table"))
        yield precision, *rates, percent(one["of_the_bound"], 0)


def refit(result: Result) -> Rows:
    """Yield the seconds of each round until a new head is fitted, registered, and answers."""
    yield "round", "10,000 images: fitted", "whole way: fitted", "registered", "answers over HTTP"
    ways = result["way"]["rounds"]
    for number, (fit, way) in enumerate(zip(result["fit"]["rounds"], ways, strict=True), 1):
        yield number, fit["seconds"], way["fitted"], way["registered"], way["answered"]


def growth(result: Result) -> Rows:
    """Yield seconds and memory of each stage of the newest run, one column per size."""
    costs = result["runs"][-1]["costs"]
    yield "stage", *(f"{int(size):,} images" for size in costs)
    for stage in next(iter(costs.values())):
        cells = (costs[size][stage] for size in costs)
        yield stage, *(f"{one['seconds']:.1f} s, {one['memory_mb']:,.0f} MB" for one in cells)


def image(result: Result) -> Rows:
    """Yield sizes of the image and times to readiness."""
    yield "", "before", "now"
    for name in result["after"]:
        yield in_words(name), f"{result['before'][name]:,}", f"{result['after'][name]:,}"
    for source, seconds in result["ready_seconds"].items():
        yield f"seconds until ready, model from {source} (median)", "", seconds["median"]


def peers(result: Result) -> Rows:
    """Yield the accuracy and the time of each library, one row per set and side."""
    yield (
        *("set", "side", "how", "test accuracy", "seconds", "processor seconds"),
        "processor seconds to .95",
    )
    for row in result["rows"]:
        reached = row["processor_reached"]
        yield (
            *(row["set"], row["side"], row["how"], percent(row["accuracy"])),
            *(f"{row['seconds']:.0f}", f"{row['processor']:.0f}"),
            "not reached" if reached is None else f"{reached:.0f}",
        )


def mutation(result: Result) -> Rows:
    """Yield the share of mutants that tests notice, one row per package."""
    yield "package", "noticed", "missed", "share", "commit"
    for run in result["runs"]:
        for name, score in run["scores"].items():
            if name != "all":
                counts = score["noticed"], score["missed"]
                yield name, *counts, percent(score["score"], 0), run["commit"]
    total = result["all"]
    yield "all", total["noticed"], total["missed"], percent(total["score"], 0), ""


def numbers(result: Result) -> Rows:
    """Yield every number at the top level of a result file."""
    yield "measure", "value"
    for name, value in result.items():
        if isinstance(value, int | float) and name != "load":
            yield in_words(name), rounded(value)


def rounded(value: object) -> object:
    """Return a number with three significant digits after the point; other values unchanged."""
    return f"{value:.3g}" if isinstance(value, float) else value


def in_words(key: str) -> str:
    """Return a key as words."""
    words = WORDS.get(key, key.replace("_", " "))
    for short, text in (("mb", "MB"), ("iou", "IoU"), ("f1", "F1")):
        words = re.sub(rf"\b{short}\b", text, words)
    return words
