"""Switches that keep libraries from reporting use to their makers."""

import os

TELEMETRY_VARIABLES = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Read once, when the library is loaded; `disable_telemetry_events()` would be too late.
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Each library reads its variable when it is imported; child processes inherit it."""


def switch_telemetry_off() -> None:
    """Set the variables that the user has not set."""
    for name, value in TELEMETRY_VARIABLES.items():
        os.environ.setdefault(name, value)
