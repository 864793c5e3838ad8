"""The promises for each family in docs/explanation/backbones.md, on random weights."""

import numpy as np
import pytest
import torch

from rootstock.backbones.taps import module_stages
from rootstock.config.choices import Strategy
from rootstock.data.manifest import ImageRow
from rootstock.plan import rules
from rootstock.tasks.single_label.task import SingleLabel
from rootstock.tasks.targets import Targets
from rootstock.training.export import export_onnx, onnx_logits
from rootstock.training.finetune import BEST, finetune
from rootstock.training.images import ImageSet
from rootstock.training.network import TransferNet
from rootstock.training.optim import FinetuneSettings, parameter_groups, set_training_mode
from tests.backbones.families import FAMILIES, Case, prepare
from tests.tasks.classes import fit_linear_head

LABELS = np.array([0, 1] * 4)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_generate_tests(metafunc):
    slow = metafunc.function in (
        test_one_step_of_fine_tuning,
        test_onnxruntime_gives_the_same_logits,
    )
    families = [
        pytest.param(family, id=family.name, marks=[pytest.mark.slow] * (slow and family.heavy))
        for family in FAMILIES
    ]
    metafunc.parametrize("case", families, indirect=True, scope="module")


@pytest.fixture(scope="module")
def case(request, tmp_path_factory) -> Case:
    return prepare(request.param, tmp_path_factory.mktemp("weights"))


def network_of(case: Case, tap: str = "last") -> TransferNet:
    """Return the backbone up to a tap with a head probed on its features."""
    features = case.backbone.features(case.images, [tap])[tap].numpy()
    head = fit_linear_head(features, LABELS, l2=1.0, n_classes=2)
    return TransferNet.build(case.backbone, tap=tap, head=head)


def settings_of(strategy: Strategy, **changes) -> FinetuneSettings:
    recipe = rules.RECIPES[strategy]
    facts = {
        "learning_rate": 0.1,  # the warm-up begins at a hundredth of it
        "epochs": 1,
        "batch_size": len(LABELS),
        "freeze_through": None,
        "batchnorm": recipe.batchnorm,
        "layer_decay": recipe.layer_decay,
        "head_multiplier": recipe.head_multiplier,
        "weight_decay": 0.01,
        "label_smoothing": 0.0,
        "patience": 1,
        "augmentation": "light",
        "flip": True,
        "seed": 0,
    }
    return FinetuneSettings(**(facts | changes))


def test_its_weights_load_from_file_with_card(case):
    source = {"last": None} | dict.fromkeys(case.backbone.tap_names[:-1])
    with torch.inference_mode():
        final, maps = case.source.forward_intermediates(case.images)
        source["last"] = case.source.forward_head(final, pre_logits=True)
    source |= {f"block{n}": part.mean(dim=(2, 3)) for n, part in enumerate(maps, start=1)}
    found = case.backbone.features(case.images, case.backbone.tap_names)
    assert all(torch.equal(found[tap], source[tap]) for tap in case.backbone.tap_names)


def test_its_taps_go_from_shallow_to_deep(case):
    taps = case.backbone.taps
    assert len(taps) >= 3
    assert taps[-1].name == "last"
    assert [tap.stride for tap in taps] == sorted(tap.stride for tap in taps)


def test_every_tap_gives_finite_and_distinct_features(case):
    found = case.backbone.features(case.images, case.backbone.tap_names)
    for tap in case.backbone.taps:
        assert found[tap.name].shape == (len(case.images), tap.channels)
        assert found[tap.name].isfinite().all()
        assert found[tap.name].std(dim=0).max() > 0


def test_tap_runs_only_layers_up_to_its_stage(case):
    names = case.backbone.tap_names
    for depth, tap in enumerate(names):
        module = case.backbone.feature_module(tap)
        features = module(case.images[:2])
        torch.testing.assert_close(features, case.backbone.features(case.images[:2], [tap])[tap])
        features.sum().backward()
        stages = module_stages(module.module)
        for name, parameter in module.module.named_parameters():
            above = names.index(stages[name.rpartition(".")[0]]) > depth
            assert (parameter.grad is None) == above, f"{name} and {tap}"


