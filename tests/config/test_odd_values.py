"""Parameters that are damaged, absurd, or malicious: accepted, or rejected with a hint."""

import pytest

from rootstock.config.load import load_config
from rootstock.errors import ConfigError
from tests.refusals import find_refusal

ODD_VALUES = {
    "infinity": ".inf",
    "minus infinity": "-.inf",
    "no number": ".nan",
    "beyond floats": "1" + "0" * 400,
    "beyond what Python prints": "1" + "0" * 5000,
    "hexadecimal beyond that": "0x" + "f" * 6000,
    "zero in a text": '"\\0"',
    "half a character": '"\\ud800"',
    "list": "[]",
    "section": "{}",
    "lists in lists": "[[[]]]",
    "null": "null",
    "date": "2020-01-01",
    "date that is none": "2020-13-45",
    "time that is none": "2001-99-99 25:61:61",
    "bytes": "!!binary x",
    "Python object": "!!python/object:os.system x",
    "set": "!!set {a}",
    "list that holds itself": "&a [*a]",
    "section that holds itself": "&a {b: *a}",
    "unknown alias": "*x",
    "key twice": "{a: 1, a: 2}",
    "list as key": "{[1]: 2}",
    "section as key": "{{a: 1}: 2}",
    "base 60": "1:2:3:4",
    "number by tag": "!!int x",
    "float by tag": "!!float x",
    "truth by tag": "!!bool x",
    "date by tag": "!!timestamp x",
    "nothing by tag": '!!int ""',
    "escape": '"\\x1b[31m"',
    "long text": "x" * 50_000,
    "deep lists": "[" * 300 + "]" * 300,
    "deep sections": "{a: " * 300 + "}" * 300,
    "open group": "(?P<x>",
    "repeated too often": '"a{1,99999999999}"',
    "groups in groups": '"' + "(" * 3000 + ")" * 3000 + '"',
    "merge key": "{<<: [1]}",
    "value by default": "=",
    "64 bits and one": "18446744073709551616",
}
ODD_KEYS = ["seed", "data.root", "data.group", "plan.shares", "train.l2_grid", "tracking.patience"]


@pytest.mark.parametrize("value", ODD_VALUES.values(), ids=ODD_VALUES)
def test_odd_value_is_accepted_or_rejected_with_hint(tmp_path, value):
    file = tmp_path / "params.yaml"
    for key in ODD_KEYS:
        section, _, last = key.rpartition(".")
        file.write_text(f"{section}: {{{last}: {value}}}\n" if section else f"{last}: {value}\n")
        for path, overrides in ((file, []), (None, [f"{key}={value}"])):
            refusal = find_refusal(lambda: load_config(path, overrides=overrides))  # noqa: B023
            assert refusal is None or (refusal.hint and len(str(refusal)) < 9_000)


ODD_FILES = {
    "every byte": bytes(range(256)),
    "UTF-16": "seed: 0".encode("utf-16"),
    "zero": b"seed: 0\0",
    "deep lists": b"[" * 100_000,
    "deep sections": b"a: {" * 50_000,
    "a billion values": b'a: &a ["x","x","x","x","x","x","x","x","x"]\n'
    + b"".join(
        b"%c: &%c [%s]\n" % (c + 1, c + 1, b",".join([b"*%c" % c] * 9)) for c in b"abcdefghi"
    ),
    "two documents": b"seed: 0\n---\nseed: 1\n",
    "number as key": b"1: 2",
    "null as key": b"~: 2",
    "long key": b"x" * 100_000 + b": 1",
    "large": b"a: " + b"x" * 2_000_000,
}


@pytest.mark.parametrize("content", ODD_FILES.values(), ids=ODD_FILES)
def test_odd_parameter_file_is_rejected_with_a_hint(tmp_path, content):
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "params.yaml")
    assert caught.value.hint
    assert len(str(caught.value)) < 9_000


def test_folder_in_place_of_parameter_file_is_rejected(tmp_path):
    with pytest.raises(ConfigError, match="cannot read .*: Is a directory"):
        load_config(tmp_path)


@pytest.mark.parametrize("key", ["tracking.patience", "search.cpus_per_trial"])
def test_infinity_is_not_a_number_of_anything(key):
    with pytest.raises(ConfigError, match=f"{key}: must be a number"):
        load_config(None, overrides=[f"{key}=.inf"])
