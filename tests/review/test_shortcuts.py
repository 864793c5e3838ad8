import numpy as np
import pytest

from rootstock.review.shortcuts import (
    Fact,
    border_facts,
    collect_facts,
    collect_picture_facts,
    find_shortcuts,
    measure_picture,
)
from tests.review.test_doubts import row


def rows_of(n=80, **by_class):
    """Return two classes whose files differ in ``by_class``."""
    return [
        row(f"{i}.jpg", "cat", **by_class) if i % 2 else row(f"{i}.jpg", "dog") for i in range(n)
    ]


@pytest.mark.parametrize(
    ("fact", "change"),
    [
        ("file format", {"format": "PNG"}),
        ("colour mode", {"mode": "L"}),
        ("size", {"width": 640, "height": 640}),
    ],
)
def test_fact_that_gives_class_away_is_named(fact, change):
    rows = rows_of(**change)
    found = {s.fact: s for s in find_shortcuts(collect_facts(rows), rows, seed=0)}
    assert found[fact].accuracy == 1.0
    assert found[fact].example.startswith('100% of "cat" have')


def test_files_alike_have_no_shortcut():
    rows = rows_of()
    assert find_shortcuts(collect_facts(rows), rows, seed=0) == []


def test_facts_that_vary_by_chance_are_no_shortcut():
    random = np.random.default_rng(0)
    rows = rows_of(200)
    facts = {"bytes": Fact(random.integers(1, 10**5, (200, 1)).astype(float))}
    assert find_shortcuts(facts, rows, seed=0) == []


def of_pictures(rows, pictures):
    measured = np.stack([measure_picture(picture) for picture in pictures])
    return find_shortcuts(collect_picture_facts(rows, measured), rows, seed=0)


def pictures_of(rows, *, border=None, inside=None):
    """Return random pictures with a different brightness of border or inside per class."""
    random = np.random.default_rng(0)
    for each in rows:
        picture = random.integers(0, 256, (48, 56, 3)).astype(np.uint8)
        if inside:
            picture[:] = (picture // 4 + inside[each.target]).astype(np.uint8)
        if border and each.target in border:
            for edge in (picture[:2], picture[-2:], picture[:, :2], picture[:, -2:]):
                edge[:] = border[each.target]
        yield picture


def test_border_of_one_of_two_classes_is_shortcut():
    rows = rows_of()
    (found,) = of_pictures(rows, pictures_of(rows, border={"cat": (10, 10, 10)}))
    assert (found.fact, found.accuracy, found.label) == ("colour of the border", 1.0, "")


def twelve_classes(each=20, **changes):
    """Return twelve classes of equal files, except for the first class."""
    return [
        row(f"{label}/{n}.jpg", f"class{label:02}", **(changes if label == 0 else {}))
        for label in range(12)
        for n in range(each)
    ]


def test_frame_around_one_class_is_a_shortcut():
    rows = twelve_classes()
    (found,) = of_pictures(rows, pictures_of(rows, border={"class00": (220, 20, 20)}))
    assert (found.fact, found.label) == ("colour of the border", "class00")
    assert found.accuracy > 0.98


def test_border_like_its_picture_is_not_a_shortcut():
    """The sky in photos of the weather, the texture of steel."""
    rows = rows_of()
    assert of_pictures(rows, pictures_of(rows, inside={"cat": 20, "dog": 180})) == []


def test_large_files_of_rich_pictures_are_not_shortcut():
    random = np.random.default_rng(0)
    plain = np.full((48, 48, 3), 120, np.uint8)
    rich = random.integers(0, 256, (48, 48, 3)).astype(np.uint8)
    rows = [
        each._replace(bytes=(9_000 if each.target == "cat" else 900) + int(random.integers(99)))
        for each in rows_of()
    ]
    assert of_pictures(rows, [rich if each.target == "cat" else plain for each in rows]) == []
    (found,) = of_pictures(rows, [rich for _ in rows])
    assert found.fact == "bytes per pixel"


def test_size_that_one_class_never_has_is_reported():
    rows = twelve_classes(width=300, height=260)
    (found,) = [s for s in find_shortcuts(collect_facts(rows), rows, seed=0) if s.fact == "size"]
    assert found.label == "class00"
    assert '"class00" have 300 x 260' in found.example
    varied = [
        each._replace(width=1024, height=1024)
        if each.target != "class00"
        else each._replace(width=400 + n, height=300 + n // 2)
        for n, each in enumerate(rows)
    ]
    shortcuts = find_shortcuts(collect_facts(varied), varied, seed=0)
    (found,) = [shortcut for shortcut in shortcuts if shortcut.fact == "size"]
    assert found.example == 'no image of "class00" is 1024 x 1024, but 100% of the others are'


def test_sizes_of_a_track_are_not_a_shortcut():
    """Frames of a track share a unique size: the tree memorizes it, but it means nothing."""
    random = np.random.default_rng(0)
    sides = random.integers(40, 200, 24).tolist()
    rows = [
        row(f"{track}_{n}.png", f"class{track % 4}", width=sides[track], height=sides[track] + 1)
        for track in range(24)
        for n in range(12)
    ]
    facts = collect_facts(rows)
    assert find_shortcuts(facts, rows, seed=0)
    tracks = [each.path.split("_")[0] for each in rows]
    assert find_shortcuts(facts, rows, seed=0, groups=tracks) == []


def test_border_is_the_edge_of_the_picture():
    image = np.zeros((100, 100, 3), np.uint8)
    image[4:-4, 4:-4] = 255
    assert border_facts(image).tolist() == [0.0] * 6


def test_a_set_of_few_images_is_not_judged():
    rows = rows_of(6, format="PNG")
    assert find_shortcuts(collect_facts(rows), rows, seed=0) == []
