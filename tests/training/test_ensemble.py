"""Several networks in one: what is averaged, and that files and engines give the same."""

import numpy as np
import pytest
import torch
from torch import nn

from rootstock.backbones.to_onnx import write_onnx
from rootstock.config.schema import Config
from rootstock.errors import BundleError, ConfigError, DataError
from rootstock.explain.enroll import NewImage, enroll_class
from rootstock.explain.heat_map import explain_images
from rootstock.export.write import export_model
from rootstock.model.card import _describe_ensemble
from rootstock.model.predictor import Predictor
from rootstock.runtimes.engines import installed_engines
from rootstock.runtimes.onnx import onnx_session
from rootstock.tasks import get_task
from rootstock.tasks.single_label.task import SingleLabel
from rootstock.training.ensemble import EnsembleNet
from rootstock.training.selection import is_sure_gain
from rootstock.workflow.task_settings import check_ensemble
from tests.bundles import jpeg, tiny_network, write_tiny_bundle
from tests.tasks.brightness import Brightness

TASKS = ["single_label", "multi_label", "regression", "localisation", "segmentation"]


def make_networks(count):
    """Return networks whose weights differ a little."""
    networks = [tiny_network() for _ in range(count)]
    torch.manual_seed(5)
    with torch.no_grad():
        for network in networks[1:]:
            for weight in network.parameters():
                weight.mul_(1 + 0.2 * torch.randn_like(weight))
    return networks


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    network = EnsembleNet(make_networks(3), SingleLabel())
    folder = tmp_path_factory.mktemp("ensemble") / "model"
    return write_tiny_bundle(folder, network=network, with_reference=True)


@pytest.fixture(scope="module")
def predictor(bundle):
    return Predictor(bundle, engine="onnx")


def sigmoid(values):
    return 1 / (1 + np.exp(-values.astype(np.float64)))


