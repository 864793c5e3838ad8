"""Health check of a Ray node: exit 0 if the head reports that this machine's node is alive.

Run `python alive.py HEAD:PORT`. If Ray requires a token, it is sent.
"""

from __future__ import annotations

import socket
import sys

SECONDS = 5.0


def main() -> None:
    """Ask the head for its nodes and look for one with an address of this machine."""
    # `ray health-check` uses this; no public interface works outside a job.
    from ray._raylet import GcsClient  # type: ignore[attr-defined,unused-ignore]
    from ray.core.generated.gcs_pb2 import GcsNodeInfo

    nodes = GcsClient(address=sys.argv[1]).get_all_node_info(timeout=SECONDS).values()
    living = {node.node_manager_address for node in nodes if node.state == GcsNodeInfo.ALIVE}
    own = set(socket.gethostbyname_ex(socket.gethostname())[2])
    if not living & own:
        sys.exit(f"the head at {sys.argv[1]} reports no node of this machine: {sorted(living)}")


if __name__ == "__main__":
    main()
