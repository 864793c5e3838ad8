import ast

import pytest

from benchmarks.mutation import list_changes, mutate

CODE = '''
LIMIT = 3

def choose(values, limit=5):
    """Return what is asked for."""
    if not values and limit > 2:
        raise ValueError(f"nothing, {1 + 1}")
    values.sort(reverse=True)
    return round(values[0] + 1.5, 3)
'''


def changed_lines(number):
    before, after = ast.unparse(ast.parse(CODE)).splitlines(), mutate(CODE, number).splitlines()
    return [(a.strip(), b.strip()) for a, b in zip(before, after, strict=True) if a != b]


@pytest.mark.parametrize(
    ("what", "line", "becomes"),
    [
        ("And -> Or", "if not values and limit > 2:", "if not values or limit > 2:"),
        ("Gt -> GtE", "if not values and limit > 2:", "if not values and limit >= 2:"),
        ("2 -> 3", "if not values and limit > 2:", "if not values and limit > 3:"),
        ("sign or `not` removed", "if not values and limit > 2:", "if values and limit > 2:"),
        ("condition negated", "if not values and limit > 2:", "if not (not values and limit > 2):"),
        ("statement removed", "raise ValueError(f'nothing, {1 + 1}')", "pass"),
        ("without reverse=", "values.sort(reverse=True)", "values.sort()"),
        ("True -> False", "values.sort(reverse=True)", "values.sort(reverse=False)"),
        ("Add -> Sub", "return round(values[0] + 1.5, 3)", "return round(values[0] - 1.5, 3)"),
        ("1.5 -> 3.0", "return round(values[0] + 1.5, 3)", "return round(values[0] + 3.0, 3)"),
        ("returns None", "return round(values[0] + 1.5, 3)", "return None"),
    ],
)
def test_a_change_changes_one_place(what, line, becomes):
    names = [change.what for change in list_changes(ast.parse(CODE))]
    assert changed_lines(names.index(what)) == [(line, becomes)]


def test_declarations_words_and_roundings_are_left_only():
    changes = list(list_changes(ast.parse(CODE)))
    for number in range(len(changes)):
        text = mutate(CODE, number)
        assert "LIMIT = 3" in text
        assert "limit=5" in text
        assert "Return what is asked for." in text
        assert ", 3)" in text or "return None" in text
        assert "{1 + 1}" in text or "pass" in text
    assert len(changes) == 13
    assert all(4 <= change.lines.start <= 9 for change in changes)
