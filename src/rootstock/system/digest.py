"""Digests of values that name files on users' disks, so they must never change."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def digest_json(value: Any, *, digits: int = 64) -> str:
    """Return the first hexadecimal digits of the SHA-256 of ``value`` as JSON with sorted keys.

    Values that JSON lacks are converted to text.
    """
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
