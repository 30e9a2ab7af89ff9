"""`moss train` in which the last rank has a fault in its third step.

Usage: train_with_fault FAULT CONFIG.yaml

FAULT: input (a mistake that only this rank sees), bug (of the program), data (sleeps while it reads), prepare (sleeps before the
update, told to end first).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from model.errors import InputError
from moss_train.cli.main import main
from moss_train.config.schema import RunConfig


def fault_in(session: Any, fault: str) -> None:
    """Arm it."""
    optimization = session.optimization
    original: Callable[[], float] = optimization.prepare
    calls = 0

    def prepare() -> float:
        nonlocal calls
        calls += 1
        if calls == 3 and fault == "input":
            raise InputError("the third step is too much for this rank; give it two")
        if calls == 3 and fault == "bug":
            raise KeyError("lost")
        if calls == 3 and fault == "prepare":
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(600)
        return original()

    optimization.prepare = prepare
    if fault == "data":
        take = session.feed._deliver

        def deliver(count: int, step: int, *rest: Any) -> Any:
            if step == 3:
                time.sleep(600)
            return take(count, step, *rest)

        session.feed._deliver = deliver


def arm(fault: str) -> None:
    """On the last rank."""
    from moss_train import platform

    platform.install()
    from moss_train import trainer

    start = trainer.start_session

    def start_with_fault(config: RunConfig) -> Any:
        session = start(config)
        if session.layout.rank == session.layout.world_size - 1:
            fault_in(session, fault)
        return session

    trainer.start_session = start_with_fault


if __name__ == "__main__":
    arm(sys.argv[1])
    sys.exit(main(["train", "--config", sys.argv[2]]))
