import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rootstock.errors import DataError, TrainingError
from rootstock.heads.linear import LinearHead
from rootstock.tasks.dataset import Dataset
from rootstock.tasks.single_label.learning import balanced_weights
from rootstock.tasks.single_label.task import SingleLabel
from rootstock.training import finetune as module
from rootstock.training import optim
from rootstock.training.compute import Compute
from rootstock.training.finetune import BEST, finetune
from rootstock.training.images import prepare_images, training_preprocess
from rootstock.training.network import TransferNet
from rootstock.training.optim import FinetuneSettings, parameter_groups, set_training_mode
from rootstock.training.predict import predict_outputs, validate
from tests.bundles import tiny_backbone, tiny_network
from tests.data.folders import photo, write_classes
from tests.data.test_broken_folders import index

SETTINGS = {
    "learning_rate": 1e-3,
    "epochs": 3,
    "batch_size": 8,
    "freeze_through": None,
    "batchnorm": "eval",
    "layer_decay": 0.5,
    "head_multiplier": 2.0,
    "weight_decay": 0.01,
    "label_smoothing": 0.0,
    "patience": 10,
    "augmentation": "light",
    "flip": True,
    "seed": 0,
}

CHANNELS_LAST = Compute(device="cpu", channels_last=True, bfloat16=False)

RARE = ((0, 6), (1, 6), (2, 1))
"""Classes and how many of their training images are kept."""


class KilledError(Exception):  # noqa: N818 - an event, not an error
    """Simulates SIGKILL during a training run."""


