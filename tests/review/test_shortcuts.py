import numpy as np
import pytest

from rootstock.review.shortcuts import border_facts, collect_facts, find_shortcuts
from tests.review.test_doubts import row


def rows_of(n=80, **by_class):
    """Two classes, whose files differ in what ``by_class`` says."""
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
def test_a_fact_that_gives_the_class_away_is_named(fact, change):
    rows = rows_of(**change)
    found = {s.fact: s for s in find_shortcuts(collect_facts(rows), rows, seed=0)}
    assert found[fact].accuracy == 1.0
    assert found[fact].example.startswith("100% of `dog`")


def test_files_alike_have_no_shortcut():
    rows = rows_of()
    assert find_shortcuts(collect_facts(rows), rows, seed=0) == []


def test_facts_that_vary_by_chance_are_no_shortcut():
    random = np.random.default_rng(0)
    rows = [row(f"{i}.jpg", "cat" if i % 2 else "dog", bytes=int(random.integers(1, 10**5)))
            for i in range(200)]  # fmt: skip
    assert find_shortcuts(collect_facts(rows), rows, seed=0) == []


def test_the_border_of_one_class_is_a_shortcut():
    rows = rows_of()
    pixels = [np.full((32, 40, 3), 10 if row.target == "cat" else 200, np.uint8) for row in rows]
    borders = np.stack([border_facts(image) for image in pixels])
    (found,) = find_shortcuts({"border": borders}, rows, seed=0)
    assert found.accuracy == 1.0


def test_a_border_is_what_lies_around_the_picture():
    image = np.zeros((100, 100, 3), np.uint8)
    image[4:-4, 4:-4] = 255
    assert border_facts(image).tolist() == [0.0] * 6


def test_a_set_of_few_images_is_not_judged():
    rows = rows_of(6, format="PNG")
    assert find_shortcuts(collect_facts(rows), rows, seed=0) == []
