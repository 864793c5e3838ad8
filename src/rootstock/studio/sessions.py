"""Login sessions. They are in memory only: after a restart people log in again."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from rootstock.service.http.keys import KeyRing, Role

COOKIE = "rootstock_studio"
SECONDS = 12 * 3600
MAX_SESSIONS = 1_000


@dataclass(frozen=True)
class Session:
    """A person with a role. ``id`` is the value of the cookie; empty if no key is needed."""

    name: str
    role: Role
    id: str = ""
    ends: float = float("inf")


class Sessions:
    """The sessions of one studio. Without a key file every visitor is the owner."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys
        self.needs_key = keys.needed("predict")
        self._secret = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._open: OrderedDict[str, Session] = OrderedDict()

    def find(self, cookies: Mapping[str, str]) -> Session | None:
        """Return the session of a request; None if its sender has to log in."""
        if not self.needs_key:
            return Session("", "admin")
        with self._lock:
            session = self._open.get(cookies.get(COOKIE, ""))
        return session if session and session.ends > time.monotonic() else None

    def begin(self, key: str) -> Session | None:
        """Return a new session for a key; None if the key is wrong."""
        holder = self._keys.find(key)
        if holder is None:
            return None
        session = Session(
            holder.name, holder.role, secrets.token_urlsafe(32), time.monotonic() + SECONDS
        )
        with self._lock:
            self._open[session.id] = session
            while len(self._open) > MAX_SESSIONS:
                self._open.popitem(last=False)
        return session

    def end(self, session: Session | None) -> None:
        """Forget a session."""
        if session is not None:
            with self._lock:
                self._open.pop(session.id, None)

    def token(self, session: Session | None) -> str:
        """Return the token that the page sends with each change; every studio start has another."""
        text = session.id if session else "visitor"
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()
