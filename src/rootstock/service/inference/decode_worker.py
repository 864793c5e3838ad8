"""A process that decodes images for the service and can be killed safely.

    python -m rootstock.service.inference.decode_worker FD MEMORY_BYTES

A frame is a length in four bytes followed by that many bytes. The parent sends two frames per job:
the recipe as JSON and the encoded image. The answer is one frame: `+`, width and height of the
image (four bytes each) and the pixels uint8[V,S,S,3]; or `-` and the error as JSON. The parent
unpickles nothing.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
from functools import lru_cache
from typing import Any

from rootstock.data.limits import DecodeLimits
from rootstock.data.preprocess import Preprocess
from rootstock.data.views import Views, cut_views
from rootstock.errors import ImageError
from rootstock.system.bounds import bound_memory
from rootstock.system.isolation import leave_network


def recipe_bytes(preprocess: Preprocess, views: Views, limits: DecodeLimits) -> bytes:
    """Return what a worker needs to prepare images for one model."""
    tree = {"preprocess": preprocess.to_dict(), "views": views, "limits": limits.to_dict()}
    return json.dumps(tree).encode()


def prepare(recipe: bytes, content: bytes) -> bytes:
    """Return the answer to one job."""
    preprocess, views, limits = _parse(recipe)
    try:
        image = preprocess.decode(content, limits)
        size = b"".join(side.to_bytes(4, "big") for side in image.size)
        return b"+" + size + cut_views(preprocess, image.pixels, views).tobytes()
    except ImageError as error:
        return b"-" + json.dumps({"reason": error.reason, "message": error.message}).encode()
    except MemoryError:
        shortage = {
            "reason": "too-many-pixels",
            "message": "not enough memory to decode it",
        }
        return b"-" + json.dumps(shortage).encode()


def frame(content: bytes) -> bytes:
    """Return ``content`` with its length in front."""
    return len(content).to_bytes(4, "big") + content


@lru_cache(maxsize=8)
def _parse(recipe: bytes) -> tuple[Preprocess, Views, DecodeLimits]:
    tree: dict[str, Any] = json.loads(recipe)
    preprocess = Preprocess.from_dict(tree["preprocess"])
    return preprocess, tree["views"], DecodeLimits.from_dict(tree["limits"])


def main() -> None:
    """Answer jobs until the parent closes the socket."""
    # Ctrl-C reaches the whole process group; the parent decides when workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    leave_network()
    bound_memory(int(sys.argv[2]))
    with socket.socket(fileno=int(sys.argv[1])) as parent, parent.makefile("rb") as jobs:
        while True:
            frames = [jobs.read(int.from_bytes(jobs.read(4), "big")) for _ in range(2)]
            if not frames[0]:
                return
            parent.sendall(frame(prepare(*frames)))


if __name__ == "__main__":
    main()