def test_frozen_layers_keep_weights_and_statistics(case):
    network = network_of(case)
    for depth, tap in enumerate(case.backbone.tap_names[:-1]):
        settings = settings_of("partial_finetune", freeze_through=tap, batchnorm="train")
        parameter_groups(network, settings)
        set_training_mode(network, settings)
        network.zero_grad(set_to_none=True)
        before = statistics(network)
        network(case.images[:4]).square().sum().backward()
        moved = {
            name for name, value in statistics(network).items() if (value != before[name]).any()
        }
        learnt = {name for name, p in network.named_parameters() if p.grad is not None}
        free = free_modules(case, network, depth)
        assert learnt == {n for n, _ in network.named_parameters() if n.rpartition(".")[0] in free}
        assert moved == {name for name in before if name.rpartition(".")[0] in free}


def statistics(network):
    """Return the running means of BatchNorm."""
    return {n: value.clone() for n, value in network.named_buffers() if n.endswith("running_mean")}


def free_modules(case, network, depth):
    """Return the names of modules deeper than tap number ``depth``, including the head's."""
    names = case.backbone.tap_names
    stages = module_stages(network.extractor.module)
    free = {name for name, tap in stages.items() if names.index(tap) > depth}
    return {f"extractor.module.{name}".rstrip(".") for name in free} | {"head"}


@pytest.mark.parametrize("strategy", ["linear_probe", "early_features"])
def test_a_head_on_frozen_features_learns_its_images(case, strategy):
    for tap in rules.candidate_taps(strategy, case.backbone.tap_names, {}):
        with torch.inference_mode():
            logits = network_of(case, tap)(case.images).numpy()
        assert (logits.argmax(axis=1) == LABELS).mean() > 0.5


@pytest.mark.parametrize("strategy", list(rules.RECIPES))
def test_one_step_of_fine_tuning(case, strategy, tmp_path):
    frozen = None
    if strategy == "partial_finetune":
        frozen = rules.freeze_through(case.backbone.tap_names)
    network = network_of(case)
    before = {name: value.clone() for name, value in network.named_parameters()}
    data = image_set(case, tmp_path)
    metrics = finetune(
        network,
        data,
        data,
        task=SingleLabel(),
        settings=settings_of(strategy, freeze_through=frozen),
        directory=tmp_path,
        report=lambda step, values: None,
    )
    (tmp_path / BEST).unlink()  # AlexNet's are large, and pytest keeps the folder
    moved = {
        name for name, value in network.named_parameters() if not torch.equal(value, before[name])
    }
    depth = case.backbone.tap_names.index(frozen) if frozen else -1
    free = free_modules(case, network, depth)
    assert np.isfinite(metrics["val_log_loss"])
    assert moved == {n for n in before if n.rpartition(".")[0] in free}


def image_set(case: Case, folder) -> ImageSet:
    """Random pixels of decoded images."""
    preprocess = case.backbone.card.preprocess()
    side = preprocess.input_size
    pixels = np.random.default_rng(0).integers(0, 256, (len(LABELS), side, side, 3), np.uint8)
    np.save(folder / "pixels.npy", pixels)
    row = ImageRow("", "", 0, side, side, "RGB", "PNG", "", "", "train", 0, "")
    targets = Targets(LABELS, ("cat", "dog"), LABELS)
    return ImageSet((row,) * len(LABELS), targets, folder, preprocess, folder / "pixels.npy")


def test_onnxruntime_gives_the_same_logits(case, tmp_path, capfd):
    network = network_of(case)
    export_onnx(network, tmp_path / "model.onnx", case.images.numpy())
    assert capfd.readouterr() == ("", "")
    with torch.inference_mode():
        expected = network(case.images).numpy()
    assert np.ptp(expected) > 0.1
    for found in onnx_logits(tmp_path / "model.onnx", case.images.numpy()):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)
