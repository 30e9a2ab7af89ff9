"""Environment and interpreter of a run's processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from moss_train.config.schema import RunConfig


def interpreter(config: RunConfig) -> str:
    """The Python that runs on the nodes, or in the container."""
    return config.launcher.python or ("python3" if config.launcher.container.runtime != "none" else sys.executable)


def node_environment(config: RunConfig) -> dict[str, str]:
    """Variables of launch/torchrun.sh that follow from the configuration, `launcher.env` included."""
    launcher = config.launcher
    values = dict(launcher.env) | {"NPROC_PER_NODE": str(launcher.nproc_per_node), "PYTHON": interpreter(config)}
    if launcher.max_restarts:
        values["MAX_RESTARTS"] = str(launcher.max_restarts)
    if launcher.elastic:
        values["MIN_NODES"] = str(launcher.least_nodes)
    return values


def torchrun_environment(config: RunConfig, caller: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The caller's environment, with the launcher's values where the caller has set none."""
    launcher = config.launcher
    values = node_environment(config) | {"NNODES": str(launcher.nodes)}
    if launcher.nodes > 1:
        values["MASTER_PORT"] = str(launcher.master_port)
    return values | dict(caller)
