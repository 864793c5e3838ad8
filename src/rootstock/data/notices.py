"""What a user should know of a data set before work goes on: it is the same in every place."""

from __future__ import annotations

from rootstock.data.entry import count, shorten
from rootstock.data.manifest import Manifest

_GROUPS = {
    "label_conflicts": "of copies with more than one label",
    "leaks_across_given_splits": "of copies in more than one split",
}
"""Keys of the summary, and what a group of files in them means."""


def list_notices(manifest: Manifest) -> list[str]:
    """Return the warnings of the index, and counts of what the images themselves show."""
    summary = manifest.summary()
    notices = list(manifest.warnings)
    if summary["quarantined"]:
        reasons = ", ".join(f"{n} {name}" for name, n in summary["quarantine_reasons"].items())
        first = shorten([row.path for row in manifest.quarantined], most=3)
        notices.append(
            f"{count(len(manifest.quarantined), 'file')} not usable ({reasons}): {first}"
        )
    for key, what in _GROUPS.items():
        if groups := summary[key]:
            notices.append(
                f"{count(len(groups), 'group')} {what}, such as {groups[0][0]} and {groups[0][1]}"
            )
    return notices
