"""KeyIndex: keys in ascending order, and a fast search among millions.

Keys are digests, so their first bits are evenly distributed: a table has the position of the first
key with given first bits, and a few steps of bisection find the key. Keys that crowd together need
more steps, at most those of a plain bisection.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

KEY = np.dtype("S32")
_BUCKET_BITS = 3
"""About 2**3 keys share their first bits, so the table takes at most a byte per key."""
_MIN_PREFIXES, _MIN_KEYS = 1 << 12, 64
"""With fewer prefixes, or fewer keys at once, plain bisection is as fast."""
_WINDOW_KEYS = 8
"""Number of neighbours that are compared together."""
_PAYS_AFTER_BITS = 6
"""Building the table takes as long as bisecting for a 2**6th of its keys."""


class KeyIndex:
    """Keys S32[N], ascending and unique, and their first 8 bytes as uint64[N]."""

    def __init__(self, keys: np.ndarray, prefixes: np.ndarray) -> None:
        self.keys, self.prefixes = keys, prefixes
        self._asked = 0

    @classmethod
    def of(cls, keys: np.ndarray) -> KeyIndex:
        """Return the index of sorted keys, with their prefixes."""
        return cls(keys, _prefixes(keys))

    @classmethod
    def sort(cls, keys: np.ndarray) -> tuple[KeyIndex, np.ndarray]:
        """Return the unique keys of S32[K] in any order, and the position of each: int64[K]."""
        prefixes = _prefixes(keys)
        order = np.argsort(prefixes)
        ascending = prefixes[order]
        if (ascending[1:] == ascending[:-1]).any():
            # With duplicate keys, or equal prefixes, all bytes must be compared.
            unique, places = np.unique(keys, return_inverse=True)
            return cls.of(unique), places
        places = np.empty(len(keys), np.int64)
        places[order] = np.arange(len(keys))
        return cls(keys.take(order), ascending), places

    def match(self, other: KeyIndex) -> tuple[np.ndarray, np.ndarray]:
        """Return positions int64[K] here and there of the keys that both have.

        The shorter of the two may be in any order.
        """
        if len(self.keys) > len(other.keys):
            there, here = other.match(self)
            return here, there
        here = np.arange(len(self.keys))
        there = other.search(self.prefixes)
        matches = []
        while here.size:
            inside = there < len(other.keys)
            if not inside.all():
                here, there = here[inside], there[inside]
            same = other.keys.take(there) == self.keys.take(here)
            if same.all():
                matches.append((here, there))
                break
            matches.append((here[same], there[same]))
            # Different keys with equal prefixes are next to each other.
            alike = ~same & (other.prefixes[there] == self.prefixes[here])
            here, there = here[alike], there[alike] + 1
        return _joined(matches)

    def search(self, prefixes: np.ndarray) -> np.ndarray:
        """Return positions int64[K] of the first key not below each prefix uint64[K]."""
        if not self._is_worth_a_table(len(prefixes)):
            return np.searchsorted(self.prefixes, prefixes)
        starts, shift, step, windows = self._table
        places = starts.take((prefixes >> shift).astype(np.int64)).astype(np.int64)
        while step >= _WINDOW_KEYS:
            places += step * (self.prefixes.take(places + (step - 1), mode="clip") < prefixes)
            step >>= 1
        np.minimum(places, len(windows) - 1, out=places)
        window = windows[places].view(np.uint64).reshape(-1, _WINDOW_KEYS)
        # Eight comparisons are eight bytes of 0 or 1, which one instruction counts.
        below = window < prefixes[:, None]
        places += np.bitwise_count(below.view(np.uint64)[:, 0])
        return places

    def _is_worth_a_table(self, n_keys: int) -> bool:
        if len(self.prefixes) <= _MIN_PREFIXES or n_keys < _MIN_KEYS:
            return False
        self._asked += n_keys
        return self._asked << _PAYS_AFTER_BITS > len(self.prefixes)

    @cached_property
    def _table(self) -> tuple[np.ndarray, np.uint64, int, np.ndarray]:
        """Return the first positions by first bits, int32 or int64; the number of ignored bits;
        the first step
        of a bisection; and the prefixes again, each with its neighbours."""
        n = len(self.prefixes)
        bits = n.bit_length() - _BUCKET_BITS
        shift = np.uint64(64 - bits)
        edges = np.arange(1 << bits, dtype=np.uint64) << shift
        starts = np.searchsorted(self.prefixes, edges)
        most = int(np.diff(starts, append=n).max())
        kind = np.int32 if n < 1 << 31 else np.int64
        # One element for eight numbers, since numpy copies large elements faster than short rows.
        wide = np.dtype((np.void, 8 * _WINDOW_KEYS))
        windows = np.ndarray((n - _WINDOW_KEYS + 1,), wide, self.prefixes.data, strides=(8,))
        return starts.astype(kind), shift, 1 << max(most.bit_length() - 1, 0), windows


def _joined(matches: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    if len(matches) == 1:
        return matches[0]
    here, there = zip(*matches, strict=True) if matches else ([np.empty(0, np.int64)],) * 2
    return np.concatenate(here), np.concatenate(there)


def _prefixes(keys: np.ndarray) -> np.ndarray:
    return keys.view(">u8")[::4].astype(np.uint64)
