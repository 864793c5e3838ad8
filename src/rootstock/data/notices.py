"""Warnings about a data set, the same in every place."""

from __future__ import annotations

from typing import Any

from rootstock.data.entry import count, shorten
from rootstock.data.label_corrections import FILE_NAME
from rootstock.data.manifest import REMOVED, Manifest

_GROUPS = {
    "label_conflicts": "of copies with more than one label",
    "leaks_across_given_splits": "of copies in more than one split",
}
"""Keys of the summary, and the meaning of a group of files in them."""


def list_notices(manifest: Manifest) -> list[str]:
    """Return the warnings of the index, and counts of problems with the images."""
    summary = manifest.summary()
    notices = list(manifest.warnings)
    faulty = [row.path for row in manifest.quarantined if row.quarantine != REMOVED]
    if faulty:
        reasons = describe_reasons(summary)
        first = shorten(faulty, most=3)
        notices.append(f"{count(len(faulty), 'file')} unusable ({reasons}): {first}")
    for key, what in _GROUPS.items():
        if groups := summary[key]:
            notices.append(
                f"{count(len(groups), 'group')} {what}, such as {groups[0][0]} and {groups[0][1]}"
            )
    return notices


def describe_reasons(summary: dict[str, Any]) -> str:
    """Return the number of unusable files per reason; empty if there are none."""
    reasons = summary["quarantine_reasons"]
    return ", ".join(f"{n} {name}" for name, n in reasons.items() if name != REMOVED)


def describe_corrections(summary: dict[str, Any]) -> str:
    """Return the number of corrected and removed images; empty if there are none."""
    parts = []
    if corrected := summary.get("corrected"):
        parts.append(f"{count(corrected, 'label')} corrected")
    if removed := summary.get("removed"):
        parts.append(f"{count(removed, 'image')} removed")
    return f"{' and '.join(parts)} by {FILE_NAME}" if parts else ""
