"""Every task can be explained: its subjects, and maps that belong to them."""

import dataclasses

import numpy as np
import pytest

from rootstock.data.manifest import ImageRow
from rootstock.errors import DataError, ExplainError
from rootstock.explain.corruptions import CORRUPTIONS
from rootstock.explain.enroll import enroll_class
from rootstock.explain.faithfulness import measure_faithfulness
from rootstock.explain.fooling import measure_fooling
from rootstock.explain.heat_map import explain_images
from rootstock.explain.inside_report import write_inside
from rootstock.explain.lens import Lens
from rootstock.explain.report import explain_tests
from rootstock.explain.robustness import Sample, measure_corruptions
from rootstock.explain.subject import contrast, find_subject
from rootstock.heads.linear import LinearHead
from rootstock.model.predictor import Predictor
from rootstock.tasks import get_task
from rootstock.tasks.dataset import read_targets
from rootstock.tasks.targets import Targets
from rootstock.tasks.task import Subject
from rootstock.training.network import TransferNet
from tests.bundles import CLASSES, jpeg, tiny_backbone, write_tiny_bundle

CALIBRATIONS = {
    "single_label": {"temperature": 1.5},
    "localisation": {"temperature": 1.5},
    "multi_label": {"slopes": [1] * 3, "offsets": [0] * 3, "thresholds": [0.0, 1.0, 0.0]},
    "regression": {"means": [5.0, 6.0, 7.0], "scales": [2.0, 1.0, 1.0]},
}
TEXTS = {
    "single_label": CLASSES,
    "localisation": [f'["{name}", 0.1, 0.2, 0.5, 0.5]' for name in CLASSES],
    "multi_label": ['["iris"]', '["rose", "tulip"]', "[]"],
    "regression": ['{"iris": 1.0, "rose": 2.0, "tulip": 3.0}'] * 3,
}


@pytest.fixture(scope="module")
def predictors(tmp_path_factory):
    """A model of each task, with random weights and three names."""
    return {name: make_predictor(name, tmp_path_factory.mktemp(name)) for name in CALIBRATIONS}


@pytest.fixture(params=list(CALIBRATIONS))
def predictor(request, predictors):
    return predictors[request.param]


def make_predictor(name, folder):
    task = get_task(name)
    tap = task.read_tap("last", tiny_backbone().tap_names)
    random = np.random.default_rng(4)
    width = tiny_backbone().width(tap)
    weights = random.normal(0, 1, (task.width(CLASSES), width)).astype("f4")
    head = LinearHead(weights, np.zeros(len(weights), "f4"))
    network = TransferNet.build(tiny_backbone(), tap=tap, head=head)
    golden = [("a.jpg", jpeg(1), TEXTS[name][0])]
    changes = {"task": name, "calibration": CALIBRATIONS[name], "golden": golden}
    return Predictor(write_tiny_bundle(folder / "model", network=network, **changes))


def prepare(predictor, count=2):
    return [predictor.prepare(jpeg(seed)) for seed in range(count)]


def read_sample(predictor):
    """Three images with targets of the task."""
    pixels = [predictor.bundle.preprocess.decode(jpeg(seed)).pixels for seed in range(3)]
    texts = TEXTS[predictor.task.name]
    values = predictor.task.parse(texts, CLASSES)
    zeros = np.zeros(3, np.int64)
    units = predictor.task.measure_units(values)
    targets = Targets(values, tuple(CLASSES), zeros, zeros, units)
    return Sample(pixels, targets, texts, ["a.jpg", "b.jpg", "c.jpg"])


def test_maps_are_of_all_that_is_answered(predictor):
    expected = {
        "single_label": lambda answer: [answer.label],
        "localisation": lambda answer: [answer.label, "box"],
        "multi_label": lambda answer: list(answer.labels),
        "regression": lambda answer: CLASSES,
    }[predictor.task.name]
    for explained in explain_images(predictor, prepare(predictor), method="maps"):
        answer = predictor.answer(explained.decision, explained.features)
        assert [one.output for one in explained.heat_maps] == expected(answer)
        for one in explained.heat_maps:
            assert one.evidence.ndim == 2
            assert np.ptp(one.evidence) > 0


