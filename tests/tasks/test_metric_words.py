"""Metrics in reports have names in words and rounded values with units."""

from rootstock.tasks.metric_words import list_metrics, name_metric, show_metric


def test_a_share_is_a_percentage_with_its_interval():
    metrics = {"accuracy": 0.981481, "accuracy_low": 0.9, "accuracy_high": 1.0, "n_test": 1200}
    rows = [("accuracy", "98.1% (95 % interval 90.0% to 100.0%)"), ("test images", "1,200")]
    assert list_metrics(metrics) == rows


def test_abbreviations_are_spelt_out():
    assert name_metric("ece") == "expected calibration error"
    assert name_metric("robust_mean_iou") == "mean IoU on corrupted images"
    assert show_metric("log_loss", 0.123456) == "0.1235"


def test_an_unknown_metric_keeps_its_words():
    assert list_metrics({"mean_delay": 2.0}) == [("mean delay", "2")]
