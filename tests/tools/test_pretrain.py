"""Pretraining on a tiny corpus: its files, resuming, and errors."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from rootstock.backbones.create import create_module
from rootstock.backbones.load import load_backbone
from rootstock.errors import BackboneError, DataError
from tools.pretrain import pretrain as module
from tools.pretrain.corpus import centre_boxes, crop, read_corpus
from tools.pretrain.pretrain import pretrain

pytestmark = pytest.mark.integration  # from images to a network, many times

ARCHITECTURE = "mobilenetv3_small_050"
TINY = {
    "architecture": ARCHITECTURE,
    "input_size": 40,
    "low_size": 32,
    "epochs": 2,
    "low_epochs": 1,
    "batch_size": 8,
    "stored_size": 32,
}


def draw(folder: Path, *, names: list[str], seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (36, 44, 3), dtype=np.uint8)).save(path)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrain") / "corpus"
    for split, count in (("train", 8), ("val", 2)):
        names = [f"{c}/{i}.png" for c in ("ant", "bee") for i in range(count)]
        draw(folder / split, names=names)
    return folder


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of one pretraining run; tests only read them."""
    return pretrain(corpus, tmp_path_factory.mktemp("trained"), licence="CC0", **TINY)


@pytest.fixture(scope="module")
def lasting_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that tests only read."""
    torch.manual_seed(0)
    network = timm.create_model("mobilenetv3_small_050", num_classes=5)
    weights = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_file(network.state_dict(), weights)
    card = {
        "architecture": "mobilenetv3_small_050",
        "num_classes": 5,
        "input_size": [3, 32, 32],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "interpolation": "bicubic",
        "crop_pct": 0.875,
        "pretrained_on": "nothing",
        "license": "CC0",
    }
    weights.with_suffix(".json").write_text(json.dumps(card))
    return weights


@pytest.fixture
def teacher(lasting_teacher: Path, tmp_path: Path) -> Path:
    """A teacher that a test may change."""
    shutil.copy(lasting_teacher.with_suffix(".json"), tmp_path)
    return Path(shutil.copy(lasting_teacher, tmp_path))


@pytest.fixture(scope="module")
def student(corpus: Path, lasting_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of one run with a teacher and without labels; tests only read them."""
    out = tmp_path_factory.mktemp("student")
    return pretrain(corpus, out, teacher=lasting_teacher, label_weight=0.0, **TINY)


def test_writes_weights_that_timm_loads(trained: Path) -> None:
    state = load_file(trained)
    assert trained.name == f"{ARCHITECTURE}.corpus.safetensors"
    assert {v.dtype for v in state.values() if v.is_floating_point()} == {torch.float16}
    network = timm.create_model(ARCHITECTURE, num_classes=2)
    network.load_state_dict(state, strict=True)


@pytest.mark.parametrize(
    "architecture",
    [
        "lenet5",
        "torchvision/googlenet",
        pytest.param("zfnet", marks=pytest.mark.slow),
    ],
)
def test_trains_networks_that_timm_has_not(corpus: Path, tmp_path: Path, architecture: str) -> None:
    sizes = {"input_size": 64, "low_size": 56}
    weights = pretrain(corpus, tmp_path, **{**TINY, **sizes, "architecture": architecture})
    assert weights.name == f"{architecture.replace('/', '-')}.corpus.safetensors"
    backbone = load_backbone(str(weights), "")
    features = backbone.features(torch.randn(2, 3, 64, 64), ["block1", "last"])
    assert all(part.isfinite().all() for part in features.values())


def test_a_classifier_that_is_a_convolution_is_rejected(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="squeezenet1_1 cannot be pretrained here"):
        pretrain(corpus, tmp_path, **{**TINY, "architecture": "torchvision/squeezenet1_1"})


@pytest.mark.parametrize(
    ("change", "taken"),
    [({"architecture": "torchvision/squeezenet1_1"}, 5), ({"num_classes": 0}, 0)],
)
def test_a_teacher_without_a_linear_classifier_is_rejected(
    corpus: Path, teacher: Path, tmp_path: Path, change: dict, taken: int
) -> None:
    card = json.loads(teacher.with_suffix(".json").read_text()) | change
    teacher.with_suffix(".json").write_text(json.dumps(card))
    save_file(create_module(card["architecture"], num_classes=taken).state_dict(), teacher)
    with pytest.raises(BackboneError, match=f"{card['architecture']}. cannot teach"):
        pretrain(corpus, tmp_path / "out", teacher=teacher, **TINY)


