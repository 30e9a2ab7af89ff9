"""What all monitors together cost a step: steps with and without them in turns, in one process.

Usage: python -m tests.moss_train.measure_monitors OUT.json [GLOBAL_BATCH_SIZE]

All that watches is on, W&B's offline record and gradient norms and memory in every step (ten times as often as by default) among
it. A step is measured from its begin to the begin of the next, so that writing and printing count; its processor time too.
"""

# ruff: noqa: E402 - the platform comes before everything of megatron-core
from __future__ import annotations

import json
import platform as machine
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from moss_train import platform

platform.install()

from moss_train.guards.policy import Guard
from moss_train.guards.stop_signal import StopSignal
from moss_train.monitors.base import Monitor
from moss_train.setup import start_session
from moss_train.trainer import Trainer
from tests.moss_train.runs import run_config, write_data

BLOCK, BLOCKS = 3, 12
"""Steps of a block, and blocks; every other one has monitors. The first block warms up and does not count."""


class Turns(Monitor):
    """Switches the others on and off by blocks, and takes the times of steps."""

    def __init__(self, monitors: list[Monitor]) -> None:
        self.on = True
        self.begins: list[tuple[float, float, bool]] = []
        for monitor in monitors:
            for hook in ("begun", "prepared", "measured", "stepped"):
                setattr(monitor, hook, self._gated(getattr(monitor, hook), hook))

    def begun(self, step: int) -> None:
        self.on = (step - 1) // BLOCK % 2 == 0
        self.begins.append((time.perf_counter(), time.process_time(), self.on))

    def _gated(self, hook: Any, name: str) -> Any:
        return lambda *arguments: hook(*arguments) if self.on else ({} if name == "measured" else None)


def main(out: Path, size: int) -> None:
    """Train, compare, write."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_data(root)
        config = run_config(
            root, root / "run", steps=BLOCK * (BLOCKS + 1) + 1, train__global_batch_size=size, train__eval_batches=0,
            logging__progress=True, logging__wandb="offline", logging__gradient_norms_every=1, logging__memory_every=1,
        )  # fmt: skip
        trainer = Trainer(start_session(config))
        watching = [monitor for monitor in trainer._monitors if not isinstance(monitor, (Guard, StopSignal))]
        turns = Turns(watching)
        trainer._monitors.insert(0, turns)
        trainer.run()
        records = [json.loads(line) for line in (root / "run" / "metrics.jsonl").read_text().splitlines()]
    own = [record["monitor_seconds"]["total"] / record["seconds"] for record in records if record["step"] > 2 * BLOCK]
    steps = [
        {"on": on, "seconds": end - begin, "processor_seconds": used_end - used}
        for (begin, used, on), (end, used_end, _) in zip(turns.begins[BLOCK:], turns.begins[BLOCK + 1 :], strict=False)
    ]
    result: dict[str, Any] = {
        "machine": machine.platform(), "python": sys.version.split()[0], "torch": version("torch"),
        "megatron-core": version("megatron-core"), "wandb": version("wandb"), "monitors": [type(m).__name__ for m in watching],
        "global_batch_size": size, "steps": steps, "own_share": own, "own_share_median": statistics.median(own),
    }  # fmt: skip
    for key in ("seconds", "processor_seconds"):
        on, off = (statistics.median(step[key] for step in steps if step["on"] is which) for which in (True, False))
        result[f"{key}_ratio"] = on / off
    result["seconds_median"] = statistics.median(step["seconds"] for step in steps)
    out.write_text(json.dumps(result, indent=1) + "\n")
    print({name: value for name, value in result.items() if name.endswith(("ratio", "median"))})


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 96)