def test_occlusion_and_maps_have_the_same_subjects(predictor):
    subjects = predictor.task.subjects(CLASSES)
    for name in subjects:
        (explained,) = explain_images(
            predictor, prepare(predictor, 1), output=name, method="occlusion"
        )
        assert [one.output for one in explained.heat_maps] == [name]
    with pytest.raises(ExplainError, match="no output 'oak'"):
        find_subject(predictor, "oak")


def test_only_rivals_are_subtracted():
    outputs = np.array([1.0, 4.0, 7.0, 100.0])
    assert contrast(outputs, Subject((1,), (0, 1, 2))).tolist() == [0.0]
    assert contrast(outputs, Subject((3,))).tolist() == [100.0]


def test_faithfulness_is_measured_if_answers_have_probabilities(predictor):
    explained = explain_images(predictor, prepare(predictor))
    decisions = np.stack([one.decision for one in explained])
    confidences = predictor.task.confidences(decisions)
    if predictor.task.name == "regression":
        assert confidences is None
        return
    assert confidences.shape == (2, len(CLASSES))
    measured = measure_faithfulness(predictor, [one.heat_map for one in explained])
    assert 0 <= measured.deletion <= 1
    assert measured.insertion != measured.random_insertion


def test_corruptions_and_attacks_are_scored_by_the_task(predictor):
    sample = read_sample(predictor)
    corrupted = measure_corruptions(predictor, sample, severities=[3])
    assert all(np.isfinite(scores).all() for scores in corrupted.scores.values())
    moved = CORRUPTIONS.keys() - corrupted.scores.keys()
    assert moved == ({"rotation", "scale", "crop"} if predictor.task.spatial else set())
    fooling = measure_fooling(predictor, sample, radii=(16,))
    assert fooling.scores["PGD"][0] <= fooling.clean
    assert len(fooling.smallest) == (3 if predictor.task.discrete else 0)


def test_attack_moves_numbers_away_from_their_targets(predictors):
    predictor = predictors["regression"]
    sample = read_sample(predictor)
    decisions = predictor.infer([predictor.cut(one) for one in sample.pixels]).decisions
    # Above the answers in the model's units, and far below in those of these few images.
    values = (decisions + [2.0, 1.0, 1.0]).astype(np.float32)
    units = np.array([[1e3] * 3, [1.0] * 3])
    targets = dataclasses.replace(sample.targets, values=values, units=units)
    fooling = measure_fooling(predictor, dataclasses.replace(sample, targets=targets), radii=(1, 2))
    assert fooling.clean > fooling.scores["PGD"][0] > fooling.scores["PGD"][1]


def test_evaluation_shows_maps_of_every_task(predictor, tmp_path):
    texts, rows = TEXTS[predictor.task.name], []
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(number))
        row = ImageRow(f"{number}.jpg", "", 1, 90, 70, "RGB", "JPEG", text, "", "test", number, "")
        rows.append(row)
    targets = read_targets(predictor.task, rows, CLASSES)
    decisions = predictor.infer(prepare(predictor, 3)).decisions
    explanations = explain_tests(predictor, rows, decisions, targets, tmp_path)
    explanations.draw(tmp_path / "maps.png")
    assert (tmp_path / "maps.png").stat().st_size > 10_000
    assert (explanations.wrong is None) is (not predictor.task.discrete)
    assert ("Checked on" in explanations.render()) is (predictor.task.name != "regression")


@pytest.mark.parametrize("name", ["localisation", "multi_label", "regression"])
def test_only_one_class_per_image_takes_new_class(predictors, tmp_path, name):
    with pytest.raises(DataError, match="one class per image"):
        enroll_class(predictors[name], "new", [], tmp_path / "out")


def test_inside_page_explains_box_and_class(predictors, tmp_path):
    predictor = predictors["localisation"]
    prepared = prepare(predictor)
    task = predictor.task
    answers = [task.explained(one, CLASSES)[0] for one in predictor.infer(prepared).decisions]
    views, page = [one[0] for one in prepared], tmp_path / "inside.html"
    write_inside(Lens.open(predictor.bundle), views, answers, task.subjects(CLASSES), page)
    assert page.read_text().count("data:image/png;base64,") == 7
