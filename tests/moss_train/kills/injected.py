"""`moss` itself, which ends one of its ranks at a chosen point of a chosen step.

Usage: MOSS_KILL='{"rank": 1, "step": 17, "point": "decode", "part": 0.4}' python -m tests.moss_train.kills.injected train ...

The ranks are the real ones, started by the real launcher; nothing that they compute or write is changed. Points:
`data`, `encode`, `decode`, `return`, `statistics`, `optimizer`, `evaluation`: `part` of the way through it, by its last duration;
`file`: before operation number `count` on a file in the run's checkpoints, counted from the step on (any thread);
`publish`: the same, only of those that make a checkpoint valid or remove an old one;
`load`: the same as `file`, from the start on.

`what` is `kill` (SIGKILL to itself, as the kernel's OOM killer does) or `memory` (from then on no memory is given to the rank).
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MODULE = "tests.moss_train.kills.injected"
_WRITES = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate", "shutil.rmtree")
_CHECKPOINTS = re.compile(r"/checkpoints\b|/\.?latest\b")
_PUBLISHING = re.compile(r"checkpoint\.json|latest|/step_\d+( |$)")
"""The description, the folder's own name, the file `latest`, and old checkpoints that go."""


class Plan:
    """What to do in this rank."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.step: int = values["step"]
        self.point: str = values["point"]
        self.part: float = values.get("part", 0.0)
        self.what: str = values.get("what", "kill")
        self.count: int = values.get("count", 1)
        self.now = 0
        """Step that is being trained, or was last."""
        self._lasted: dict[str, float] = {}
        self._seen = 0

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """Around a part of a step."""
        if name == self.point and self.now == self.step:
            self._later(self.part * self._lasted.get(name, 0.0))
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._lasted[name] = time.perf_counter() - begin

    def file_operation(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit hook: called by the interpreter before each of them."""
        if event not in _WRITES or not _CHECKPOINTS.search(f"{arguments[0]}"):
            return
        if self.point != "load" and self.now < self.step:
            return
        if self.point == "publish" and not _PUBLISHING.search(" ".join(map(str, arguments))):
            return
        self._seen += 1
        if self._seen == self.count:
            self.act()

    def act(self) -> None:
        """End this rank, or its memory."""
        if self.what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize(), resource.RLIM_INFINITY))

    def _later(self, seconds: float) -> None:
        if seconds <= 0 or self.what == "memory":
            self.act()
            return

        def wait() -> None:
            time.sleep(seconds)
            self.act()

        threading.Thread(target=wait, daemon=True).start()


def _around(plan: Plan, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*arguments: Any, **options: Any) -> Any:
        with plan.inside(name):
            return function(*arguments, **options)

    return wrapped


def arm(plan: Plan) -> None:
    """Put the plan into the modules of this rank."""
    from moss_train import platform

    platform.install()
    from moss_train.evaluation.held_out import HeldOut
    from moss_train.feed.feed import Feed
    from moss_train.phases import Phases

    phase, read = Phases.__call__, Feed.read

    @contextmanager
    def counted(phases: Phases, name: str) -> Iterator[None]:
        with phase(phases, name), plan.inside(name):
            yield

    def reading(feed: Feed, count: int, step: int = 0, *arguments: Any, **options: Any) -> Any:
        plan.now = step or plan.now  # a held-out read has no step
        with plan.inside("data"):
            return read(feed, count, step, *arguments, **options)

    Phases.__call__ = counted  # type: ignore[method-assign, assignment]
    Feed.read = reading  # type: ignore[method-assign, assignment]
    HeldOut.run = _around(plan, "evaluation", HeldOut.run)  # type: ignore[method-assign]
    if plan.point in ("file", "load", "publish"):
        sys.addaudithook(plan.file_operation)


def main() -> int:
    """As `moss`; ranks that it starts run this module too."""
    from moss_train.cli.main import main as moss
    from moss_train.parallel import local_ranks

    start = local_ranks.start_local_ranks
    local_ranks.start_local_ranks = lambda ranks, module, arguments: start(ranks, MODULE, arguments)
    values = json.loads(os.environ.get("MOSS_KILL", "null"))
    several = "--nproc-per-node" in sys.argv and int(sys.argv[sys.argv.index("--nproc-per-node") + 1]) > 1
    launcher = several and "RANK" not in os.environ
    if values is not None and not launcher and values["rank"] == int(os.environ.get("RANK", "0")):
        arm(Plan(values))
    return moss()


if __name__ == "__main__":
    sys.exit(main())
