"""A class from a few images: recognized, the others measured, the old model unchanged."""

import json
from hashlib import sha256

import numpy as np
import pytest
from PIL import Image

from rootstock.cli.main import main
from rootstock.errors import BundleError, DataError
from rootstock.explain.enroll import NewImage, enroll_class
from rootstock.model.known_images import KnownImage, KnownImages
from rootstock.model.novelty import Reference
from rootstock.model.predictor import Predictor
from rootstock.tasks.single_label.learning import SoftmaxSolver
from rootstock.tasks.targets import Targets
from rootstock.training.network import TransferNet
from tests.bundles import SIZE, tiny_backbone, tiny_bundle, write_tiny_bundle

COLOURS = {"blue": (40, 60, 200), "red": (200, 50, 40), "green": (40, 180, 60)}
OLD = ["blue", "red"]


def picture(colour, seed):
    """Return a noisy PNG of one colour."""
    import io

    random = np.random.default_rng(seed)
    noise = random.normal(0, 25, (SIZE, SIZE, 3))
    pixels = np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model that separates blue from red and lists its forty training images."""
    plain = Predictor(tiny_bundle())
    contents = [picture(OLD[seed % 2], seed) for seed in range(40)]
    features = plain.infer([plain.prepare(one) for one in contents]).features
    labels = np.arange(40) % 2
    targets = Targets(labels, tuple(OLD), labels)
    head = SoftmaxSolver("none").fit(features, targets, l2=0.03)
    network = TransferNet.build(tiny_backbone(), tap="last", head=head)
    images = [KnownImage(f"{seed}.png", OLD[seed % 2], "") for seed in range(40)]
    return write_tiny_bundle(
        tmp_path_factory.mktemp("enroll") / "model",
        network=network,
        names=OLD,
        golden=[("a.png", contents[0], "blue")],
        reference=Reference.measure(features, features, {}),
        known=KnownImages(images, np.linalg.norm(features, axis=1)),
    ).directory


def make_images(predictor, colour, count):
    contents = [picture(colour, 100 + seed) for seed in range(count)]
    features = predictor.infer([predictor.prepare(one) for one in contents]).features
    return [
        NewImage(f"{n}.png", content, sha256(content).hexdigest(), row)
        for n, (content, row) in enumerate(zip(contents, features, strict=True))
    ]


@pytest.mark.parametrize("count", [1, 3, 10])
def test_new_class_is_recognised_and_the_others_stay(model, tmp_path, count):
    predictor = Predictor(model)
    digest = predictor.bundle.digest
    enrolled = enroll_class(
        predictor, "green", make_images(predictor, "green", count), tmp_path / "new"
    )
    new = Predictor(tmp_path / "new")
    assert new.names == [*OLD, "green"]
    answers = new.predict([picture(colour, 500) for colour in COLOURS])
    assert [answer.label for answer in answers] == list(COLOURS)
    assert enrolled.before == 1.0
    assert enrolled.after >= 0.95
    assert (enrolled.recall is None) is (count == 1)
    if count == 10:
        assert enrolled.recall >= 0.9
    assert Predictor(model).bundle.digest == digest
    assert len(new.bundle.known_images.images) == 40 + count


def test_class_that_is_there_is_rejected(model, tmp_path):
    predictor = Predictor(model)
    with pytest.raises(DataError, match="already has the class 'red'"):
        enroll_class(predictor, "red", make_images(predictor, "red", 1), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_model_without_named_images_is_rejected(tmp_path):
    predictor = Predictor(tiny_bundle())
    with pytest.raises(BundleError, match="does not store the names of its training images"):
        enroll_class(predictor, "green", make_images(predictor, "green", 1), tmp_path / "new")


def test_command_says_what_class_does_to_others(model, tmp_path, capsys):
    (tmp_path / "green").mkdir()
    for seed in range(4):
        (tmp_path / f"green/{seed}.png").write_bytes(picture("green", seed))
    (tmp_path / "green/bad.png").write_bytes(b"nothing")
    options = [str(tmp_path / "green"), "--model", str(model), "--out", str(tmp_path / "new")]
    main(["enroll", "green", *options, "--json"])
    output = capsys.readouterr()
    facts = json.loads(output.out)
    assert facts["images"] == 4
    assert facts["accuracy_after"] >= 0.95
    assert "bad.png" in output.err
