"""Read the registry of an MLflow server through its public REST API, without MLflow itself.

A service needs only this, and MLflow's own client would install an MLflow server.
The API: https://mlflow.org/docs/latest/rest-api.html
"""

from __future__ import annotations

import base64
import configparser
import functools
import importlib.util
import os
import shutil
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

import httpx

from rootstock.errors import TrackingError
from rootstock.integrations.mlflow.client import LOGIN_HINT, TIMEOUT_VARIABLES, cut, redact
from rootstock.integrations.mlflow.places import check_model_folder
from rootstock.integrations.mlflow.registry import (
    MAX_NAMES,
    MlflowRegistry,
    missing_files,
    missing_model,
    missing_version,
    replace_directory,
)
from rootstock.ports.registry import RegistryEntry

API = "/api/2.0"
ARTIFACTS = f"{API}/mlflow-artifacts/artifacts"
MISSING_CODES = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""MLflow's codes for a missing object; the second one for an alias or an invalid version."""

FILE_SECONDS = 60.0
"""Seconds to wait for the first bytes of a file, which the server may have to fetch first."""

IDLE_SECONDS = 1.0
"""Seconds to keep an idle connection; servers close it after a few seconds."""

TIMEOUT_VARIABLE = "MLFLOW_HTTP_REQUEST_TIMEOUT"
CERTIFICATE_VARIABLES = ("MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE")
"""Variables that name trusted certificate authorities: a file or a folder."""

LOGIN_FILE = Path("~/.mlflow/credentials")
STATUS_HINTS = {401: LOGIN_HINT, 403: LOGIN_HINT, 500: "the server failed; check its log"}
"""Advice by status of the answer; for other statuses the server may not be MLflow."""


@dataclass(frozen=True)
class RestRegistry:
    """The models of an MLflow server; implements `rootstock.ports.registry.RegistryReader`."""

    tracking_uri: str

    def find(self, name: str, *, alias: str = "", version: str = "") -> RegistryEntry:
        """Return the entry under an alias or version.

        Raises:
            NoModelError: it does not exist; the message lists the existing aliases and versions.
            TrackingError: the server cannot be reached, or refuses.
        """
        doing = f"look up {name!r}"
        call = "model-versions/get" if version else "registered-models/alias"
        which = {"version": version} if version else {"alias": alias}
        fields = self._get(doing, call, "model_version", name=name, **which)
        if fields is not None:
            return _entry(fields)
        model = self._get(doing, "registered-models/get", "registered_model", name=name)
        if model is None:
            page = self._get(doing, "registered-models/search", max_results=str(MAX_NAMES)) or {}
            raise missing_model(name, [one["name"] for one in page.get("registered_models", ())])
        aliases = [one["alias"] for one in model.get("aliases", ())]
        what = f"version {version!r}" if version else f"alias {alias!r}"
        raise missing_version(name, what, aliases, self.versions(name))

    def versions(self, name: str) -> list[RegistryEntry]:
        """Return all versions, oldest first; none if the model is unknown."""
        doing = f"list the versions of {name!r}"
        model = self._get(doing, "registered-models/get", "registered_model", name=name)
        if model is None:
            return []
        query = {"filter": f"name='{name}'"}
        entries: list[RegistryEntry] = []
        while True:
            page = self._get(doing, "model-versions/search", **query) or {}
            for fields in page.get("model_versions", ()):
                # A search does not return aliases.
                aliases = [
                    one["alias"]
                    for one in model.get("aliases", ())
                    if str(one["version"]) == str(fields["version"])
                ]
                entries.append(_entry(fields | {"aliases": aliases}))
            if not page.get("next_page_token"):
                return sorted(entries, key=lambda entry: int(entry.version))
            query["page_token"] = page["next_page_token"]

    def download(self, entry: RegistryEntry, target: Path) -> Path:
        """Download the version's files next to ``target``, then move them there in one step.

        Replaces anything at ``target``. Returns ``target``.

        Raises:
            NoModelError: the version has no files.
            TrackingError: the server cannot be reached or refuses, or stores the files where only
              MLflow's own client, which is not installed, can fetch them.
        """
        doing = f"download version {entry.version} of {entry.name!r}"
        uri = self._artifact_uri(doing, entry)
        place = urlsplit(uri)

        def fetch(folder: Path) -> Path:
            if place.scheme == "mlflow-artifacts":
                self._fetch_folder(doing, place.path.strip("/"), folder)
            else:
                source = Path(url2pathname(place.path))
                if source.is_dir():
                    check_model_folder(uri)
                    shutil.copytree(source, folder, dirs_exist_ok=True)
            if not any(folder.iterdir()):
                raise missing_files(entry)
            return folder

        # The password is only for the tracking server, not for other hosts in addresses.
        if place.scheme in ("mlflow-artifacts", "file", "") and not place.netloc:
            return replace_directory(target, fetch)
        if importlib.util.find_spec("mlflow") is None:
            raise TrackingError(
                f"cannot {doing}: its files are at {redact(uri, uri)}, where only MLflow's own "
                "client can fetch them, and mlflow is not installed",
                hint="let the MLflow server serve the artifacts (--artifacts-destination), or "
                "pip install 'rootstock-vision[train]'",
            )
        return MlflowRegistry(self.tracking_uri).download(entry, target)

    def _artifact_uri(self, doing: str, entry: RegistryEntry) -> str:
        """Return the place of the version's files; ``runs:/ID/folder`` is below that of the run."""
        version = {"name": entry.name, "version": entry.version}
        uri = self._get(doing, "model-versions/get-download-uri", "artifact_uri", **version)
        if uri is not None and uri.startswith("runs:/"):
            run_id, _, folder = uri.removeprefix("runs:/").strip("/").partition("/")
            run = self._get(doing, "runs/get", "run", run_id=run_id)
            uri = f"{run['info']['artifact_uri'].rstrip('/')}/{folder}" if run else None
        if uri is None:
            raise missing_files(entry)
        return str(uri)

    def _fetch_folder(self, doing: str, path: str, folder: Path) -> None:
        """Download the files that the server lists below ``path``, including folders."""
        with self._send(doing, ARTIFACTS, {"path": path}) as response:
            listing = _read(response).get("files", ())
        for item in listing:
            name = str(item["path"])
            if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
                raise TrackingError(
                    f"cannot {doing}: the server lists an invalid file name {name!r}"
                )
            if item.get("is_dir"):
                (folder / name).mkdir()
                self._fetch_folder(doing, f"{path}/{name}", folder / name)
                continue
            address = f"{ARTIFACTS}/{quote(f'{path}/{name}')}"
            with self._send(doing, address, {}) as response, (folder / name).open("wb") as file:
                for part in response.iter_bytes():
                    file.write(part)

    def _get(self, doing: str, call: str, part: str = "", **query: str) -> Any:
        """Return ``part`` of the registry's answer to a call; None if it does not exist."""
        with self._send(doing, f"{API}/mlflow/{call}", query) as response:
            if not response.is_success:
                return None
            answer = _read(response)
            return answer[part] if part else answer

    @contextmanager
    def _send(self, doing: str, path: str, query: Mapping[str, str]) -> Iterator[httpx.Response]:
        """Yield an open response: a success, or MLflow's answer that the object does not exist.

        Raises:
            TrackingError: the server cannot be reached, or refuses for another reason.
        """
        seconds = float(os.environ.get(TIMEOUT_VARIABLE) or TIMEOUT_VARIABLES[TIMEOUT_VARIABLE])
        timeout = httpx.Timeout(seconds, read=max(seconds, FILE_SECONDS * (ARTIFACTS in path)))
        address = self.tracking_uri.rstrip("/") + path
        try:
            with _connections().stream(
                "GET", address, params=dict(query), headers=_headers(), timeout=timeout
            ) as response:
                if not response.is_success:
                    response.read()
                    code, message = _problem(response)
                    if code not in MISSING_CODES:
                        reason = f"HTTP {response.status_code}: {message}"
                        raise self._error(doing, reason, STATUS_HINTS.get(response.status_code, ""))
                yield response
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._error(doing, str(error) or type(error).__name__) from error
        except (LookupError, ValueError) as error:
            raise self._error(doing, f"the server is not an MLflow server ({error})") from error

    def _error(self, doing: str, reason: str, hint: str = "") -> TrackingError:
        shown = redact(self.tracking_uri, self.tracking_uri).rstrip("/")
        text = redact(cut(reason.partition("\n")[0], 400), self.tracking_uri)
        return TrackingError(
            f"cannot {doing} in MLflow at {shown}: {text}",
            hint=hint or f"check the server with `curl {shown}/health`, and MLFLOW_TRACKING_URI",
        )


