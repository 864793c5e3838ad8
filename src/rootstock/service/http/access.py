"""Access control: each router declares who may call it, and the guard checks every request."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from fastapi import APIRouter
from starlette.datastructures import Headers
from starlette.routing import BaseRoute, compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from rootstock.service.http.keys import KeyRing, RateLimit, Role
from rootstock.service.http.problems import Problem, send_refusal

Access = Literal["open", "predict", "admin"]
"""From most to least open: everyone, or requests with a key of this role."""


class Router(APIRouter):
    """A router with one declared access for all of its routes."""

    def __init__(self, access: Access, *, suffix: str = "", **options: Any) -> None:
        super().__init__(**options)
        self.access = access
        self._suffix = suffix
        """Suffix of route names, for functions that also answer other routes."""

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Add a route."""
        options["name"] = options.get("name") or endpoint.__name__ + self._suffix
        super().add_api_route(path, endpoint, **options)


class AccessTable:
    """The declared access of every route in an app."""

    def __init__(self) -> None:
        self._routes: dict[str, Access] = {}
        self._patterns: list[tuple[re.Pattern[str], str]] = []
        self._prefixes: dict[str, Access] = {}
        self._routers: list[Router] = []

    def declare(self, path: str, access: Access) -> None:
        """Declare the access of one route."""
        self._routes[path] = access
        if "{" in path:
            self._patterns.append((compile_path(path)[0], path))
        if path != "/":  # every path starts with it
            self._declare_prefix(path.partition("{")[0], access)

    def add(self, router: APIRouter) -> None:
        """Declare the routes of ``router`` and all paths below its prefix.

        Raises:
            RuntimeError: ``router`` is not a `Router`, so it declares no access.
        """
        if not isinstance(router, Router):
            raise RuntimeError(f"a router of {_paths(router.routes)} declares no access")
        self._routers.append(router)
        for path in _paths(router.routes):
            self.declare(path, router.access)
        if router.prefix:
            self._declare_prefix(f"{router.prefix}/", router.access)

    def require_all(self, routes: Iterable[BaseRoute]) -> None:
        """Check that every route of an app has a declared access.

        Raises:
            RuntimeError: A route has no declared access.
        """
        # FastAPI may list an included router as an entry without a path; `add` has checked it.
        own = [route for route in routes if hasattr(route, "path")]
        routes = own + [route for router in self._routers for route in router.routes]
        if undeclared := [path for path in _paths(routes) if path not in self._routes]:
            raise RuntimeError(f"{', '.join(undeclared)}: no declared access; use access.Router")

    def of_route(self, path: str) -> Access:
        """Return the access of a route, given its path pattern such as /v2/models/{name}."""
        return self._routes[path]

    def list_routes(self, access: Access, method: str) -> list[str]:
        """Return the routes with this access and method."""
        return [
            getattr(route, "path", "")
            for router in self._routers
            if router.access == access
            for route in router.routes
            if method in (getattr(route, "methods", None) or ())
        ]

    def resolve(self, path: str) -> Access:
        """Return the access that a request needs.

        This is the access of the matching route, or the strictest one if several match. A path
        without a route gets the access of the longest route or prefix that it starts with.
        """
        if routes := self._find(path):
            return _strictest(self._routes[route] for route in routes)
        prefixes = (prefix for prefix in self._prefixes if path.startswith(prefix))
        return self._prefixes.get(max(prefixes, key=len, default=""), "predict")

    def route_at(self, path: str) -> str:
        """Return the matching route, such as /v2/models/{name}, or an empty text."""
        return next(iter(self._find(path)), "")

    def _find(self, path: str) -> list[str]:
        own = [path] if path in self._routes else []
        return own + [route for pattern, route in self._patterns if pattern.match(path)]

    def _declare_prefix(self, prefix: str, access: Access) -> None:
        self._prefixes[prefix] = _strictest([access, self._prefixes.get(prefix, access)])


@dataclass
class Admission:
    """The keys and the rate of the callers, for every protocol."""

    keys: KeyRing
    rate: RateLimit

    def identify(self, role: Role, texts: Iterable[str], address: str) -> str | Problem:
        """Return who calls, by key or by address, or the problem of having no fitting key.

        ``texts``: what may be a key.
        """
        if not self.keys.needed(role):
            return f"address {address}"
        keys = [self.keys.find(text) for text in texts]
        # If a request has two keys, the one with the higher role counts.
        key = min(filter(None, keys), key=lambda key: key.role, default=None)
        if key is None:
            return _unauthorized(role, self.keys)
        if role == "admin" and key.role != "admin":
            return Problem("forbidden", f"The key {key.name!r} is not an admin key.")
        return f"key {key.name}"

    def slow_down(self, caller: str) -> Problem | None:
        """Count a request, and return the problem of having too many, or None."""
        seconds = self.rate.wait(caller)
        if not seconds:
            return None
        return Problem(
            "too-many-requests",
            "This caller has sent more requests than the service allows.",
            headers={"Retry-After": str(math.ceil(seconds))},
        )


@dataclass
class Guard:
    """Rejects requests that are not allowed, exceed the rate limit, or reach a busy service.

    It decides before reading the body. ``crowded`` returns the problem of a request for an address
    whose model is too busy, or None.
    """

    app: ASGIApp
    access: AccessTable
    admission: Admission
    crowded: Callable[[str], Problem | None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if problem := self._refuse(scope):
            scope["state"]["refused_route"] = self.access.route_at(scope["path"])
            await send_refusal(send, scope, problem)
        else:
            await self.app(scope, receive, send)

    def _refuse(self, scope: Scope) -> Problem | None:
        role = self.access.resolve(scope["path"])
        if role == "open":
            return None
        headers = Headers(scope=scope)
        texts = read_keys(headers.get("x-api-key", ""), headers.get("authorization", ""))
        address = (scope.get("client") or ("unknown",))[0]
        caller = self.admission.identify(role, texts, address)
        if isinstance(caller, Problem):
            return caller
        scope["state"]["caller"] = caller
        # Admin requests have no rate limit.
        if scope["method"] != "POST" or role == "admin":
            return None
        return self.admission.slow_down(caller) or self.crowded(scope["path"])


def _paths(routes: Iterable[BaseRoute]) -> list[str]:
    return [getattr(route, "path", "a nested router") for route in routes]


def _strictest(accesses: Iterable[Access]) -> Access:
    return max(accesses, key=get_args(Access).index)


def read_keys(key: str, authorization: str) -> list[str]:
    """Return what may be a key: an Authorization header may be meant for a proxy instead."""
    scheme, _, token = authorization.partition(" ")
    return [key, token.strip()] if scheme.lower() == "bearer" else [key]


def _unauthorized(role: Role, keys: KeyRing) -> Problem:
    if role == "admin" and not keys.has("admin"):
        return Problem("forbidden", "This service has no admin key, so admin routes are off.")
    return Problem(
        "unauthorized",
        "Send the key as X-API-Key or Authorization: Bearer.",
        headers={"WWW-Authenticate": "Bearer"},
    )