def test_labels_may_count_next_to_a_teacher(
    corpus: Path, lasting_teacher: Path, student: Path, tmp_path: Path
) -> None:
    told = pretrain(corpus, tmp_path, teacher=lasting_teacher, label_weight=0.5, **TINY)
    first = "conv_stem.weight"
    assert not torch.equal(load_file(student)[first], load_file(told)[first])
    assert json.loads(told.with_suffix(".json").read_text())["recipe"]["label_weight"] == 0.5


def test_labels_next_to_a_teacher_need_classes(teacher: Path, tmp_path: Path) -> None:
    draw(tmp_path / "loose", names=[f"{i}.png" for i in range(8)])
    with pytest.raises(DataError, match="0 class folders"):
        pretrain(tmp_path / "loose", tmp_path / "out", teacher=teacher, label_weight=1, **TINY)


def test_card_names_recipe_and_measurement(trained: Path) -> None:
    card = json.loads(trained.with_suffix(".json").read_text())
    assert card["input_size"] == [3, 40, 40]
    assert (card["license"], card["num_classes"]) == ("CC0", 2)
    assert set(card["measured"]) == {"val top-1"}
    assert card["recipe"]["epochs"] == 2
    assert card["recipe"]["images"] == 16
    assert "--input-size 40 --epochs 2" in card["recipe"]["command"]


def test_resumes_after_a_kill_to_the_same_weights(
    corpus: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load_file(trained)
    save = module.save_checkpoint

    def save_and_die(*args: object, **facts: object) -> None:
        save(*args, **facts)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "save_checkpoint", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        pretrain(corpus, tmp_path / "cut", **TINY)
    monkeypatch.undo()
    resumed = load_file(pretrain(corpus, tmp_path / "cut", **TINY))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_same_call_again_trains_nothing(
    corpus: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = trained.read_bytes()
    monkeypatch.setattr(module, "augment", None)
    assert pretrain(corpus, trained.parent, licence="CC0", **TINY).read_bytes() == first


def test_teacher_needs_no_labels(tmp_path: Path, teacher: Path) -> None:
    draw(tmp_path / "photos", names=[f"{i}.png" for i in range(16)])
    weights = pretrain(tmp_path / "photos", tmp_path / "out", teacher=teacher, **TINY)
    card = json.loads(weights.with_suffix(".json").read_text())
    assert card["num_classes"] == load_file(weights)["classifier.bias"].shape[0] == 5
    assert card["recipe"]["teacher"].startswith("teacher.safetensors sha256:")


def test_student_is_compared_with_teacher(student: Path) -> None:
    measured = json.loads(student.with_suffix(".json").read_text())["measured"]
    assert -1 <= measured["val cosine to the teacher's embedding"] <= 1
    assert 0 <= measured["val agreement with the teacher's top-1"] <= 1


def test_one_class_without_teacher_is_rejected(tmp_path: Path) -> None:
    draw(tmp_path / "corpus", names=["ant/0.png", "ant/1.png"])
    with pytest.raises(DataError, match=r"1 class folders; labels need at least 2[\s\S]*teacher"):
        pretrain(tmp_path / "corpus", tmp_path / "out", **TINY)


def test_folder_without_images_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no readable image below .*nothing"):
        pretrain(tmp_path / "nothing", tmp_path / "out", **TINY)


def test_unknown_architecture_is_named(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="unknown architecture 'mobilenet_v9'"):
        pretrain(corpus, tmp_path / "out", **{**TINY, "architecture": "mobilenet_v9"})


def test_teacher_without_card_is_rejected(corpus: Path, tmp_path: Path, teacher: Path) -> None:
    teacher.with_suffix(".json").unlink()
    with pytest.raises(BackboneError, match=r"teacher\.json is missing"):
        pretrain(corpus, tmp_path / "out", teacher=teacher, **TINY)


def test_unreadable_image_is_left_out_and_listed(tmp_path: Path) -> None:
    draw(tmp_path / "corpus", names=["ant/0.png", "bee/0.png"])
    (tmp_path / "corpus" / "bee" / "1.png").write_bytes(b"no image")
    corpus = read_corpus(tmp_path / "corpus", stored_size=32, work=tmp_path)
    listed = json.loads(next(tmp_path.glob("corpus-*.json")).read_text())["skipped"]
    assert len(corpus) == 2
    assert [name for name, _ in listed] == ["bee/1.png"]


def test_whole_crop_returns_the_image() -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    cut = crop(images, centre_boxes(2, crop_pct=1.0), size=32)
    torch.testing.assert_close(cut, images, atol=1e-5, rtol=0)
