"""Mask files: which are read, which are rejected, and their rows in the manifest."""

import csv
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from rootstock.config.load import load_config
from rootstock.config.paths import Paths
from rootstock.errors import ConfigError, DataError
from rootstock.heads.linear import LinearHead, MapHead, read_head, to_tune, write_head
from rootstock.tasks import get_task
from rootstock.tasks.segmentation.grids import GRID, classes_of_size
from rootstock.tasks.segmentation.learning import PointLoss
from rootstock.tasks.segmentation.masks import (
    IGNORED,
    POINTS,
    list_present,
    read_grid,
    read_names,
    write_text,
)
from rootstock.tasks.segmentation.measures import Counts, losses, mean_overlap
from rootstock.workflow.index import index_images
from rootstock.workflow.listed import digest_listed

SIDES = (48, 32)
N_IMAGES = 24


def halves(left=0, right=1, dtype=np.uint8):
    """Return classes [32,48]: one on the left, one on the right."""
    classes = np.full(SIDES[::-1], left, dtype)
    classes[:, SIDES[0] // 2 :] = right
    return classes


@pytest.fixture
def folder(tmp_path):
    """Twenty-four noisy pictures in `images/`, and masks of two halves."""
    root = tmp_path / "data"
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for number in range(N_IMAGES):
        pixels = np.random.default_rng(number).integers(0, 255, (*SIDES[::-1], 3), np.uint8)
        Image.fromarray(pixels).save(root / f"images/{number}.png")
        Image.fromarray(halves()).save(root / f"masks/{number}.png")
    return root


def index(data, out, *more):
    settings = [f"data.root={data}", "data.duplicates='off'", "data.workers=1", *more]
    return index_images(load_config(None, overrides=settings), Paths(out))


def replace(folder, number, classes, **options):
    Image.fromarray(classes, **options).save(folder / f"masks/{number}.png")


def test_every_mask_is_kept_as_grid_of_classes(folder, tmp_path):
    manifest = index(folder, tmp_path)
    assert manifest.task == "segmentation"
    for row in manifest.rows():
        assert read_names(row.target) == ("0", "1")
        grid = read_grid(row.target)
        assert (grid[:, : POINTS // 2] == 0).all()
        assert (grid[:, POINTS // 2 :] == 1).all()
    assert len(manifest.strata) == 2 or manifest.strata == ["little 0"]


def test_black_and_white_masks_are_background_and_foreground(folder, tmp_path):
    for number in range(N_IMAGES):
        replace(folder, number, halves(0, 255))
    assert read_names(index(folder, tmp_path).rows()[0].target) == ("background", "foreground")
    (folder / "classes.txt").write_text("skin\nlesion")
    assert list_present(index(folder, tmp_path).rows()[0].target) == ["skin", "lesion"]


def test_bilevel_and_palette_and_deep_masks_hold_indexes(folder, tmp_path):
    replace(folder, 0, halves(0, 1).astype(bool))
    (folder / "classes.txt").write_text("sky\nroad\n")
    image = Image.fromarray(halves(), mode="P")
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.save(folder / "masks/1.png")
    replace(folder, 2, halves(0, 1, np.uint16))
    deep = halves(0, 1, np.uint16)
    deep[:8] = 65_535
    replace(folder, 3, deep)
    grids = {row.path: read_grid(row.target) for row in index(folder, tmp_path).rows()}
    for number in range(3):
        np.testing.assert_array_equal(grids[f"images/{number}.png"], grids["images/9.png"])
    assert (grids["images/3.png"][: POINTS // 4] == IGNORED).all()
    assert set(np.unique(grids["images/3.png"])) == {0, 1, IGNORED}


def test_what_is_ignored_does_not_count(folder, tmp_path):
    (folder / "classes.txt").write_text("sky\nroad\nUnlabelled\n")
    replace(folder, 0, halves(0, 2))
    replace(folder, 1, halves(1, 255))
    replace(folder, 2, halves(255, 255))
    manifest = index(folder, tmp_path)
    by_path = {row.path: row for row in manifest.rows()}
    assert read_names(by_path["images/0.png"].target) == ("sky", "road")
    assert list_present(by_path["images/0.png"].target) == ["sky"]
    assert list_present(by_path["images/1.png"].target) == ["road"]
    assert (read_grid(by_path["images/2.png"].target) == IGNORED).all()
    assert any("1 mask to be ignored everywhere" in text for text in manifest.warnings)


def test_a_class_that_no_mask_shows_is_named(folder, tmp_path):
    (folder / "classes.txt").write_text("sky\nroad\nboat\n")
    manifest = index(folder, tmp_path)
    assert any("no mask shows the classes boat" in text for text in manifest.warnings)
    assert read_names(manifest.rows()[0].target) == ("sky", "road", "boat")


def test_an_index_without_a_class_is_rejected(folder, tmp_path):
    (folder / "classes.txt").write_text("sky\nroad\n")
    replace(folder, 5, halves(0, 7))
    with pytest.raises(DataError, match=r"masks/5\.png has a pixel of index 7.*names 2 classes"):
        index(folder, tmp_path)


def test_masks_of_one_class_are_rejected(folder, tmp_path):
    for number in range(N_IMAGES):
        replace(folder, number, halves(0, 0))
    with pytest.raises(DataError, match="only the class '0'"):
        index(folder, tmp_path)


def test_a_mask_in_other_proportions_is_rejected(folder, tmp_path):
    Image.fromarray(halves()).resize((48, 48)).save(folder / "masks/3.png")
    with pytest.raises(DataError, match=r"masks/3\.png is 48 x 48 pixels.*is 48 x 32"):
        index(folder, tmp_path)


def test_mask_of_another_size_is_resized_with_warning(folder, tmp_path):
    Image.fromarray(halves()).resize((480, 320), 0).save(folder / "masks/3.png")
    manifest = index(folder, tmp_path)
    assert any("1 mask of another size than the image" in text for text in manifest.warnings)
    grids = {row.path: read_grid(row.target).tolist() for row in manifest.rows()}
    assert grids["images/3.png"] == grids["images/4.png"]


def test_mask_of_unrotated_photo_is_rejected(folder, tmp_path):
    """EXIF data make the photo upright; the mask's pixels must be upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(folder / "images/2.png")
    image.save(folder / "images/2.png", exif=exif)
    with pytest.raises(DataError, match="after turning by its EXIF data"):
        index(folder, tmp_path)
    Image.fromarray(np.rot90(halves(), 3)).save(folder / "masks/2.png")
    manifest = index(folder, tmp_path)
    grid = next(read_grid(row.target) for row in manifest.rows() if row.path == "images/2.png")
    assert (grid[0] == 0).all()
    assert (grid[-1] == 1).all()


def test_images_and_masks_without_partner_are_left_out(folder, tmp_path):
    (folder / "masks/3.png").unlink()
    shutil.copy(folder / "masks/4.png", folder / "masks/lone.png")
    manifest = index(folder, tmp_path)
    assert len(manifest.rows()) == N_IMAGES - 1
    assert any("1 image without a mask ignored, the first is images/3.png" in w
               for w in manifest.warnings)  # fmt: skip
    assert any("1 mask without an image ignored" in text for text in manifest.warnings)


def test_jpeg_masks_are_rejected(folder, tmp_path):
    Image.fromarray(halves()).save(folder / "masks/3.jpg")
    (folder / "masks/3.png").unlink()
    with pytest.raises(DataError, match=r"in a format that changes pixels.*masks/3\.jpg"):
        index(folder, tmp_path)
    (folder / "masks/3.jpg").rename(folder / "masks/3.png")
    with pytest.raises(DataError, match=r"masks/3\.png is not an image in a lossless format"):
        index(folder, tmp_path)


def coloured():
    colours = np.array([[128, 64, 128], [70, 70, 70]], np.uint8)
    return colours[halves()]


def test_colours_are_read_by_classes_csv(folder, tmp_path):
    for number in range(N_IMAGES):
        replace(folder, number, coloured())
    with pytest.raises(DataError, match="has colours, but no file defines their classes"):
        index(folder, tmp_path)
    (folder / "classes.csv").write_text("name,colour\nroad,#804080\n wall,464646\n")
    assert list_present(index(folder, tmp_path).rows()[0].target) == ["road", "wall"]
    replace(folder, 7, coloured() + np.uint8(1))
    with pytest.raises(DataError, match=r"masks/7\.png has the colour #474747"):
        index(folder, tmp_path)


def test_a_damaged_mask_is_named(folder, tmp_path):
    content = (folder / "masks/6.png").read_bytes()
    (folder / "masks/6.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"masks/6\.png cannot be decoded"):
        index(folder, tmp_path)


def test_a_table_names_masks_and_splits(folder, tmp_path):
    lines = [["path", "mask", "split", "city"]]
    for number in range(N_IMAGES):
        split = ("train", "val", "test")[number % 3]
        lines.append([f"images/{number}.png", f"masks\\{number}.png", split, "A"])
    with (folder / "masks.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    manifest = index(folder / "masks.csv", tmp_path)
    assert manifest.recognised == "the column mask"
    assert manifest.rows("test")[0].facts == {"city": "A"}
    lines[1][1] = "../masks/0.png"
    with (folder / "masks.csv").open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    with pytest.raises(DataError, match="outside the folder of the data set"):
        index(folder / "masks.csv", tmp_path)


def test_a_table_of_labels_may_describe_masks(folder, tmp_path):
    lines = ["path,label,mask"]
    lines += [f"images/{n}.png,{'ab'[n % 2]},masks/{n}.png" for n in range(N_IMAGES)]
    (folder / "labels.csv").write_text("\n".join(lines))
    assert index(folder / "labels.csv", tmp_path).task == "single_label"


def test_a_changed_mask_changes_what_dvc_depends_on(folder, tmp_path):
    lines = ["path,mask", *(f"images/{n}.png,masks/{n}.png" for n in range(N_IMAGES))]
    (folder / "masks.csv").write_text("\n".join(lines))
    config = load_config(None, overrides=[f"data.root={folder / 'masks.csv'}"])
    before = digest_listed(config, Paths(tmp_path))
    assert digest_listed(config, Paths(tmp_path)) == before
    replace(folder, 3, halves(1, 0))
    after = digest_listed(config, Paths(tmp_path))
    assert after != before
    (folder / "classes.txt").write_text("sky\nroad")
    assert digest_listed(config, Paths(tmp_path)) != after


@pytest.mark.parametrize("setting", ["train.mlp_hidden=64", "train.views=flip", "train.mixup=0.2"])
def test_settings_without_a_meaning_are_rejected(folder, tmp_path, setting):
    with pytest.raises(ConfigError, match="but the task `segmentation` does not support it"):
        index(folder, tmp_path, setting)


def test_unsure_images_are_suggested_first():
    decisions = np.log(np.full((2, 2, GRID, GRID), 0.5, np.float16))
    decisions[0, 0], decisions[0, 1] = np.log(0.99), np.log(0.01)
    sure, unsure = get_task("segmentation").uncertainty(decisions)
    assert sure == pytest.approx(0.01, abs=0.002)
    assert unsure == pytest.approx(0.5, abs=0.002)


def test_a_mask_is_not_corrected_by_a_word(folder, tmp_path):
    row = index(folder, tmp_path).rows()[0]
    with pytest.raises(DataError, match="edit the mask file"):
        get_task("segmentation").correct(row.target, "road")


def test_split_folders_may_be_inside_or_outside(folder, tmp_path):
    for number in range(N_IMAGES):
        split = ("train", "val", "test")[number % 3]
        for name in ("images", "masks"):
            target = tmp_path / "outer" / split / name / f"{number}.png"
            inner = tmp_path / "inner" / name / split / f"{number}.png"
            for path in (target, inner):
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(folder / name / f"{number}.png", path)
    for name in ("outer", "inner"):
        manifest = index(tmp_path / name, tmp_path / "out")
        assert manifest.given_splits == ("test", "train", "val")
        assert len(manifest.rows("val")) == N_IMAGES // 3


def test_other_models_are_measured_by_names_they_know():
    grid = np.zeros((POINTS, POINTS), np.uint8)
    grid[0], grid[1] = 1, IGNORED
    text = write_text(grid, ["road", "sky"])
    parsed = get_task("segmentation").parse([text], ["sky", "road", "tree"])[0]
    assert [parsed[0, 0], parsed[1, 0], parsed[2, 0]] == [0, IGNORED, 1]
    with pytest.raises(DataError, match="the class 'road'"):
        get_task("segmentation").parse([text], ["sky", "tree"])


def random_head(hidden=0):
    random = np.random.default_rng(0)
    shapes = ((3, GRID), (5, GRID // 2), (2, 7))
    linear = LinearHead(
        random.normal(size=(4, 10)).astype(np.float32), random.normal(size=4).astype(np.float32)
    )
    width = sum(channels * side**2 for channels, side in shapes)
    return MapHead(linear, shapes, GRID, hidden), random.normal(size=(3, width)).astype(np.float32)


def test_map_head_is_equal_in_numpy_and_torch(tmp_path):
    head, features = random_head()
    expected = head.outputs(features)
    with torch.inference_mode():
        np.testing.assert_allclose(head.module()(torch.from_numpy(features)), expected, atol=1e-4)
        tuned = to_tune(head).module()(torch.from_numpy(features))
    np.testing.assert_allclose(tuned, expected, atol=1e-4)  # the decoder begins at zero
    write_head(to_tune(head), tmp_path / "head.safetensors")
    again = read_head(tmp_path / "head.safetensors")
    assert (again.shapes, again.grid, again.hidden) == (head.shapes, GRID, to_tune(head).hidden)
    np.testing.assert_array_equal(again.outputs(features), expected)


def test_a_head_of_maps_interpolates_like_torch():
    head, features = random_head()
    maps = torch.from_numpy(features[:, -2 * 49 :]).view(3, 2, 7, 7)
    weights = torch.from_numpy(head.linear.weights[:, -2:])
    larger = torch.nn.functional.interpolate(maps, size=(GRID, GRID), mode="bilinear")
    expected = torch.einsum("kc,nchw->nkhw", weights, larger).flatten(1)
    blank = MapHead(
        LinearHead(head.linear.weights[:, -2:], np.zeros(4, np.float32)), ((2, 7),), GRID
    )
    np.testing.assert_allclose(blank.outputs(features[:, -98:]), expected, atol=1e-4)


def test_masks_move_with_their_images():
    loss = PointLoss(2, 0.0, torch.device("cpu"))
    mask = np.zeros((1, POINTS, POINTS), np.uint8)
    mask[0, :, : POINTS // 4] = 1
    encoded = loss.encode(mask)
    mirror = torch.tensor([[[-1.0, 0, 0], [0, 1, 0]]])
    np.testing.assert_array_equal(loss.move(encoded, mirror)[0], mask[0, :, ::-1])
    crop = torch.tensor([[[0.5, 0, -0.5], [0, 1, 0]]])  # the left half, enlarged
    assert loss.move(encoded, crop)[0].float().mean() == pytest.approx(0.5)


def test_losses_leave_out_what_is_ignored():
    random = np.random.default_rng(0)
    outputs = random.normal(size=(2, 3 * GRID**2)).astype(np.float32)
    masks = random.integers(0, 3, (2, POINTS, POINTS)).astype(np.uint8)
    masks[0, : POINTS // 2] = IGNORED
    loss = PointLoss(3, 0.0, torch.device("cpu"))
    total = loss.total(torch.from_numpy(outputs), loss.encode(masks)).item()
    assert losses(outputs, masks).sum() == pytest.approx(total, rel=1e-4)
    masks[0] = IGNORED
    assert losses(outputs, masks)[0] == 0


def test_overlap_is_of_all_images_together():
    decisions = np.zeros((2, 3, GRID, GRID), np.float16)
    decisions[:, 0] = 1  # everything is class 0
    masks = np.zeros((2, POINTS, POINTS), np.uint8)
    masks[1, POINTS // 2 :] = 1
    counts = Counts.of(decisions, masks)
    overlaps = counts.overlaps()[0]
    assert overlaps[0] == pytest.approx(0.75)
    assert overlaps[1] == 0
    assert np.isnan(overlaps[2])  # neither true nor answered
    assert mean_overlap(overlaps[None])[0] == pytest.approx(0.375)


def test_classes_of_an_image_follow_its_proportions():
    grid = np.zeros((2, GRID, GRID), np.float16)
    grid[0, :, : GRID // 2] = grid[1, :, GRID // 2 :] = 1
    for size in ((90, 30), (3000, 1000), (1, 1)):
        classes = classes_of_size(grid, size)
        assert classes.shape == size[::-1]
        if size[0] > 1:
            border = size[0] // 2
            assert (classes[:, : border - 8] == 0).all()
            assert (classes[:, border + 8 :] == 1).all()
