"""What a person may write as a target, for each task."""

import pytest

from rootstock.errors import DataError
from rootstock.tasks import get_task

GOOD = [
    ("single_label", "ant", " bee ", "bee"),
    ("multi_label", "[]", '["bee", "ant", "ant"]', '["ant", "bee"]'),
    ("multi_label", '["ant"]', "[]", "[]"),
    ("regression", "3", " 4.5", "4.5"),
    ("regression", '{"w": 1, "h": 2}', '{"w": 2, "h": 2.5}', '{"w": 2, "h": 2.5}'),
    ("regression", "", '{"w": 2}', '{"w": 2}'),
    (
        "localisation",
        '["ant", 0, 0, 1, 1]',
        '["bee", -0.1, 0.25, 0.5, 1]',
        '["bee", 0.0, 0.25, 0.5, 1.0]',
    ),
]
WRONG = [
    ("single_label", "ant", " "),
    ("multi_label", "[]", "ant"),
    ("multi_label", "[]", '["ant", 3]'),
    ("multi_label", "[]", '{"ant": 1}'),
    ("regression", "3", "many"),
    ("regression", "3", "nan"),
    ("regression", "3", '{"w": 2}'),
    ("regression", '{"w": 1, "h": 2}', "4"),
    ("regression", '{"w": 1}', "{"),
    ("regression", "", "{}"),
    ("localisation", "", "ant"),
    ("localisation", "", '["ant", 0.5, 0, 0.5, 1]'),
    ("localisation", "", '["ant", 0, 0, 1]'),
    ("localisation", "", '["", 0, 0, 1, 1]'),
    ("localisation", "", "[" * 100_000),
]


@pytest.mark.parametrize(("name", "old", "new", "expected"), GOOD)
def test_target_is_kept_as_index_writes_it(name, old, new, expected):
    assert get_task(name).correct(old, new) == expected


@pytest.mark.parametrize(("name", "old", "new"), WRONG)
def test_what_is_not_a_target_is_rejected(name, old, new):
    with pytest.raises(DataError):
        get_task(name).correct(old, new)
