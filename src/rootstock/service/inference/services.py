"""The models that one process serves, by name; the first one is the default."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rootstock.service.http.problems import Problem
from rootstock.service.inference.resources import Resources
from rootstock.service.inference.service import Service

_NAMED = re.compile(r"/v[12]/models/([^/]+)")


class Services:
    """One `Service` per model, and their shared resources."""

    def __init__(self, resources: Resources, services: Sequence[Service]) -> None:
        self.resources = resources
        self.default = services[0]
        self._by_name = {service.name: service for service in services}

    def __iter__(self) -> Iterator[Service]:
        return iter(self._by_name.values())

    @property
    def several(self) -> bool:
        """Whether there is more than one model."""
        return len(self._by_name) > 1

    def find(self, name: str) -> Service:
        """Return the model with this name.

        Raises:
            Problem: There is no such model.
            NotLoadedError: There is only one model, which is not loaded, so its name is unknown.
        """
        if self.several:
            if name in self._by_name:
                return self._by_name[name]
            known = ", ".join(map(repr, self._by_name))
            raise Problem("not-found", f"There is no such model; this service has {known}.")
        # A model from a folder, or a challenger, may have another name than its name here.
        info = self.default.holder.predictor.info
        if name != info["name"]:
            raise Problem(
                "not-found", f"The model in use is {info['name']!r} version {info['version']!r}."
            )
        return self.default

    def named(self, name: str) -> Service:
        """Return the model with this name, or the default if there is none."""
        return self._by_name.get(name, self.default)

    @property
    def awaited(self) -> list[Service]:
        """The models that must be ready before requests are sent here.

        A model that fails to load does not block requests to the others, but the service waits
        until each was tried.
        """
        missing = [service for service in self if not service.holder.ready]
        if len(missing) == len(self._by_name):
            return missing
        return [service for service in missing if not service.tried]

    @property
    def ready(self) -> bool:
        """Whether the service is ready for requests."""
        return not self.awaited and self.resources.ready

    def states(self) -> dict[str, str]:
        """Return, per model, whether it is ready, is loading, or has failed to load."""
        return {
            one.name: "ready" if one.holder.ready else "failed" if one.tried else "loading"
            for one in self
        }

    def crowded(self, path: str) -> Problem | None:
        """Return the problem with accepting one more image for this address's model, or None."""
        match = _NAMED.match(path) if self.several else None
        return self.named(match[1] if match else "").crowded()
