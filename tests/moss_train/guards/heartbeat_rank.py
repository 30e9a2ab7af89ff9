"""A monitor of nvidia-resiliency-ext, and a rank beside it whose main thread sleeps for longer than the monitor waits.

Usage: heartbeat_rank HANG_SECONDS SOCKET
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time

from moss_train.guards.position import Position
from moss_train.guards.resiliency import Heartbeats, _connect

PATIENCE = 2.0


def watch(hang_seconds: str, socket: str) -> int:
    """In the place of ft_launcher."""
    from nvidia_resiliency_ext.fault_tolerance import FaultToleranceConfig, RankMonitorServer

    config = FaultToleranceConfig(workload_check_interval=0.2, enable_nic_monitor=False)
    monitor = RankMonitorServer.run_in_subprocess(config, socket, mp_ctx=multiprocessing.get_context("spawn"))
    command = [sys.executable, "-m", "tests.moss_train.guards.heartbeat_rank", hang_seconds]
    try:
        return subprocess.run(
            command, env=os.environ | {"RANK": "0", "FT_RANK_MONITOR_IPC_SOCKET": socket}, timeout=60
        ).returncode
    finally:
        monitor.terminate()
        monitor.join()


def train(hang_seconds: float) -> None:
    """The rank."""
    position = Position(hang_seconds, hang_seconds, 0.0)
    heartbeats = Heartbeats(_connect(PATIENCE), position, 0.2)
    position.at("step", 1)
    heartbeats.start()
    time.sleep(3 * PATIENCE)
    heartbeats.stop()
    time.sleep(2 * PATIENCE)  # no longer missed
    print("the rank lives")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print("ended with", watch(sys.argv[1], sys.argv[2]))
    else:
        train(float(sys.argv[1]))