def softmax(values, axis):
    powers = np.exp(values.astype(np.float64) - values.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


@pytest.mark.parametrize("scale", [1.0, 60.0])
def test_probabilities_are_averaged_and_not_logits(scale):
    random = np.random.default_rng(0)
    outputs = (scale * random.normal(size=(3, 5, 4))).astype(np.float32)

    def averaged(task, values=outputs):
        return get_task(task).average(torch.from_numpy(values)).numpy()

    classes = softmax(averaged("single_label"), 1)
    np.testing.assert_allclose(classes, softmax(outputs, 2).mean(axis=0), atol=1e-6)
    labels = sigmoid(averaged("multi_label"))
    np.testing.assert_allclose(labels, sigmoid(outputs).mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(averaged("regression"), outputs.mean(axis=0), atol=1e-5)
    boxed = np.concatenate([outputs, outputs], axis=2)
    places = averaged("localisation", boxed)
    np.testing.assert_allclose(softmax(places[:, :4], 1), classes, atol=1e-6)
    np.testing.assert_allclose(places[:, 4:], outputs.mean(axis=0), atol=1e-5)
    grid = get_task("segmentation").output_grid ** 2
    cells = np.repeat(outputs[..., None], grid, axis=3).reshape(3, 5, -1)
    masks = averaged("segmentation", cells).reshape(5, 4, grid)
    np.testing.assert_allclose(softmax(masks[:, :, 7], 1), classes, atol=1e-6)
    assert np.isfinite(averaged("multi_label")).all()
    assert np.isfinite(averaged("single_label")).all()


def test_a_class_that_no_network_knows_stays_finite():
    outputs = torch.tensor([[[0.0, 1.0, -1e4]], [[2.0, 1.0, -1e4]]])
    averaged = SingleLabel().average(outputs)
    assert torch.isfinite(averaged).all()
    assert averaged[0, 2] < -9000


@pytest.mark.parametrize("task", TASKS)
def test_equal_networks_give_the_answer_of_one(task):
    task = get_task(task)
    width = 3 * max(1, task.output_grid**2) + (4 if task.name == "localisation" else 0)
    one = torch.randn(2, width, generator=torch.Generator().manual_seed(1))
    averaged = task.average(torch.stack([one, one, one])).numpy()
    if task.name in ("multi_label", "regression"):
        np.testing.assert_allclose(averaged, one.numpy(), atol=1e-5)
        return
    decided = (task.decide(each, {"temperature": 1.0}) for each in (averaged, one.numpy()))
    np.testing.assert_allclose(*decided, atol=1e-5)


class Averaged(nn.Module):
    """Three networks of one linear layer, and their average."""

    def __init__(self, task, width):
        super().__init__()
        torch.manual_seed(2)
        self.task = task
        self.layers = nn.ModuleList(nn.Linear(3 * 8 * 8, width) for _ in range(3))

    def forward(self, images):
        return self.task.average(torch.stack([one(images.flatten(1)) for one in self.layers]))


@pytest.mark.parametrize("task", TASKS)
def test_the_average_of_every_task_is_exported(task, tmp_path):
    task = get_task(task)
    width = 3 * max(1, task.output_grid**2) + (4 if task.name == "localisation" else 0)
    module = Averaged(task, width).eval()
    write_onnx(module, tmp_path / "a.onnx", input_size=8, outputs=["logits"])
    images = 50 * np.random.default_rng(0).normal(size=(5, 3, 8, 8)).astype(np.float32)
    (found,) = onnx_session(tmp_path / "a.onnx").run(["logits"], {"images": images})
    with torch.inference_mode():
        expected = module(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("engine", installed_engines())
def test_every_engine_gives_average_in_any_batch_size(bundle, engine):
    predictor = Predictor(bundle, engine=engine)
    assert bundle.facts.networks == 3
    prepared = [predictor.prepare(jpeg(seed)) for seed in range(4)]
    images = predictor.bundle.preprocess.normalise(np.concatenate(prepared))
    networks = make_networks(3)
    with torch.inference_mode():
        each = [network(torch.from_numpy(images)).numpy() for network in networks]
        features = networks[0].features(torch.from_numpy(images)).numpy()
    expected = np.mean([softmax(outputs, 1) for outputs in each], axis=0)
    np.testing.assert_allclose(softmax(predictor.outputs(images), 1), expected, atol=1e-4)
    np.testing.assert_allclose(softmax(predictor.outputs(images[:1]), 1), expected[:1], atol=1e-4)
    largest = float(np.abs(features).max())
    found = predictor.infer(prepared).features
    np.testing.assert_allclose(found, features, atol=1e-4 * largest)
    one = softmax(each[0], 1)
    assert np.abs(one - expected).max() > 0.01


def test_images_are_explained_by_occlusion(predictor):
    (explained,) = explain_images(predictor, [predictor.prepare(jpeg(3))])
    assert explained.heat_map.method == "occlusion"


def test_exports_hold_all_networks_but_those_of_one(predictor, tmp_path):
    for name in ("onnx", "torchscript"):
        done = export_model(predictor, name, tmp_path / name, contents=[jpeg(1), jpeg(2)])
        assert done.proof.largest_difference < 1e-3
    with pytest.raises(BundleError, match="hold one network; this model averages 3"):
        export_model(predictor, "timm", tmp_path / "timm")


def test_a_class_is_not_enrolled_in_several_heads(predictor, tmp_path):
    image = NewImage("a.jpg", jpeg(1), "00", np.zeros(4, np.float32))
    with pytest.raises(DataError, match="averages 3 networks"):
        enroll_class(predictor, "oak", [image], tmp_path / "new")


def test_the_card_says_what_answers(bundle):
    (line,) = _describe_ensemble(bundle.facts.model_dump())
    assert line.startswith("- 3 networks were fine-tuned with different seeds")
    assert _describe_ensemble({}) == []


@pytest.mark.parametrize(("ahead", "sure"), [(0.2, True), (0.16, False), (-0.5, False)])
def test_only_a_gain_beyond_chance_is_paid_for(ahead, sure):
    assert is_sure_gain(ahead, 0.1) is sure


def test_what_cannot_be_an_ensemble_is_rejected():
    def check(task, **plan):
        check_ensemble(Config.model_validate({"train": {"ensemble": 3}, "plan": plan}), task)

    check(SingleLabel())
    check(SingleLabel(), strategy="norm_finetune")
    with pytest.raises(ConfigError, match="is the same for every seed"):
        check(SingleLabel(), strategy="linear_probe")
    with pytest.raises(ConfigError, match="task `brightness` cannot be averaged"):
        check(Brightness())
