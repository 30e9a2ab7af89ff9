"""`moss_train.parallel.agent` on top of an agent as torch 2.11 has it, whichever torch is installed.

There agents know no time for ending: no argument, no attribute, no option. `close` waits its own 30 s, here 0.2 s.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

from torch.distributed.elastic.agent.server import local_elastic_agent
from torch.distributed.elastic.multiprocessing.api import SignalException

from moss_train.parallel.agent import main

SECONDS_OF_CLOSE = 0.2


class AgentOf211(local_elastic_agent.LocalElasticAgent):
    """`__init__`, `run` and `_shutdown` are those of 2.11; metrics are left out."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        named.pop("shutdown_timeout", None)
        super().__init__(*arguments, **named)
        vars(self).pop("_shutdown_timeout", None)

    def run(self, role: str = "default") -> Any:
        closed = False
        try:
            return self._invoke_run(role)
        except SignalException as error:
            self._shutdown(error.sigval)
            closed = True
            raise
        finally:
            if not closed:
                self._shutdown()

    def _shutdown(self, death_sig: signal.Signals = signal.SIGTERM) -> None:  # type: ignore[override]
        if self._pcontext:
            self._pcontext.close(death_sig, SECONDS_OF_CLOSE)  # type: ignore[arg-type]


if __name__ == "__main__":
    local_elastic_agent.LocalElasticAgent = AgentOf211  # type: ignore[misc]
    sys.exit(main())
