import numpy as np
import pytest
from PIL import Image

from rootstock.plots.data import log_ticks, plot_class_counts, plot_image_sizes
from rootstock.plots.sheet import plot_contact_sheet, plot_mistakes
from rootstock.plots.style import canvas, fit
from rootstock.plots.training import plot_depth, plot_head_search, plot_training_curves
from rootstock.tasks.single_label.plots import plot_confusion, plot_reliability
from tests.data.folders import write_classes

RANDOM = np.random.default_rng(0)


def names(count):
    return [f"class {n} with a rather long name" for n in range(count)]


def confusion(count):
    return RANDOM.integers(0, 5, (count, count)) + 20 * np.eye(count, dtype=int)


PLOTS = {
    **{
        f"counts of {n}": lambda path, n=n: plot_class_counts(
            {name: {"train": 10, "val": 2, "test": 0} for name in names(n)}, path
        )
        for n in (2, 200)
    },
    "sizes": lambda path: plot_image_sizes([10, 4000, 50], [10, 3000, 60], path),
    "one size": lambda path: plot_image_sizes([32] * 9, [32] * 9, path),
    **{
        f"confusion of {n}": lambda path, n=n: plot_confusion(confusion(n), names(n), path)
        for n in (2, 10, 200)
    },
    "confusion without images": lambda path: plot_confusion(np.zeros((3, 3), int), names(3), path),
    "unicode": lambda path: plot_confusion(np.eye(2, dtype=int), ["żółw $x$", "蜜蜂"], path),
    "reliability": lambda path: plot_reliability(np.array([0.5, 1.0]), np.array([True, False]),
                                                 path, ece=0.3),
    "curves": lambda path: plot_training_curves(
        {"a": [0.5, 0.4, float("nan")], "b": [0.6]}, path, metric="val_log_loss", best="a"
    ),
    "head search": lambda path: plot_head_search(
        {"last": {0.1: 0.5, 1.0: 0.6}}, path, metric="val_accuracy", best=("last", 1.0)
    ),
    "depth": lambda path: plot_depth(
        path, divergence=[(0.0, 0.1), (1.0, 0.2)], probes={"last": (0.9, 0.01)}, chosen="last"
    ),
    "a depth that is always right": lambda path: plot_depth(
        path, divergence=[], probes={"block1": (1.0, 0.05), "last": (1 + 1e-9, 0.0)}
    ),
    "nothing measured": lambda path: plot_depth(path, divergence=[], probes={}),
}  # fmt: skip


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_is_a_picture_of_sane_size(tmp_path, name):
    PLOTS[name](tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as image:
        assert image.format == "PNG"
        assert 200 < min(image.size) <= max(image.size) < 4000


def test_the_same_data_give_the_same_bytes(tmp_path):
    for name in ("one.png", "two.png"):
        PLOTS["sizes"](tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_sheets_show_images_from_disk(tmp_path):
    root = write_classes(tmp_path / "data", {"ants": 3, "bees": 2})
    samples = {"ants": ["ants/0.png", "ants/1.png"], "bees": ["bees/0.png"]}
    plot_contact_sheet(samples, tmp_path / "sheet.png", root=root, quarantined=1)
    mistakes = [("ants/0.png", "ants", "bees", 0.9)]
    plot_mistakes(mistakes, tmp_path / "mistakes.png", root=root, n_test=5, n_wrong=1)
    plot_mistakes([], tmp_path / "none.png", root=root, n_test=5, n_wrong=0)
    assert len(list(tmp_path.glob("*.png"))) == 3


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (8, 5000, [10, 20, 50, 100, 200, 500, 1000, 2000, 5000]),
        (30.9, 33.1, [31, 32, 33]),
        (26, 40, [30, 35, 40]),
        (476, 734, [500, 600, 700]),
    ],
)
def test_no_tick_of_a_log_axis_repeats(low, high, ticks):
    assert log_ticks(low, high) == ticks


def test_caption_is_cut_to_width_of_its_image(tmp_path):
    with canvas(tmp_path / "a.png", width=2, height=2) as figure:
        axes = figure.add_subplot()
        cut = fit("→ a class with a very long name 93%", axes, points=7, pixels=128)
        assert fit("→ short 93%", axes, points=7, pixels=128) == "→ short 93%"
    assert cut.startswith("→ a cl")
    assert cut.endswith("93%")
    assert len(cut) < 30
