"""torchrun for several hosts, and with the exit codes of training: `python -m moss_train.parallel.agent OPTIONS`.

The options are those of `torch.distributed.run`. What is different:

* The exit code is that of the rank that failed first (docs/guards.md); torchrun's is always 1. Told to end, it is 0 where all
  ranks of this host saved and ended.
* Ranks that are told to end have time to save (`TORCH_ELASTIC_SHUTDOWN_TIMEOUT`), also where it is torchrun that tells them,
  since a host has joined.
* A host that alone is told to end lets the others end too, where all ranks have saved. Those of torchrun wait for it for 300 s.
* No host needs to know names, not even its own: each gives the address by which it reaches the first host.
* Where ranks may be started again, each new world has a store of its own. In torchrun's common store (torch 2.13) ranks find the
  addresses of those that ended before, and wait for them for ever.
* Bad input (exit code 2) is not tried again.
* A host that does not reach the first one's torchrun says so in one sentence and ends with exit code 3.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from moss_train.guards.cause import EXIT_BAD_INPUT, EXIT_LOST_RANK, end_process
from moss_train.parallel.network import answers, is_own, own_address

SECONDS_TO_SAVE = 600
"""How long ranks that are told to end may take, unless `TORCH_ELASTIC_SHUTDOWN_TIMEOUT` or, from torch 2.12 on,
`--shutdown-timeout` says it."""
SECONDS_OUT_OF_REACH = 20.0
"""For how long a host without ranks tries to reach the one where all meet."""


def main(words: Sequence[str] | None = None) -> int:
    """Run torchrun; the exit code."""
    seconds = os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(SECONDS_TO_SAVE))
    if not seconds.isdecimal():
        said = f"TORCH_ELASTIC_SHUTDOWN_TIMEOUT is {seconds!r}; use a whole number of seconds, or unset it"
        print(f"moss: error: {said}", file=sys.stderr, flush=True)
        return EXIT_BAD_INPUT
    # Names that lead nowhere and stores that ended first are no news. Torch reads it when it is imported, here and in the ranks.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from torch.distributed import DistError, run  # type: ignore[attr-defined]
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher import api

    options = run.parse_args(list(sys.argv[1:] if words is None else words))
    _know_the_addresses(options)
    address, port = _first(options)
    agent = _agent_class()
    if options.rdzv_backend == "c10d" and options.rdzv_endpoint and port:
        agent.meeting = (address, port)
    api.LocalElasticAgent = agent  # type: ignore[attr-defined]
    try:
        run.run(options)
    except ChildFailedError as error:
        return _code(error.get_first_failure()[1].exitcode)
    except SignalException as error:
        codes = agent.codes
        return next(filter(None, map(_code, codes)), 0) if codes else 128 + int(error.sigval)
    except (RendezvousError, DistError) as error:
        reason = (str(error.__cause__ or error).strip().splitlines() or [type(error).__name__])[0]
        _say_it_is_lost(f"{address}:{port}" if port else address, reason)
        return EXIT_LOST_RANK
    return 0


def _say_it_is_lost(meeting: str, reason: str) -> None:
    print(
        f"moss: error: torchrun on host {meeting}, by which the hosts meet, gives no answer ({reason}); this host ends, start "
        "the run again to continue",
        file=sys.stderr,
        flush=True,
    )


def _first(options: argparse.Namespace) -> tuple[str, int]:
    """Address and port by which the hosts meet; port 0 for one that is not known yet."""
    endpoint = str(options.rdzv_endpoint) or f"{options.master_addr}:{options.master_port or 0}"
    address, colon, port = endpoint.rpartition(":")
    return (address.strip("[]"), int(port)) if colon and port.isdecimal() else (endpoint.strip("[]"), 29400)


def _know_the_addresses(options: argparse.Namespace) -> None:
    """Fill in what torchrun would find out by looking up this host's name."""
    least, _, most = str(options.nnodes).partition(":")
    if int(options.max_restarts) > 0 or most not in ("", least):
        os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    if options.standalone or (most or least) == "1":
        options.local_addr = options.local_addr or "127.0.0.1"
        return
    if options.rdzv_backend != "c10d":
        return
    first, _ = _first(options)
    if options.local_addr is None:
        options.local_addr = own_address(first)
    if "is_host" not in options.rdzv_conf:
        told = f"is_host={int(is_own(first))}"
        options.rdzv_conf = f"{options.rdzv_conf},{told}" if options.rdzv_conf else told


def _agent_class() -> Any:
    from torch.distributed.elastic.agent.server.api import _TERMINAL_STATE_SYNC_ID
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.utils import store

    class Agent(LocalElasticAgent):
        """Gives ranks time to save, remembers how they ended, and ends where the other hosts are out of reach."""

        codes: tuple[int, ...] = ()
        meeting: tuple[str, int] | None = None
        _shutdown_timeout = int(os.environ["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"])  # torch 2.11 knows none; 2.12 sets its own

        def run(self, role: str = "default") -> Any:
            if self.meeting is not None:
                threading.Thread(target=self._watch_the_way, args=self.meeting, name="moss_way", daemon=True).start()
            try:
                return super().run(role)
            except SignalException:
                if self.codes and not any(self.codes):
                    with suppress(Exception):  # where the others wait, or no longer do; this host does not
                        size: Any = self._worker_group.group_world_size
                        store._barrier_nonblocking(self._store, size, _TERMINAL_STATE_SYNC_ID)
                raise

        def _monitor_workers(self, worker_group: Any) -> Any:
            result = super()._monitor_workers(worker_group)
            if any(failure.exitcode == EXIT_BAD_INPUT for failure in result.failures.values()):
                self._remaining_restarts = 0
            return result

        def _shutdown(self, death_sig: signal.Signals = signal.SIGTERM, timeout: int | None = None) -> None:
            if self._pcontext is not None:  # torch waits 30 s: 2.11 always, later ones before a new world
                self._pcontext.close(death_sig, self._shutdown_timeout if timeout is None else timeout)
            super()._shutdown(death_sig)  # no process is left
            handlers = getattr(self._pcontext, "subprocess_handlers", {})
            Agent.codes = tuple(handler.proc.returncode or 0 for handler in handlers.values())

        def _watch_the_way(self, address: str, port: int) -> None:
            """While no rank runs: this host's calls to the store would wait for ever where packets are lost."""
            last = time.monotonic()
            while True:
                time.sleep(2.0)
                handlers = getattr(self._pcontext, "subprocess_handlers", {})
                ran = any(handler.proc.poll() is None for handler in handlers.values())
                if ran or answers(address, port, seconds=5.0):
                    last = time.monotonic()
                elif time.monotonic() - last > SECONDS_OUT_OF_REACH:
                    _say_it_is_lost(f"{address}:{port}", f"no connection for {time.monotonic() - last:.0f} s")
                    end_process(EXIT_LOST_RANK)

    return Agent


def _code(code: int) -> int:
    """As a shell has it: 128 + n for signal n."""
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    sys.exit(main())
