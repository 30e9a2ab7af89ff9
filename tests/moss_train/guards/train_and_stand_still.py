"""`moss train` that stands still in its sixth step: every rank holds Python's lock in C. The ranks that are started again do not.

Usage: train_and_stand_still CONFIG.yaml
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from typing import Any

from moss_train.cli.main import main
from moss_train.config.schema import RunConfig

STEP = 6


def arm() -> None:
    """On every rank."""
    from moss_train import platform

    platform.install()
    from moss_train import trainer

    start = trainer.start_session

    def start_with_fault(config: RunConfig) -> Any:
        session: Any = start(config)
        original: Callable[[], float] = session.optimization.prepare
        calls = 0

        def prepare() -> float:
            nonlocal calls
            calls += 1
            if calls == STEP:
                ctypes.PyDLL(None).sleep(600)
            return original()

        session.optimization.prepare = prepare
        return session

    trainer.start_session = start_with_fault


if __name__ == "__main__":
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        arm()
    sys.exit(main(["train", "--config", sys.argv[1]]))
