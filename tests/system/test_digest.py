"""The digest names files on users' disks, so its values must not change."""

from pathlib import Path

import pytest

from rootstock.system.digest import digest_json


@pytest.mark.parametrize(
    ("value", "digits", "digest"),
    [
        (["onnx", 8, "é"], 20, "315500e69ae8a91caee7"),
        ({"b": 0.1, "a": [1, None, True]}, 12, "786c0af08c80"),
        ({"a": [1, None, True], "b": 0.1}, 12, "786c0af08c80"),
        ([("a.png", 7)], 16, "56b29ef5b5a538c6"),
        (Path("a"), 16, "ac8d8342bbb2362d"),
    ],
)
def test_values_keep_their_digests(value, digits, digest):
    assert digest_json(value, digits=digits) == digest
    assert digest_json(value).startswith(digest)
