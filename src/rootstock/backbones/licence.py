"""Whether a licence of weights allows commercial use."""

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
    """Return whether an SPDX identifier allows commercial use; None if it is unknown."""
    identifier = licence.strip().casefold()
    if identifier.startswith("cc-by-nc"):
        return False
    return True if identifier in _COMMERCIAL else None


def describe_licence(licence: str) -> str:
    """Return the licence and, in words, whether it allows commercial use."""
    allowed = allows_commercial_use(licence)
    words = {
        True: "allows commercial use",
        False: "does not allow commercial use",
        None: "may not allow commercial use: read it before you sell the result",
    }
    return f"licence {licence}, which {words[allowed]}"


def require_commercial_use(name: str, licence: str) -> None:
    """Reject weights whose licence is not known to allow commercial use.

    Raises:
        BackboneError: The licence is not known to allow it.
    """
    if not allows_commercial_use(licence):
        raise BackboneError(
            f"backbone.require_commercial is true, and the weights of {name} have the "
            f"{describe_licence(licence)}",
            hint="choose other weights, or write the SPDX identifier of your licence into the card "
            "next to the weights",
        )
