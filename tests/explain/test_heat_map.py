"""Heat maps: exact if they claim to be, at the right place, and faithful to the model."""

import dataclasses

import numpy as np
import pytest
import torch

from rootstock.backbones.load import build_backbone
from rootstock.errors import ExplainError
from rootstock.explain.activation_maps import join_maps, map_evidence, read_grids
from rootstock.explain.faithfulness import measure_faithfulness
from rootstock.explain.heat_map import explain_images
from rootstock.explain.overlay import draw_overlay
from rootstock.heads.linear import LinearHead, MlpHead
from rootstock.model.head_layers import HeadLayers
from rootstock.model.predictor import Predictor
from rootstock.runtimes.engines import installed_engines
from rootstock.training.export import are_means
from rootstock.training.network import TransferNet
from tests.bundles import CLASSES, SIZE, jpeg, tiny_backbone, tiny_bundle, write_tiny_bundle

CELL = SIZE // 4
SPOTTED = ["plain", "spot"]


def make_head(tap, hidden=0):
    random = np.random.default_rng(1)
    widths = [tiny_backbone().width(tap), *([hidden] if hidden else []), len(CLASSES)]
    layers = [
        LinearHead(random.normal(0, 1, (b, a)).astype("f4"), random.normal(0, 1, b).astype("f4"))
        for a, b in zip(widths, widths[1:], strict=False)
    ]
    return layers[0] if len(layers) == 1 else MlpHead(*layers)


