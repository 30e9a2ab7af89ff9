"""Signs of life to the process that `ft_launcher` of nvidia-resiliency-ext keeps beside this rank (extra `resiliency`).

The watch ends hanging and lost ranks by itself, with threads of the rank. What it cannot do is end a process whose Python lock is
held in C: the other ranks miss it, and where all ranks are so, or there is only one, nobody is left to. The launcher's monitor
is another process: it ends the rank, and the launcher starts the ranks again.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from typing import Any

from model.errors import InputError
from moss_train.config.guard import GuardConfig
from moss_train.guards.position import Position

_SOCKET = "FT_RANK_MONITOR_IPC_SOCKET"
"""Set by ft_launcher: where the monitor of this rank listens."""
_MOST_SECONDS_BETWEEN = 5.0


def monitor_patience(guard: GuardConfig) -> float:
    """Seconds without a sign of life after which the monitor ends the rank: the watch, which names a cause, comes first."""
    return 2.5 * guard.lost_rank_seconds + 10.0


class Heartbeats:
    """Sent by a thread of their own for as long as the loop is where it may be; a hang ends them, as a stopped process does.

    Args:
        client: connected to the monitor.
        position: of the loop.
        pause: seconds between two of them.
    """

    def __init__(self, client: Any, position: Position, pause: float) -> None:
        self._client, self._position, self._pause = client, position, pause
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="moss_heartbeats", daemon=True)

    def start(self) -> None:
        """The first one is sent at once."""
        self._thread.start()

    def stop(self) -> None:
        """From now on the monitor does not miss this rank."""
        self._stopped.set()
        self._thread.join(self._pause)
        try:
            self._client.shutdown_workload_monitoring()
        except OSError:  # the monitor has ended before
            return

    def _beat(self) -> None:
        while not self._stopped.is_set():
            if not self._position.overdue(time.monotonic()):
                try:
                    self._client.send_heartbeat()
                except Exception as error:  # theirs wraps whatever goes wrong; training needs no monitor
                    self._give_up(error)
                    return
            self._stopped.wait(self._pause)

    def _give_up(self, error: Exception) -> None:
        if not self._stopped.is_set():
            rank = os.environ.get("RANK", "0")
            print(
                f"moss: warning: ft_launcher's monitor of rank {rank} does not answer ({error}); the rank goes on without it",
                file=sys.stderr,
                flush=True,
            )


_current: Heartbeats | None = None


def start_heartbeats(guard: GuardConfig, position: Position) -> None:
    """Have this process watched by ft_launcher's monitor, where `guard.resiliency` is heartbeat; nothing else otherwise.

    Raises:
        InputError: the package is not installed, or ft_launcher did not start this process.
    """
    global _current
    if _current is None:
        atexit.register(_stop)
    _stop()
    if guard.resiliency == "none":
        return
    client = _connect(monitor_patience(guard))
    _current = Heartbeats(client, position, min(_MOST_SECONDS_BETWEEN, guard.lost_rank_seconds / 6))
    _current.start()


def _stop() -> None:
    global _current
    if _current is not None:
        _current.stop()
        _current = None


def _connect(patience: float) -> Any:
    """A client of the monitor, which waits from now on for at most `patience` seconds."""
    if _SOCKET not in os.environ:
        raise InputError(
            f"guard.resiliency is 'heartbeat', but {_SOCKET} is not set: start the ranks with ft_launcher of "
            "nvidia-resiliency-ext, or set guard.resiliency=none"
        )
    try:
        from nvidia_resiliency_ext.fault_tolerance import RankMonitorClient, RankMonitorClientError
    except ImportError as error:
        raise InputError(
            f"guard.resiliency is 'heartbeat', which needs nvidia-resiliency-ext ({error}); pip install "
            "'moss-train[resiliency]', or set guard.resiliency=none"
        ) from error
    client = RankMonitorClient()
    # What the client is given as saved limits goes to the monitor when they connect, in place of ft_launcher's options.
    limits = {"initial": patience, "subsequent": patience, "were_calculated": True}
    client.load_state_dict({RankMonitorClient.CURRENT_TIMEOUTS_STATE_KEY: {"heartbeat": limits}})
    try:
        client.init_workload_monitoring()
    except (OSError, RankMonitorClientError) as error:
        raise InputError(
            f"guard.resiliency is 'heartbeat', but no monitor of ft_launcher answers at {_SOCKET} = {os.environ[_SOCKET]} "
            f"({error}); start the run again, or set guard.resiliency=none"
        ) from error
    return client
