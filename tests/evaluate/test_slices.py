"""Groups of test images on which a model is worse."""

import numpy as np
import pytest

from rootstock.evaluate.slices import describe_slices, find_worse_slices


def facts(**columns):
    rows = zip(*columns.values(), strict=True)
    return [dict(zip(columns, map(str, row), strict=True)) for row in rows]


def test_only_slices_with_more_errors_are_found():
    random = np.random.default_rng(0)
    sites = random.integers(0, 4, 400)
    errors = (random.random(400) < np.where(sites == 2, 0.4, 0.1)).astype(float)
    search = find_worse_slices(errors, facts(site=sites, noise=random.integers(0, 3, 400)))
    assert [(one.column, one.value) for one in search.worse] == [("site", "2")]
    assert search.n_slices == 7
    assert search.worse[0].error > search.worse[0].others
    assert "| site | 2 |" in "\n".join(describe_slices(search))


def test_chance_is_rarely_taken_for_a_slice():
    random = np.random.default_rng(1)
    found = 0
    for _ in range(10):
        columns = {f"c{k}": random.integers(0, 5, 150) for k in range(4)}
        search = find_worse_slices((random.random(150) < 0.2).astype(float), facts(**columns))
        found += bool(search.worse)
    assert found <= 2
    assert "None of" in "\n".join(describe_slices(search))


def test_numbers_are_cut_into_quarters():
    ages = np.arange(200) / 2
    errors = (ages >= 75).astype(float)
    [worse] = find_worse_slices(errors, facts(age=ages)).worse
    assert worse.value == "75 to 99.5"


def test_images_of_one_group_count_once():
    """One bad patient does not make a bad site, however many images it has."""
    groups = np.arange(200) // 25
    errors = (groups == 0).astype(float)
    sites = facts(site=np.where(groups < 2, "north", "south"))
    assert find_worse_slices(errors, sites).worse
    assert not find_worse_slices(errors, sites, groups).worse


@pytest.mark.parametrize("cells", [["a"] * 19 + ["b"] * 100, ["x"] * 119])
def test_few_images_are_no_slice(cells):
    search = find_worse_slices(np.ones(119), facts(site=cells))
    assert search.n_slices == 0
    assert describe_slices(search) == []