def spotted(seed, is_spotted):
    """Return a noisy grey view and the cell (row, column) of its red spot, if it has one."""
    random = np.random.default_rng(seed)
    view = random.integers(110, 146, (SIZE, SIZE, 3), dtype=np.uint8)
    row, column = random.integers(0, 4, 2)
    if is_spotted:
        view[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = (220, 30, 30)
    return view, (row, column)


@pytest.fixture(scope="module")
def spots(tmp_path_factory):
    """A model that separates views with a red spot from those without."""
    backbone = tiny_backbone()
    preprocess = backbone.card.preprocess()
    views = [spotted(seed, seed % 2)[0] for seed in range(80)]
    images = torch.from_numpy(preprocess.normalise(np.stack(views)))
    features = backbone.features(images, ["block2"])["block2"].numpy()
    from rootstock.tasks.single_label.learning import SoftmaxSolver
    from rootstock.tasks.targets import Targets

    labels = np.arange(80) % 2
    head = SoftmaxSolver("none").fit(features, Targets(labels, tuple(SPOTTED), labels), l2=1e-3)
    network = TransferNet.build(backbone, tap="block2", head=head)
    folder = tmp_path_factory.mktemp("spots") / "model"
    golden = [("a.jpg", jpeg(1), "plain")]
    write_tiny_bundle(folder, network=network, names=SPOTTED, golden=golden)
    return Predictor(folder)


@pytest.mark.parametrize(
    "tap", ["last", "block2", "block1+block3+last", "block3@3+last", "last@max+last"]
)
@pytest.mark.parametrize("hidden", [0, 16])
def test_evidence_of_all_positions_is_the_output(tmp_path, tap, hidden):
    network = TransferNet.build(tiny_backbone(), tap=tap, head=make_head(tap, hidden))
    predictor = Predictor(write_tiny_bundle(tmp_path / "model", network=network))
    prepared = [predictor.prepare(jpeg(seed)) for seed in range(3)]
    mapped = predictor.infer_maps(prepared)
    outputs = predictor.outputs(predictor.bundle.preprocess.normalise(np.concatenate(prepared)))
    layers, grids = predictor.head, read_grids(tap)
    assert len(mapped.maps) == len(grids)
    for number in range(len(prepared)):
        maps = [one[number] for one in mapped.maps]
        features = join_maps(maps, grids)
        linear = layers.linear_part(features)
        constant = outputs[number] - linear @ features
        for output in range(len(CLASSES)):
            evidence = map_evidence(maps, linear[output], grids)
            expected = outputs[number, output] - constant[output]
            assert evidence.mean() == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_hidden_layers_are_linear_around_an_image():
    layers = HeadLayers((np.array([[1.0], [-1.0]]), np.array([[2.0, 3.0]])), (np.zeros(2), [0.0]))
    assert layers.linear_part(np.array([0.5])).tolist() == [[2.0]]
    assert layers.linear_part(np.array([-0.5])).tolist() == [[-3.0]]


@pytest.mark.parametrize("method", ["maps", "occlusion"])
def test_map_is_strongest_at_the_spot(spots, method):
    hits = 0
    for seed in range(1, 41, 2):
        view, cell = spotted(1000 + seed, True)
        (explained,) = explain_images(spots, [view[None]], output="spot", method=method)
        evidence = explained.heat_map.evidence
        height, width = evidence.shape
        row, column = np.unravel_index(evidence.argmax(), evidence.shape)
        hits += (row * 4 // height, column * 4 // width) == cell
    assert hits >= 18


def test_map_is_more_faithful_than_chance(spots):
    views = [spotted(2000 + seed, True)[0] for seed in range(1, 13)]
    maps = [
        one.heat_map for one in explain_images(spots, [view[None] for view in views], output="spot")
    ]
    measured = measure_faithfulness(spots, maps)
    assert measured.n_images == 12
    assert measured.deletion < measured.random_deletion
    assert measured.insertion > measured.random_insertion
    reverse = [dataclasses.replace(one, evidence=-one.evidence) for one in maps]
    wrong = measure_faithfulness(spots, reverse)
    assert wrong.deletion > measured.deletion
    assert wrong.insertion < measured.insertion


@pytest.mark.parametrize("engine", installed_engines())
def test_answers_with_maps_are_those_without(engine):
    predictor = Predictor(tiny_bundle(), engine=engine)
    prepared = [predictor.prepare(jpeg(seed)) for seed in range(3)]
    plain, mapped = predictor.infer(prepared), predictor.infer_maps(prepared)
    np.testing.assert_array_equal(plain.decisions, mapped.decisions)
    np.testing.assert_array_equal(plain.features, mapped.features)
    assert mapped.maps


@pytest.mark.parametrize("views", ["flip", "crops"])
def test_map_is_that_of_the_first_view(tmp_path, views):
    one = Predictor(tiny_bundle())
    many = Predictor(write_tiny_bundle(tmp_path / "model", views=views))
    maps = [p.infer_maps([p.prepare(jpeg(5))]).maps for p in (one, many)]
    for first, second in zip(*maps, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-4)


def test_network_of_tokens_has_no_maps_but_occlusion(tmp_path):
    card = tiny_backbone().card.model_copy(
        update={"architecture": "test_vit", "architecture_kwargs": {"img_size": SIZE}}
    )
    backbone = build_backbone(card)
    random = np.random.default_rng(0)
    weights = random.normal(size=(len(CLASSES), backbone.width("last"))).astype("f4")
    head = LinearHead(weights, np.zeros(len(CLASSES), "f4"))
    network = TransferNet.build(backbone, tap="last", head=head)
    predictor = Predictor(write_tiny_bundle(tmp_path / "model", network=network, card=card))
    prepared = [predictor.prepare(jpeg(3))]
    with pytest.raises(ExplainError, match="no activation maps"):
        explain_images(predictor, prepared, method="maps")
    (explained,) = explain_images(predictor, prepared)
    assert explained.heat_map.method == "occlusion"
    assert np.ptp(explained.heat_map.evidence) > 0


def test_features_behind_layer_are_not_means_of_maps():
    features = torch.ones(2, 3)
    assert are_means(features, [torch.ones(2, 3, 4, 4)])
    assert not are_means(features, [2 * torch.ones(2, 3, 4, 4)])
    assert not are_means(features, [torch.ones(2, 5, 3)])
    assert not are_means(features, [torch.ones(2, 4, 4, 4)])


def test_unknown_output_is_rejected_with_the_known_ones():
    predictor = Predictor(tiny_bundle())
    with pytest.raises(ExplainError, match="'oak'") as caught:
        explain_images(predictor, [predictor.prepare(jpeg(3))], output="oak")
    assert "tulip" in caught.value.hint


def test_overlay_without_strength_is_the_view():
    predictor = Predictor(tiny_bundle())
    prepared = predictor.prepare(jpeg(3))
    (explained,) = explain_images(predictor, [prepared])
    np.testing.assert_array_equal(draw_overlay(explained.heat_map, strength=0), prepared[0])
    assert draw_overlay(explained.heat_map).shape == prepared[0].shape
