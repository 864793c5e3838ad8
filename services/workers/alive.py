"""Health of a Ray node: exit 0 if the cluster's head says that this machine's node lives.

`python alive.py HEAD:PORT`; where Ray asks for a token, this asks with it.
"""

from __future__ import annotations

import socket
import sys

SECONDS = 5.0


def main() -> None:
    """Ask the head for its nodes and look for one with an address of this machine."""
    # What `ray health-check` uses; there is no public way to ask from outside a job.
    from ray._raylet import GcsClient  # type: ignore[attr-defined,unused-ignore]
    from ray.core.generated.gcs_pb2 import GcsNodeInfo

    nodes = GcsClient(address=sys.argv[1]).get_all_node_info(timeout=SECONDS).values()
    living = {node.node_manager_address for node in nodes if node.state == GcsNodeInfo.ALIVE}
    own = set(socket.gethostbyname_ex(socket.gethostname())[2])
    if not living & own:
        sys.exit(f"the head at {sys.argv[1]} knows no living node here: {sorted(living)}")


if __name__ == "__main__":
    main()
