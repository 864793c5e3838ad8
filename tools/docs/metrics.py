"""The page of metrics: those of evaluations, and those of the service for Prometheus."""

from rootstock.service.watch.telemetry import Telemetry
from rootstock.tasks import get_task, task_names
from tools.docs.markdown import MADE, make_table

MEANINGS = {
    "accuracy": "share of images whose class is right; for `localisation`, of the class only",
    "balanced_accuracy": "mean of the recalls of all classes, so that rare classes count as much",
    "brier": "mean squared distance of the probabilities from the truth, 0 to 2",
    "coverage_95": "share of test images whose 95 % set or interval holds the truth",
    "ece": "expected calibration error: mean gap between probability and share of right answers",
    "error_of_the_median": "mean absolute error of always answering the median: what to beat",
    "exact_match": "share of images of which every label is right",
    "interval_width_95": "mean width of the 95 % intervals",
    "localisation_accuracy": "share of images with the right class and a box of IoU .5 or more",
    "log_loss": "mean negative log-likelihood in nats",
    "macro_f1": "mean of the F1 of all classes or labels",
    "mean_absolute_error": "mean distance from the true number",
    "mean_average_precision": "mean over labels of the area below precision over recall",
    "mean_class_accuracy": "mean over classes of the share of their pixels that is right",
    "mean_iou": "mean overlap (intersection over union) of boxes, or of the areas of classes",
    "median_iou": "median overlap of the boxes",
    "micro_f1": "F1 over all labels of all images together",
    "micro_precision": "share of the given labels that is right",
    "micro_recall": "share of the true labels that is given",
    "pixel_accuracy": "share of pixels whose class is right",
    "r2": "share of the variance that is explained",
    "robust_accuracy": "mean of the headline metric over test images with common corruptions",
    "root_mean_squared_error": "root of the mean squared distance from the true number",
    "set_size_95": "mean number of classes or labels in the 95 % sets",
    "spearman": "rank correlation of answers and true numbers",
}

INTRODUCTION = f"""# Metrics

{MADE}
## Evaluation

In `reports/metrics.json`, in MLflow (with the prefix `test_`), and in the model card. A name that
ends in `_low` or `_high` is a bound of the 95 % interval of a metric.

"""

TASKS = """### By task

The headline is the first number of every report. `registry.gate.metric` takes it, or one of the
other metrics in its row.

"""

SERVICE = """## Service

`GET /metrics` has these series for Prometheus, and the usual ones of the process, such as
`process_resident_memory_bytes`. Alerts that use them are in `services/prometheus/rules.yml`.

"""


def make_metrics_page() -> str:
    """Return the page: metrics of evaluations, by task, and of the service."""
    rows = [(f"`{name}`", meaning) for name, meaning in sorted(MEANINGS.items())]
    tasks = []
    for name in task_names():
        task = get_task(name)
        others = ", ".join(f"`{metric}`" for metric in task.gate_metrics[1:])
        better = "lower" if task.headline in task.lower_is_better else "higher"
        tasks.append((f"`{name}`", f"`{task.headline}`", better, others))
    return "".join(
        [
            INTRODUCTION,
            make_table(["metric", "meaning"], rows),
            "\n",
            TASKS,
            make_table(["task", "headline", "better if", "other metrics of the gate"], tasks),
            "\n",
            SERVICE,
            make_table(["series", "kind", "labels", "meaning"], list_series()),
        ]
    )


def list_series() -> list[tuple[str, str, str, str]]:
    """Return name, kind, labels and meaning of each series of Rootstock's own."""
    rows = []
    for collector in Telemetry().registry._collector_to_names:
        for family in collector.describe() if hasattr(collector, "describe") else ():
            if family.name.startswith("rootstock_"):
                name = f"{family.name}_total" if family.type == "counter" else family.name
                labels = ", ".join(f"`{label}`" for label in collector._labelnames)  # type: ignore[attr-defined]
                rows.append((f"`{name}`", family.type, labels, family.documentation))
    return sorted(rows)
