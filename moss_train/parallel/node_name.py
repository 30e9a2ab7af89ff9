"""What this node is called in sentences and reports. Imports no torch."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


def node_name(variables: Mapping[str, str] = os.environ) -> str:
    """`MOSS_NODE_NAME` where it is set, for nodes whose hosts have equal names; Slurm's name of the node; the host's name."""
    return variables.get("MOSS_NODE_NAME") or variables.get("SLURMD_NODENAME") or socket.gethostname()
