"""Assign a network's parts to taps, for freezing and layer decay."""

from __future__ import annotations

from typing import Any

from rootstock.backbones.load import LAST

_SHORTCUTS = ("shortcut", "skip", "skipbn")


def module_stages(module: Any) -> dict[str, str]:
    """Map module names of a timm network to the shallowest tap that their output reaches.

    Parts deeper than the last intermediate tap belong to ``last``.
    """
    order = {name: position for position, (name, _) in enumerate(module.named_modules())}
    ends = [
        max(
            position
            for name, position in order.items()
            if name == info["module"] or name.startswith(f"{info['module']}.")
        )
        for info in module.feature_info
    ]
    stages = {}
    for name, position in order.items():
        deeper = [
            index
            for index, (end, info) in enumerate(zip(ends, module.feature_info, strict=True))
            if position <= end and not _joins_behind(name, info["module"])
        ]
        stages[name] = f"block{deeper[0] + 1}" if deeper else LAST
    return stages


def _joins_behind(name: str, tap: str) -> bool:
    """Return whether this is a shortcut around a tap.

    Xception registers it before the tap but adds it after.
    """
    parts = name.split(".")
    blocks = [parts[:i] for i, part in enumerate(parts) if part in _SHORTCUTS and i]
    return any(tap.startswith(f"{'.'.join(block)}.") for block in blocks)
