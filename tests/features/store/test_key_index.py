import numpy as np
import pytest

from rootstock.features.store import key_index as module
from rootstock.features.store.key_index import KEY, KeyIndex

MANY = 5_000


def names(*texts) -> KeyIndex:
    return KeyIndex.of(np.array([text.encode().ljust(32, b".") for text in texts], KEY))


def digests(n, seed=0) -> np.ndarray:
    return np.frombuffer(np.random.default_rng(seed).bytes(32 * n), KEY)


def crowded(n) -> np.ndarray:
    """Return keys at both ends and few places between, unlike digests."""
    raw = digests(n).view(np.uint8).reshape(-1, 32).copy()
    raw[: n // 2, :6], raw[n // 2 : -9, :7], raw[:9, :8] = 7, 255, 0
    return raw.view(KEY)[:, 0]


def alike(n) -> np.ndarray:
    """Return keys that all start with the same 8 bytes."""
    raw = digests(n).view(np.uint8).reshape(-1, 32).copy()
    raw[:, :8] = 3
    return raw.view(KEY)[:, 0]


def test_keys_with_equal_beginnings_are_distinguished():
    many = names("12345678a", "12345678b", "12345678c", "2")
    for wanted in (names("12345678c"), names("1", "12345678b", "12345678x", "2", "3", "4")):
        for one, other in ((wanted, many), (many, wanted)):
            here, there = one.match(other)
            shared = set(one.keys.tolist()) & set(other.keys.tolist())
            assert set(one.keys[here].tolist()) == shared
            assert (one.keys[here] == other.keys[there]).all()


def test_no_keys_match_none():
    none = KeyIndex.of(np.empty(0, KEY))
    assert [len(part) for part in none.match(names("1"))] == [0, 0]


@pytest.mark.parametrize("keys", [digests(MANY), crowded(MANY), alike(MANY)])
def test_table_and_bisection_find_the_same_keys(keys, monkeypatch):
    stored = KeyIndex.of(np.sort(keys))
    order = np.random.default_rng(3).permutation(MANY)
    asked = KeyIndex.of(np.concatenate([keys[order], digests(200, seed=4)]))
    expected = np.searchsorted(stored.prefixes, asked.prefixes)
    assert stored._is_worth_a_table(len(order))
    assert (stored.search(asked.prefixes) == expected).all()
    monkeypatch.setattr(module, "_MIN_PREFIXES", 2 * MANY)
    assert (stored.search(asked.prefixes) == expected).all()


@pytest.mark.parametrize("keys", [digests(MANY), crowded(MANY), alike(300)])
def test_keys_in_any_order_match_those_stored(keys):
    stored = KeyIndex.of(np.sort(keys))
    asked = np.concatenate([keys[: len(keys) // 4], keys[:7], digests(50, seed=4)])
    here, there = KeyIndex.of(asked).match(stored)
    assert sorted(here.tolist()) == list(range(len(keys) // 4 + 7))
    assert (asked[here] == stored.keys[there]).all()


@pytest.mark.parametrize("keys", [digests(50), np.tile(digests(50), 3), alike(50)])
def test_sorting_gives_the_position_of_each_key(keys):
    names, places = KeyIndex.sort(keys)
    assert (names.keys[places] == keys).all()
    assert (names.keys == np.unique(keys)).all()
    assert (names.prefixes == KeyIndex.of(names.keys).prefixes).all()


def test_table_takes_one_byte_per_key():
    stored = KeyIndex.of(np.sort(digests(100_000)))
    stored.search(stored.prefixes[:1_000])
    assert "_table" not in vars(stored)
    stored.search(stored.prefixes[:1_000])
    assert vars(stored)["_table"][0].nbytes <= 100_000
