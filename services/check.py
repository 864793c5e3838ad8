"""Health check of a container: exit 0 if every URL answers 200, otherwise 1 with the reason.

`python check.py [--user NAME --password-file FILE] URL...`; it needs nothing but Python.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import sys
import urllib.error
import urllib.request
from pathlib import Path

SECONDS = 4.0


def main() -> None:
    """Request each URL once; at the first failure, print the reason and exit with 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("urls", nargs="+", metavar="URL")
    parser.add_argument("--user", default="")
    parser.add_argument("--password-file", type=Path)
    options = parser.parse_args()
    headers = {}
    if options.password_file:
        pair = f"{options.user}:{options.password_file.read_text(encoding='utf-8').strip()}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    for url in options.urls:
        if problem := _problem(urllib.request.Request(url, headers=headers)):
            sys.exit(f"{url}: {problem}")


def _problem(request: urllib.request.Request) -> str:
    # Ignore proxy variables and redirects: another page might answer 200 to everyone.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _StayHere())
    try:
        with opener.open(request, timeout=SECONDS) as answer:
            answer.read()
            return "" if answer.status == 200 else f"status {answer.status}"
    except urllib.error.HTTPError as error:
        return f"status {error.code}: {error.read(200).decode(errors='replace')}"
    except (OSError, http.client.HTTPException) as error:
        return str(error)


class _StayHere(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_arguments: object, **_named: object) -> None:
        return None


if __name__ == "__main__":
    main()
