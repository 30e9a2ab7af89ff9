"""Run on 2 ranks: runs in which the last rank sleeps in every step, in several places and layouts.

Usage: straggler_ranks DATA_DIR OUT_DIR
"""

# ruff: noqa: E402 - the platform comes before everything of megatron-core
from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moss_train import platform

platform.install()

from moss_train.parallel.layout import stop_layout
from moss_train.parallel.world import start_world, stop_world
from moss_train.platform.device import resolve_device
from moss_train.setup import Session, start_session
from moss_train.trainer import Trainer
from tests.moss_train.runs import run_config

SECONDS = 0.3


def slowed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Sleeps before every call."""

    def slow(*arguments: Any, **named: Any) -> Any:
        time.sleep(SECONDS)
        return function(*arguments, **named)

    return slow


def slow_down(session: Session, place: str) -> None:
    """In the encoding of frames, in the decoder, in the wait for data, or between two steps."""
    step: Any = session.step
    if place == "encode":
        step.frames.encode = slowed(step.frames.encode)
    elif place == "decoder":
        module = session.models.chunks[0]
        module.forward = slowed(module.forward)  # type: ignore[method-assign]
    elif place == "data":
        session.feed._take = slowed(session.feed._take)  # type: ignore[method-assign]
    elif place == "between":
        session.counts.add = slowed(session.counts.add)  # type: ignore[method-assign]


def main(data: Path, out: Path) -> None:
    start_world(resolve_device("auto"))
    sizes: dict[str, Any]
    here: dict[str, Any] = {"data__worker_processes": 0, "train__eval_batches": 0}
    guard = {"guard__report_stragglers_every": 3, "guard__straggler_reports": 2}
    layouts = {
        "dp2": ({}, ("encode", "data", "between", "nowhere")),
        "tp2": ({"parallel__tensor": 2, "data__global_data_workers": 1}, ("decoder",)),
    }
    for layout, (sizes, places) in layouts.items():
        for place in places:
            session = start_session(run_config(data, out / f"{layout}_{place}", "pt2", 6, **here, **guard, **sizes))
            if session.layout.rank == 1:
                slow_down(session, place)
            Trainer(session).run()
            stop_layout()
    stop_world()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
