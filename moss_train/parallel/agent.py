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
* A host that does not reach the first one's torchrun says so in one sentence and ends with exit code 3.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from moss_train.guards.cause import EXIT_LOST_RANK
from moss_train.parallel.network import is_own, own_address

SECONDS_TO_SAVE = 600
"""How long ranks that are told to end may take, unless `TORCH_ELASTIC_SHUTDOWN_TIMEOUT` or `--shutdown-timeout` says it."""


def main(words: Sequence[str] | None = None) -> int:
    """Run torchrun; the exit code."""
    from torch.distributed import DistError, run  # type: ignore[attr-defined]
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher import api

    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(SECONDS_TO_SAVE))
    options = run.parse_args(list(sys.argv[1:] if words is None else words))
    _know_the_addresses(options)
    agent = _agent_class()
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
        print(
            f"moss: error: torchrun on host {options.rdzv_endpoint or options.master_addr}, by which the hosts meet, gives no "
            f"answer ({reason}); this host's ranks end, start the run again to continue",
            file=sys.stderr,
            flush=True,
        )
        return EXIT_LOST_RANK
    return 0


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
    first = str(options.rdzv_endpoint).rpartition(":")[0].strip("[]") or str(options.rdzv_endpoint)
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
        """Gives ranks time to save, and remembers how they ended."""

        codes: tuple[int, ...] = ()

        def run(self, role: str = "default") -> Any:
            try:
                return super().run(role)
            except SignalException:
                if self.codes and not any(self.codes):
                    with suppress(Exception):  # where the others wait, or no longer do; this host does not
                        size: Any = self._worker_group.group_world_size
                        store._barrier_nonblocking(self._store, size, _TERMINAL_STATE_SYNC_ID)
                raise

        def _shutdown(self, *arguments: Any, **named: Any) -> None:
            if arguments or named:
                super()._shutdown(*arguments, **named)
            else:  # before a new world: torchrun would wait 30 s
                super()._shutdown(timeout=self._shutdown_timeout or SECONDS_TO_SAVE)
            handlers = getattr(self._pcontext, "subprocess_handlers", {})
            Agent.codes = tuple(handler.proc.returncode or 0 for handler in handlers.values())

    return Agent


def _code(code: int) -> int:
    """As a shell has it: 128 + n for signal n."""
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    sys.exit(main())
