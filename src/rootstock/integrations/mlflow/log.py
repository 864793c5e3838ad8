"""An append-only log in MLflow, stored as the versions of a separate registered model.

Creating a model version is the one call of MLflow that gives a number to exactly one caller and
writes its tags in the same transaction (docs/decisions/champion-history.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rootstock.integrations.mlflow.client import again_if_crowded, cut, or_none
from rootstock.ports.registry import Record

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOG_SUFFIX = " champions"
"""registry.name may not contain the space, so this name never collides with a user's model."""
LOG_TAGS = {"rootstock": "history of the champions, not a model"}
"""Shown in MLflow's list of models, which does not show descriptions."""
LOG_DESCRIPTION = (
    "The history of the champions, one version per change. Rootstock appends to it and relies on "
    "it, so please do not change it. `rootstock history` shows it."
)
MAX_TAG_CHARACTERS = 4_000


def log_name(name: str) -> str:
    """Return the name of the registered model that holds the log of the model ``name``."""
    return name + LOG_SUFFIX


def append_record(client: MlflowClient, name: str, version: str, facts: Mapping[str, str]) -> int:
    """Append a record and return its number."""
    ensure_model(client, log_name(name), LOG_DESCRIPTION, LOG_TAGS)
    made = again_if_crowded(
        client.create_model_version,
        log_name(name),
        source=f"models:/{name}/{version}",
        tags={key: cut(str(value), MAX_TAG_CHARACTERS) for key, value in facts.items()},
        description=cut(facts.get("why", ""), MAX_TAG_CHARACTERS),
    )
    return int(made.version)


def read_records(client: MlflowClient, name: str) -> list[Record]:
    """Return all records, oldest first; empty if there are none yet."""
    return [
        Record(
            int(one.version),
            str(one.source).rpartition("/")[2],
            one.creation_timestamp / 1000,
            dict(one.tags),
        )
        for one in list_versions(client, log_name(name))
    ]


def list_versions(client: MlflowClient, name: str) -> list[Any]:
    """Return all versions of a registered model, oldest first."""
    versions: list[Any] = []
    token = None
    while True:
        # In this order, versions that are appended now are on the last page.
        page = client.search_model_versions(
            f"name='{name}'", order_by=["version_number ASC"], page_token=token
        )
        versions += page
        token = page.token
        if not token:
            return versions


def note_on_record(client: MlflowClient, name: str, number: int, facts: Mapping[str, str]) -> None:
    """Add tags to a record."""
    for key, value in facts.items():
        again_if_crowded(client.set_model_version_tag, log_name(name), str(number), key, str(value))


def ensure_model(
    client: MlflowClient,
    name: str,
    description: str = "",
    tags: Mapping[str, str] | None = None,
) -> None:
    """Create the registered model if there is none."""
    if or_none(client.get_registered_model, name) is None:
        try:
            client.create_registered_model(name, tags=tags, description=description or None)
        except Exception as error:
            # Another process may have created it in between.
            if or_none(client.get_registered_model, name) is None:
                raise error
