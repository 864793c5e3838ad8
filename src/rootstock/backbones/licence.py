"""What a licence of weights says about commercial use."""

from __future__ import annotations

from rootstock.errors import BackboneError

_COMMERCIAL = {
    "0bsd",
    "apache-2.0",
    "bsd-2-clause",
    "bsd-3-clause",
    "bsl-1.0",
    "cc-by-3.0",
    "cc-by-4.0",
    "cc-by-sa-4.0",
    "cc0-1.0",
    "isc",
    "mit",
    "unlicense",
}
"""SPDX identifiers that allow it, in lower case."""


def allows_commercial_use(licence: str) -> bool | None:
    """Return what an SPDX identifier says; None: it is not one that is known here."""
    identifier = licence.strip().casefold()
    if identifier.startswith("cc-by-nc"):
        return False
    return True if identifier in _COMMERCIAL else None


def describe_licence(licence: str) -> str:
    """Return the licence and, in words, whether it allows commercial use."""
    allowed = allows_commercial_use(licence)
    words = {
        True: "allows commercial use",
        False: "allows no commercial use",
        None: "is not known to allow commercial use: read it before you sell what you make",
    }
    return f"licence {licence}, which {words[allowed]}"


def require_commercial_use(name: str, licence: str) -> None:
    """Refuse weights whose licence is not known to allow commercial use.

    Raises:
        BackboneError: it is not.
    """
    if not allows_commercial_use(licence):
        raise BackboneError(
            f"backbone.require_commercial is true, and the weights of {name} have the "
            f"{describe_licence(licence)}",
            hint="set backbone.weights to others, or write the SPDX identifier of your licence "
            "into the card beside the weights",
        )