@functools.lru_cache(maxsize=1)
def _connections() -> httpx.Client:
    """Return this process's connections; several threads may use them at once."""
    place = next(filter(None, map(os.environ.get, CERTIFICATE_VARIABLES)), "")
    if place and Path(place).is_dir():
        tls = ssl.create_default_context(capath=place)
    elif place:
        tls = ssl.create_default_context(cafile=place)
    else:
        tls = httpx.create_ssl_context()
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    if certificate := os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH"):
        tls.load_cert_chain(certificate)
    return httpx.Client(verify=tls, limits=httpx.Limits(keepalive_expiry=IDLE_SECONDS))


def _headers() -> dict[str, str]:
    """Return the credentials from MLflow's own variables and its credentials file.

    Raises:
        TrackingError: the settings need a plugin of MLflow's own client.
    """
    for name in ("MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_AWS_SIGV4"):
        if os.environ.get(name, "false").lower() not in ("", "0", "false"):
            raise TrackingError(
                f"{name} needs MLflow's own client, which a service does not use",
                hint="set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and _PASSWORD",
            )
    headers = {}
    file = configparser.ConfigParser(interpolation=None)
    file.read(LOGIN_FILE.expanduser())
    user, password = (
        os.environ.get(name) or str(file.get("mlflow", name, fallback=""))
        for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    )
    if user and password:
        pair = base64.b64encode(f"{user}:{password}".encode()).decode()
        headers["Authorization"] = f"Basic {pair}"
    elif token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    if workspace := os.environ.get("MLFLOW_WORKSPACE"):
        headers["X-MLFLOW-WORKSPACE"] = workspace
    return headers


def _read(response: httpx.Response) -> dict[str, Any]:
    response.read()
    answer = response.json()
    if not isinstance(answer, dict):
        raise ValueError("not a JSON object")
    return answer


def _problem(response: httpx.Response) -> tuple[str, str]:
    """Return code and message of an error; the code is empty if it is not from MLflow."""
    try:
        body = response.json()
        return str(body["error_code"]), str(body["message"])
    except (ValueError, KeyError, TypeError):
        return "", response.text.strip() or response.reason_phrase


def _entry(fields: Mapping[str, Any]) -> RegistryEntry:
    return RegistryEntry(
        name=fields["name"],
        version=str(fields["version"]),
        run_id=fields.get("run_id", ""),
        aliases=tuple(sorted(fields.get("aliases", ()))),
        tags={tag["key"]: tag.get("value", "") for tag in fields.get("tags", ())},
    )
