import csv
import json

import numpy as np
import pytest

from rootstock.errors import DataError
from rootstock.evaluate.report import Evaluation, write_evaluation
from rootstock.tasks.single_label.evaluation import Classified
from rootstock.tasks.single_label.task import SingleLabel
from rootstock.tasks.targets import Targets
from tests.data.folders import write_classes

CLASSES = ("ants", "bees", "wasps")


def evaluation(predicted, labels, sure=0.8):
    probabilities = np.full((len(labels), 3), (1 - sure) / 2)
    probabilities[np.arange(len(labels)), predicted] = sure
    paths = [f"ants/{n}.png" for n in range(len(labels))]
    return evaluate(probabilities, np.array(labels, int), paths)


def evaluate(probabilities, labels, paths):
    return Evaluation(SingleLabel(), probabilities, Targets(labels, CLASSES, labels), paths)


def render_evaluation(found):
    return found.task.report(found.evidence, found.metrics, None).text


def test_metrics_are_the_promised_ones():
    found = evaluation([0, 0, 1, 1], [0, 0, 1, 0]).metrics
    assert found["accuracy"] == 0.75
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2, abs=1e-6)
    assert found["n_test"] == 4
    assert {"macro_f1", "log_loss", "ece"} <= set(found)
    assert found["accuracy_low"] < 0.75 < found["accuracy_high"]


def test_the_surest_mistakes_come_first():
    probabilities = np.array([[0.6, 0.4, 0.0], [0.9, 0.1, 0.0], [0.2, 0.8, 0.0]])
    found = evaluate(probabilities, np.array([1, 1, 1]), list("abc"))
    assert Classified.of(found.evidence).mistakes() == [
        ("b", "bees", "ants", 0.9),
        ("a", "bees", "ants", 0.6),
    ]


def test_no_test_image_is_an_error():
    with pytest.raises(DataError, match=r"no test images to evaluate on(.|\n)*test_fraction"):
        evaluation([], [])


def test_everything_is_written_and_readable(tmp_path):
    root = write_classes(tmp_path / "data", {"ants": 4})
    write_evaluation(evaluation([0, 0, 1, 1], [0, 0, 1, 0]), tmp_path / "reports", root=root)
    reports = tmp_path / "reports"
    assert json.loads((reports / "metrics.json").read_text())["accuracy"] == 0.75
    rows = list(csv.DictReader((reports / "predictions.csv").open()))
    assert (rows[3]["actual"], rows[3]["predicted"]) == ("ants", "bees")
    pictures = sorted(path.name for path in (reports / "plots/evaluation").iterdir())
    assert pictures == ["confusion.png", "mistakes.png", "reliability.png"]


def test_few_test_images_are_called_few():
    assert "4 test images are few" in render_evaluation(evaluation([0] * 4, [0] * 4))
    assert "are few" not in render_evaluation(evaluation([0] * 400, [0] * 400))


def test_a_perfect_model_has_no_mistakes_to_show():
    assert "There are none: every test image is right." in render_evaluation(
        evaluation([0, 1], [0, 1])
    )
