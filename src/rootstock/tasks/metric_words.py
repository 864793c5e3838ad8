"""Metrics as a reader sees them: names in words, and rounded values with their units."""

from collections.abc import Mapping

SHARES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "mean_class_accuracy": "mean accuracy of the classes",
    "pixel_accuracy": "accuracy of the pixels",
    "localisation_accuracy": "class and box right",
    "exact_match": "images with all labels right",
    "micro_precision": "precision over all labels",
    "micro_recall": "recall over all labels",
    "coverage_95": "coverage of 95 % sets or intervals",
    "unknown_share": "images flagged `unknown`",
    "robust_accuracy": "accuracy on corrupted images",
    "adversarial_accuracy": "accuracy under attack",
}
"""Metrics that are shares, shown in percent."""
WORDS = {
    "ece": "expected calibration error",
    "brier": "Brier score",
    "log_loss": "log-loss",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "r2": "R²",
    "spearman": "Spearman's correlation",
    "mean_iou": "mean IoU",
    "median_iou": "median IoU",
    "set_size_95": "mean size of 95 % sets",
    "interval_width_95": "mean width of 95 % intervals",
    "error_of_the_median": "error of always predicting the median",
    "n_test": "test images",
}
PREFIXES = {"robust_": " on corrupted images", "adversarial_": " under attack"}


def name_metric(metric: str) -> str:
    """Return the name of a metric in words."""
    for prefix, words in PREFIXES.items():
        if metric.startswith(prefix) and metric not in SHARES:
            return name_metric(metric.removeprefix(prefix)) + words
    return SHARES.get(metric) or WORDS.get(metric) or metric.replace("_", " ")


def show_metric(metric: str, value: float) -> str:
    """Return the value of a metric, rounded, with its unit."""
    if metric in SHARES:
        return f"{value:.1%}"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def list_metrics(metrics: Mapping[str, float]) -> list[tuple[str, str]]:
    """Return name and value of each metric for a table; an interval is shown with its metric."""
    rows = []
    for metric, value in metrics.items():
        shown = show_metric(metric, value)
        low, high = (metrics.get(f"{metric}_{end}") for end in ("low", "high"))
        if low is not None and high is not None:
            shown += f" (95 % interval {show_metric(metric, low)} to {show_metric(metric, high)})"
        base, _, end = metric.rpartition("_")
        if not (end in ("low", "high") and base in metrics):
            rows.append((name_metric(metric), shown))
    return rows
