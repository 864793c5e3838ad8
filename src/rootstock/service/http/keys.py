"""API keys: the file stores only hashes; the client holds the key.

A line of the file is `NAME ROLE SHA256`, with the role `predict` or `admin`. Keys are 256 random
bits and cannot be guessed, so a plain hash is enough.
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
_MAX_CALLERS = 10_000
_SHA256 = re.compile("[0-9a-fA-F]{64}")


@dataclass(frozen=True)
class Key:
    """Name, role, and hash of a key."""

    name: str
    role: Role
    sha256: str


class KeyRing:
    """The keys of one file. ``is_required`` is true if a key file is set, even an empty one."""

    def __init__(self, keys: list[Key], *, is_required: bool) -> None:
        self._keys = keys
        self._is_required = is_required

    @classmethod
    def read(cls, path: Path | None) -> KeyRing:
        """Read the keys of a file. Without a file there are no keys.

        Raises:
            ConfigError: The file cannot be read, or a line is not `NAME ROLE SHA256`.
        """
        if path is None:
            return cls([], is_required=False)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"the keys in {path} cannot be read: {error}",
                hint=f"create one with `rootstock key NAME --file {path}`",
            ) from None
        keys = []
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            words = line.split()
            if len(words) != 3 or words[1] not in get_args(Role) or not _SHA256.fullmatch(words[2]):
                raise ConfigError(
                    f"{path}, line {number} is not NAME ROLE SHA256",
                    hint="ROLE is predict or admin; `rootstock key` writes such lines",
                )
            keys.append(Key(words[0], words[1], words[2].lower()))  # type: ignore[arg-type]
        return cls(keys, is_required=True)

    def needed(self, role: Role) -> bool:
        """Return whether a request needs a key. Admin requests always do.

        Removing the last key from the file does not open the service.
        """
        return role == "admin" or self._is_required

    def has(self, role: Role) -> bool:
        """Return whether a key with this role exists."""
        return any(key.role == role for key in self._keys)

    def find(self, text: str) -> Key | None:
        """Look up the key in constant time."""
        digest = hashlib.sha256(text.encode()).hexdigest()
        matches = [key for key in self._keys if hmac.compare_digest(key.sha256, digest)]
        return matches[-1] if matches else None


def make_key(name: str, role: Role, path: Path) -> str:
    """Create a key, append its hash to the file (mode 600), and return the key.

    Raises:
        ConfigError: The name is taken or has a space, or the file cannot be written.
    """
    if not name or len(name.split()) != 1:
        raise ConfigError(f"a key name must be one word, got {name!r}")
    if path.exists() and any(key.name == name for key in KeyRing.read(path)._keys):
        raise ConfigError(
            f"{path} already has a key named {name!r}",
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
    """A bucket of ``burst`` requests per caller, refilled at ``rate`` per second; 0: unlimited."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, caller: str) -> float:
        """Count one request; return 0 if it is allowed, or the seconds to wait."""
        if not self._rate:
            return 0.0
        now = time.monotonic()
        left, updated = self._buckets.pop(caller, (float(self._burst), now))
        left = min(self._burst, left + (now - updated) * self._rate)
        may_pass = left >= 1
        self._buckets[caller] = (left - may_pass, now)
        while len(self._buckets) > _MAX_CALLERS:
            self._buckets.popitem(last=False)
        return 0.0 if may_pass else (1 - left) / self._rate