def settings(**changes) -> FinetuneSettings:
    return FinetuneSettings(**(SETTINGS | changes))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Training and validation images of three classes."""
    folder = tmp_path_factory.mktemp("images")
    manifest = index(write_classes(folder / "data", {"a": 12, "b": 12, "c": 12}))
    preprocess = tiny_backbone().card.preprocess()

    def prepare(split, prepared):
        return prepare_images(
            manifest.rows(split),
            Dataset.of(manifest).targets(split),
            root=folder / "data",
            preprocess=prepared,
            cache=folder / f"{split}.npy",
        )

    return prepare("train", training_preprocess(preprocess)), prepare("val", preprocess)


def run(images, directory, network=None, report=None, **changes):
    directory.mkdir(exist_ok=True)
    network = network or tiny_network()
    metrics = finetune(
        network,
        *images,
        task=SingleLabel(),
        settings=settings(**changes),
        directory=directory,
        report=report or (lambda step, values: None),
    )
    return network, metrics


def test_fine_tuning_learns_and_keeps_its_best_weights(images, tmp_path):
    losses = []
    _, metrics = run(
        images, tmp_path, report=lambda step, values: losses.append(values["train_loss"]), epochs=6
    )
    assert losses[-1] < losses[0]
    network = tiny_network()
    network.load_state_dict(load_file(tmp_path / BEST))
    again = validate(network, images[1], SingleLabel())
    assert again["val_log_loss"] == pytest.approx(metrics["val_log_loss"], rel=1e-5)


@pytest.mark.parametrize("batchnorm", ["eval", "train"])
def test_frozen_layers_stay_identical_with_batchnorm(images, tmp_path, batchnorm):
    before = tiny_network().state_dict()
    network, _ = run(images, tmp_path, freeze_through="block2", batchnorm=batchnorm)
    stages = optim._stages(network)
    frozen, moved = [], []
    for name, value in network.state_dict().items():
        stage = stages[name.rpartition(".")[0]]
        (frozen if stage in ("block1", "block2") else moved).append(
            torch.equal(value, before[name])
        )
    assert all(frozen)
    assert len(frozen) > 10
    assert not all(moved)


def test_only_normalisation_layers_and_the_head_are_trained(images, tmp_path):
    before = tiny_network().state_dict()
    network, _ = run(images, tmp_path, norm_only=True)
    norms = optim.norm_layers(network)
    moved = {
        name for name, value in network.state_dict().items() if not torch.equal(value, before[name])
    }
    assert {"head.weight", "head.bias"} <= moved
    inner = moved - {"head.weight", "head.bias"}
    assert len(inner) > 10
    assert {name.rpartition(".")[0] for name in inner} <= norms
    assert {name.rpartition(".")[2] for name in inner} == {"weight", "bias"}


def test_batchnorm_in_eval_mode_keeps_every_statistic(images, tmp_path):
    before = tiny_network().state_dict()
    network, _ = run(images, tmp_path, batchnorm="eval")
    kept = [
        torch.equal(value, before[name])
        for name, value in network.state_dict().items()
        if "running" in name
    ]
    assert kept
    assert all(kept)


def test_batchnorm_in_train_mode_renews_statistics(images, tmp_path):
    before = tiny_network().state_dict()
    network, _ = run(images, tmp_path, batchnorm="train")
    assert any(
        not torch.equal(value, before[name])
        for name, value in network.state_dict().items()
        if "running" in name
    )


def test_rates_fall_with_depth_and_head_is_fastest():
    groups = parameter_groups(tiny_network(), settings())
    peaks = {group["stage"]: group["peak"] for group in groups}
    order = [
        name for name in ["head", "last", *reversed(tiny_backbone().tap_names)] if name in peaks
    ]
    rates = [peaks[name] for name in dict.fromkeys(order)]
    assert rates == sorted(rates, reverse=True)
    assert peaks["head"] == 2e-3


def test_every_trainable_parameter_is_in_one_group():
    network = tiny_network()
    groups = parameter_groups(network, settings(freeze_through="block1"))
    listed = [id(p) for group in groups for p in group["params"]]
    assert len(listed) == len(set(listed))
    assert set(listed) == {id(p) for p in network.parameters() if p.requires_grad}
    assert len(listed) < len(list(network.parameters()))


def test_biases_and_norms_have_no_weight_decay():
    for group in parameter_groups(tiny_network(), settings()):
        flat = all(parameter.ndim <= 1 for parameter in group["params"])
        assert (group.get("weight_decay") == 0.0) is flat


def test_frozen_modules_are_in_evaluation_mode_while_training():
    network = tiny_network()
    set_training_mode(network, settings(freeze_through="block2", batchnorm="train"))
    stages = optim._stages(network)
    for name, part in network.named_modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            assert part.training is (stages[name] not in ("block1", "block2"))


def test_killed_training_resumes_to_same_weights(images, tmp_path):
    whole, _ = run(images, tmp_path / "whole")

    def die(step, values):
        if step == 2:
            raise KilledError

    with pytest.raises(KilledError):
        run(images, tmp_path / "killed", report=die)
    steps = []
    resumed, _ = run(images, tmp_path / "killed", report=lambda step, values: steps.append(step))
    assert steps == [3]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_training_stops_when_validation_gets_no_better(images, tmp_path):
    steps = []
    run(
        images,
        tmp_path,
        learning_rate=1e-12,
        epochs=50,
        patience=2,
        report=lambda step, values: steps.append(step),
    )
    assert len(steps) < 50


def test_non_finite_loss_names_epoch_and_rate(images, tmp_path):
    network = tiny_network()
    with torch.no_grad():
        network.head.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"nan in epoch 1 at learning rate 0.001(.|\n)*smaller"):
        run(images, tmp_path, network)


def test_last_step_that_breaks_weights_is_error_too(images, tmp_path):
    message = r"validation loss is nan in epoch 1 at learning rate 1e\+30(.|\n)*smaller"
    with pytest.raises(TrainingError, match=message):
        run(images, tmp_path, learning_rate=1e30, epochs=1, batch_size=64)
    assert not (tmp_path / BEST).exists()


def test_damaged_checkpoint_costs_time_but_not_trial(images, tmp_path):
    def die(step, values):
        raise KilledError

    with pytest.raises(KilledError):
        run(images, tmp_path, report=die)
    checkpoint = tmp_path / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    steps = []
    with pytest.warns(UserWarning, match="checkpoint.safetensors is damaged"):
        run(images, tmp_path, report=lambda step, values: steps.append(step))
    assert steps == [1, 2, 3]


def only(images, keep):
    """Return the images of some classes."""
    chosen = np.flatnonzero(np.isin(images.targets.values, keep))
    rows = tuple(images.rows[index] for index in chosen)
    return dataclasses.replace(images, rows=rows, targets=images.targets.take(chosen), cache=None)


def with_names(images, names):
    targets = dataclasses.replace(images.targets, names=names)
    return dataclasses.replace(images, targets=targets)


def test_class_without_validation_images_is_not_obstacle(images, tmp_path):
    train, val = images
    _, metrics = run((train, only(val, [0, 2])), tmp_path, epochs=1)
    assert np.isfinite(list(metrics.values())).all()


def test_two_classes_can_be_fine_tuned(images, tmp_path):
    pair = tuple(with_names(only(part, [0, 1]), ("a", "b")) for part in images)
    width = tiny_backbone().taps[-1].channels
    head = LinearHead(np.zeros((2, width), np.float32), np.zeros(2, np.float32))
    network = TransferNet.build(tiny_backbone(), tap="last", head=head)
    _, metrics = run(pair, tmp_path, network, epochs=1)
    assert predict_outputs(network, pair[1]).shape == (len(pair[1]), 2)
    assert metrics["val_log_loss"] < 2


@pytest.mark.parametrize("option", ["balanced", "logit_adjusted"])
def test_weights_and_adjusted_logits_lift_the_rare_class(images, tmp_path, option):
    train, val = images
    kept = np.sort(np.concatenate([np.flatnonzero(train.targets.values == c)[:n] for c, n in RARE]))
    rows = tuple(train.rows[index] for index in kept)
    few = dataclasses.replace(train, rows=rows, targets=train.targets.take(kept), cache=None)
    lifted = {}
    for weighting in ("none", option):
        home = tmp_path / weighting
        network, _ = run((few, val), home, weighting=weighting, epochs=1, freeze_through="last")
        lifted[weighting] = float(network.head.bias[2].detach())
    assert lifted[option] > lifted["none"]


def test_balanced_weights_are_inverse_to_class_sizes():
    weights = balanced_weights(np.array([0, 0, 0, 1]), 2, torch.device("cpu"))
    assert weights[1] / weights[0] == pytest.approx(3.0)


def test_images_come_same_from_cache_and_from_disk(images, monkeypatch, tmp_path):
    known = images[0]
    facts = {"root": known.root, "preprocess": known.preprocess}
    monkeypatch.setattr(
        "rootstock.training.images._BLOCK_IMAGES", 5
    )  # several blocks, the last not full
    cached = prepare_images(known.rows, known.targets, cache=tmp_path / "some.npy", **facts)
    monkeypatch.setattr("rootstock.training.images.CACHE_BYTES", 0)
    direct = prepare_images(known.rows, known.targets, cache=tmp_path / "none.npy", **facts)
    assert cached.cache is not None
    assert direct.cache is None
    every = range(len(known))
    assert (direct.pixels(every) == cached.pixels(every)).all()
    assert (direct.pixels([2, 0]) == cached.pixels([2, 0])).all()


def test_an_image_that_changed_before_training_is_named(tmp_path):
    root = write_classes(tmp_path / "data", {"a": 4, "b": 4})
    manifest = index(root, val_fraction=0.0, test_fraction=0.0)
    (root / "a/1.png").write_bytes(photo(999))
    with pytest.raises(DataError, match="a/1.png has changed since it was indexed"):
        prepare_images(
            manifest.rows(),
            Dataset.of(manifest).targets(),
            root=root,
            preprocess=tiny_backbone().card.preprocess(),
            cache=tmp_path / "x.npy",
        )
    assert not (tmp_path / "x.npy").exists()


def test_logits_do_not_depend_on_the_batch(images, monkeypatch):
    network = tiny_network()
    whole = predict_outputs(network, images[1])
    monkeypatch.setattr("rootstock.training.predict.BATCH_IMAGES", 3)
    np.testing.assert_allclose(predict_outputs(network, images[1]), whole, rtol=1e-4, atol=1e-4)


def weights_of(directory):
    return load_file(directory / BEST)


@pytest.mark.parametrize("weighting", ["none", "balanced"])
def test_micro_batches_add_up_to_the_whole_batch(images, tmp_path, weighting):
    whole, _ = run(images, tmp_path / "whole", weighting=weighting, label_smoothing=0.1)
    parts, _ = run(
        images, tmp_path / "parts", weighting=weighting, label_smoothing=0.1, micro_batch=3
    )
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=1e-3, atol=1e-4)


class Hungry(torch.nn.Linear):
    """A head that runs out of memory for more than ``most`` images while training."""

    most = 3

    def forward(self, features):
        if self.training and len(features) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return super().forward(features)


def hungry_network(most):
    network = tiny_network()
    head = Hungry(network.head.in_features, network.head.out_features)
    head.load_state_dict(network.head.state_dict())
    head.most = most
    network.head = head
    return network


def test_out_of_memory_halves_batch_with_same_result(images, tmp_path, caplog):
    plain, _ = run(images, tmp_path / "plain")
    starved, _ = run(images, tmp_path / "starved", network=hungry_network(3))
    history = json.loads((tmp_path / "starved" / "history.json").read_text())["epochs"]
    assert 1 <= history[0]["micro_batch"] <= 3
    assert "out of memory" in caplog.text
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(starved.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def test_memory_for_not_even_one_image_ends_trial(images, tmp_path):
    with pytest.raises(TrainingError, match=r"a single image does(.|\n)*plan\.input_size"):
        run(images, tmp_path, network=hungry_network(0))


def test_other_runtime_errors_are_not_taken_for_memory(images, tmp_path):
    network = tiny_network()
    network.head.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("odd")))
    with pytest.raises(RuntimeError, match="odd"):
        run(images, tmp_path, network=network)


def test_averaged_weights_lag_behind_the_last_ones(images, tmp_path):
    start = tiny_network().state_dict()
    last, _ = run(images, tmp_path, ema_decay=0.9, epochs=1)
    kept = weights_of(tmp_path)
    name = "head.weight"
    moved = (last.state_dict()[name] - start[name]).norm()
    assert 0 < (kept[name] - start[name]).norm() < moved


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "sgd", "learning_rate": 0.01},
        {"ema_decay": 0.9},
        {"micro_batch": 5},
        {"mixup": 0.4, "cutmix": 1.0},
        {"weighting": "balanced_sampling"},
        {"augmentation": "strong"},
        {"optimizer": "sgd", "learning_rate": 0.01, "ema_decay": 0.9, "micro_batch": 5},
        {"compute": CHANNELS_LAST},
        {"weighting": "balanced", "label_smoothing": 0.1},
        {"weighting": "logit_adjusted"},
        {"recompute": True},
    ],
    ids=lambda options: " ".join(options),
)
def test_every_option_resumes_bit_for_bit(images, tmp_path, options):
    at_once, _ = run(images, tmp_path / "at once", epochs=3, **options)

    def die(step, values):
        if step == 1:
            raise KilledError

    with pytest.raises(KilledError):
        run(images, tmp_path / "killed", epochs=3, report=die, **options)
    resumed, _ = run(images, tmp_path / "killed", epochs=3, **options)
    for name, value in at_once.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    best = weights_of(tmp_path / "at once")
    assert all(torch.equal(v, best[k]) for k, v in weights_of(tmp_path / "killed").items())


def test_training_ends_at_time_limit_with_valid_weights(images, tmp_path):
    network = tiny_network()
    tmp_path.mkdir(exist_ok=True)
    reports = []
    metrics = finetune(
        network,
        *images,
        task=SingleLabel(),
        settings=settings(epochs=50),
        directory=tmp_path,
        report=lambda step, values: reports.append(step),
        until=1.0,
    )
    assert reports == [1]
    assert metrics["best_epoch"] == 1.0
    assert (tmp_path / BEST).is_file()


def test_the_layout_of_images_changes_nothing_but_rounding(images, tmp_path):
    plain, _ = run(images, tmp_path / "plain", epochs=1)
    other, _ = run(images, tmp_path / "other", epochs=1, compute=CHANNELS_LAST)
    for name, value in plain.state_dict().items():
        assert torch.allclose(other.state_dict()[name], value, atol=1e-5), name


def test_rounded_activations_train_about_the_same(images, tmp_path):
    rounded = CHANNELS_LAST.model_copy(update={"bfloat16": True})
    _, exact = run(images, tmp_path / "exact", epochs=1)
    _, about = run(images, tmp_path / "about", epochs=1, compute=rounded)
    assert about["val_log_loss"] == pytest.approx(exact["val_log_loss"], rel=0.05)
    assert about["val_log_loss"] != exact["val_log_loss"]


def test_recomputing_activations_gives_the_same_weights(images, tmp_path):
    plain, _ = run(images, tmp_path / "plain")
    again, _ = run(images, tmp_path / "again", recompute=True)
    assert again.extractor.module.grad_checkpointing
    for name, value in plain.state_dict().items():
        assert torch.allclose(again.state_dict()[name], value, atol=1e-6), name


def test_recomputing_says_when_a_backbone_cannot():
    class Stubborn(torch.nn.Module):
        def set_grad_checkpointing(self, enable=True):
            assert not enable

    network = tiny_network()
    network.extractor.module = Stubborn()
    assert not module.recompute_activations(network)
