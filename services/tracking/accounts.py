"""Create MLflow's users `service` (reads) and `pipeline` (writes), and set their passwords.

Run `python accounts.py http://mlflow:5000` with ADMIN_PASSWORD, SERVICE_PASSWORD, and
PIPELINE_PASSWORD in the environment. It may run any number of times; a changed password file
changes the password. Everyone may read everything (basic_auth.ini). Only its creator may write a
run or model, so these belong to the pipeline, and only the admin may change them too. Needs only
Python.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import urllib.error
import urllib.request

USERS = {"service": "SERVICE_PASSWORD", "pipeline": "PIPELINE_PASSWORD"}


def main() -> None:
    """Create or update each user; if MLflow refuses, exit 1 with its reason."""
    for name, variable in USERS.items():
        user = {"username": name, "password": os.environ[variable]}
        problem = _send("POST", "users/create", user)
        if "RESOURCE_ALREADY_EXISTS" in problem:
            problem = _send("PATCH", "users/update-password", user)
        if problem:
            sys.exit(f"cannot create the user {name}: {problem}")


def _send(method: str, path: str, body: dict[str, str]) -> str:
    """Return MLflow's error; empty on success."""
    pair = base64.b64encode(f"admin:{os.environ['ADMIN_PASSWORD']}".encode()).decode()
    request = urllib.request.Request(
        f"{sys.argv[1]}/api/2.0/mlflow/{path}",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Basic {pair}", "Content-Type": "application/json"},
        method=method,
    )
    try:
        with urllib.request.urlopen(request, timeout=30):
            return ""
    except urllib.error.HTTPError as error:
        return f"status {error.code}: {error.read(500).decode(errors='replace')}"
    except OSError as error:
        return str(error)


if __name__ == "__main__":
    main()
