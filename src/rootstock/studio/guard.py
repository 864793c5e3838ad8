"""Access control: every request to the studio passes this before anything is read.

A page of another origin cannot use the studio through a browser that has it open. The name in
`Host` must be the studio's, so an attacker's name that points here is rejected. Requests that a
browser sends for another page are rejected. Every change needs a token that only the studio's own
page can read.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rootstock.service.http.access import AccessTable
from rootstock.service.http.keys import Role
from rootstock.service.http.problems import Problem
from rootstock.studio.sessions import Session, Sessions

TOKEN_HEADER = "X-Studio-Token"
READING = ("GET", "HEAD")
OWN_NAMES = ("localhost", "127.0.0.1", "[::1]")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@dataclass
class StudioGuard:
    """Rejects requests that are not allowed, and adds headers that keep the browser strict.

    ``names`` are hosts, with their port if it is not the default, in addition to the names of this
    machine.
    """

    app: ASGIApp
    access: AccessTable
    sessions: Sessions
    names: frozenset[str]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # no other protocol is supported

        async def send_strict(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        if problem := self._refuse(scope):
            await problem.response()(scope, receive, send_strict)
        else:
            await self.app(scope, receive, send_strict)

    def _refuse(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        if not self._is_own(host):
            return Problem(
                "forbidden",
                "The studio does not accept this host name. Open it by its address, or allow the "
                "name with --hosts.",
            )
        if not _is_same_origin(scope["method"], headers, host):
            return Problem("forbidden", "Pages from other origins may not use the studio.")
        session = self.sessions.find(HTTPConnection(scope).cookies)
        scope.setdefault("state", {})["session"] = session
        role = self.access.resolve(scope["path"])
        if role != "open" and (problem := _refuse_role(session, role)):
            return problem
        if scope["method"] in READING:
            return None
        token = headers.get(TOKEN_HEADER, "")
        if not hmac.compare_digest(token.encode(), self.sessions.token(session).encode()):
            return Problem("forbidden", "The studio has restarted. Reload the page.")
        return None

    def _is_own(self, host: str) -> bool:
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        return name in OWN_NAMES or host in self.names or name in self.names


def _refuse_role(session: Session | None, role: Role) -> Problem | None:
    if session is None:
        return Problem("unauthorized", "Log in with your key.")
    if role == "admin" and session.role != "admin":
        return Problem("forbidden", f"{session.name} may view and label; this needs an admin key.")
    return None


def _is_same_origin(method: str, headers: Headers, host: str) -> bool:
    """Return whether these headers show that the browser's own page, or a person, asks."""
    origin = headers.get("origin")
    if origin is not None and origin.lower().partition("://")[2] != host:
        return False
    site = headers.get("sec-fetch-site", "none")
    if site in ("same-origin", "none"):
        return True
    # A link on another page may lead here, as a bookmark does.
    return method in READING and headers.get("sec-fetch-mode") == "navigate"
