"""Writers for the tests of the store, without torch, so that they start and die quickly.

python writers.py append STORE FIRST SEGMENTS      append, and print acknowledged segments
python writers.py kill STORE KILLS SEED            kill writers and mergers at random times
"""

import hashlib
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

from rootstock.features.store.compaction import compact
from rootstock.features.store.store import FeatureSpace, FeatureStore

ROWS = 40
WIDTH = 64


def key(number) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def features(keys) -> np.ndarray:
    """Return the row of a key: its 32 bytes, twice."""
    raw = np.frombuffer(bytes.fromhex("".join(keys)), np.uint8).reshape(-1, 32)
    return np.tile(raw, 2).astype(np.float16)


def fresh(root) -> FeatureSpace:
    return FeatureStore(Path(root)).space(weights_sha256="w" * 64, preprocess_hash="p" * 64)


def keys_from(first) -> list[str]:
    return [key(number) for number in range(first, first + ROWS)]


def append(root, first, segments, out) -> None:
    space = fresh(root)
    for start in range(first, first + segments * ROWS, ROWS):
        keys = keys_from(start)
        space.append(keys, {"last": features(keys)})
        os.write(out, f"{start}\n".encode())


def merge(root) -> None:
    while True:
        compact(fresh(root))


def fork(work, *arguments) -> int:
    child = os.fork()
    if not child:
        work(*arguments)
        os._exit(0)
    return child


def kill(root, kills, seed) -> None:
    """Run two writers and a merger at once, kill them after a random time, and repeat."""
    moments, started = random.Random(seed), time.monotonic()
    append(root, 10**9, 8, sys.stdout.fileno())
    longest = (time.monotonic() - started) / 2
    for number in range(0, kills, 2):
        children = [
            fork(append, root, (number + n) * 10**6, 10**4, sys.stdout.fileno()) for n in (0, 1)
        ]
        children.append(fork(merge, root))
        time.sleep(moments.uniform(0.0, longest))
        for child in children:
            os.kill(child, signal.SIGKILL)
        for child in children:
            os.waitpid(child, 0)


if __name__ == "__main__":
    mode, store, *numbers = sys.argv[1:]
    if mode == "append":
        append(store, *map(int, numbers), sys.stdout.fileno())
    else:
        kill(store, *map(int, numbers))
