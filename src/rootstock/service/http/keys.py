"""API keys: a file holds their hashes, a client the key itself.

A line of the file is `NAME ROLE SHA256`; a role is `predict` or `admin`. Keys are 256 random bits,
so a plain hash is enough: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from rootstock.errors import ConfigError

Role = Literal["predict", "admin"]
PREFIX = "rsk_"
_REMEMBERED = 10_000
_HASH = re.compile("[0-9a-fA-F]{64}")


@dataclass(frozen=True)
class Key:
    """Who holds a key and what it is good for; the key itself is not known."""

    name: str
    role: Role
    sha256: str


class KeyRing:
    """The keys of one file; ``asked_for``: there is such a file, be it without any key."""

    def __init__(self, keys: list[Key], *, asked_for: bool) -> None:
        self._keys = keys
        self._asked_for = asked_for

    @classmethod
    def read(cls, path: Path | None) -> KeyRing:
        """The keys of a file; none without one.

        Raises:
            ConfigError: the file cannot be read, or a line is not `NAME ROLE SHA256`.
        """
        if path is None:
            return cls([], asked_for=False)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"the keys in {path} cannot be read: {error}",
                hint=f"`rootstock key NAME --file {path}` makes one",
            ) from None
        keys = []
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            words = line.split()
            if len(words) != 3 or words[1] not in get_args(Role) or not _HASH.fullmatch(words[2]):
                raise ConfigError(
                    f"{path}, line {number} is not NAME ROLE SHA256",
                    hint="ROLE is predict or admin; `rootstock key` writes such lines",
                )
            keys.append(Key(words[0], words[1], words[2].lower()))  # type: ignore[arg-type]
        return cls(keys, asked_for=True)

    def needed(self, role: Role) -> bool:
        """Whether anybody must show a key for this; admin work always needs one.

        A file whose last key was taken out opens nothing.
        """
        return role == "admin" or self._asked_for

    def has(self, role: Role) -> bool:
        """Whether there is a key of this role."""
        return any(key.role == role for key in self._keys)

    def find(self, shown: str) -> Key | None:
        """Whose key this is, in a time that tells nothing."""
        digest = hashlib.sha256(shown.encode()).hexdigest()
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found


def make_key(name: str, role: Role, path: Path) -> str:
    """Append a new key's hash to the file (made with mode 600); returns the key.

    Raises:
        ConfigError: the name is taken or holds a space, or the file cannot be written.
    """
    if not name or len(name.split()) != 1:
        raise ConfigError(f"a key's name is one word, got {name!r}")
    if path.exists() and any(key.name == name for key in KeyRing.read(path)._keys):
        raise ConfigError(
            f"{path} has a key of the name {name!r} already",
            hint="remove its line first, or choose another name",
        )
    key = PREFIX + secrets.token_urlsafe(32)
    try:
        path.touch(mode=0o600)
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{name} {role} {hashlib.sha256(key.encode()).hexdigest()}\n")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
    return key


class RateLimit:
    """A bucket of ``burst`` requests for each caller, refilled at ``rate`` a second; 0: any."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, caller: str) -> float:
        """Take one request; 0 if it may pass, else the seconds until the next may."""
        if not self._rate:
            return 0.0
        now = time.monotonic()
        left, since = self._buckets.pop(caller, (float(self._burst), now))
        left = min(self._burst, left + (now - since) * self._rate)
        passed = left >= 1
        self._buckets[caller] = (left - passed, now)
        while len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)
        return 0.0 if passed else (1 - left) / self._rate
