"""One node of a check, for tests: `python -m tests.moss_train.preflight.node_process SCENARIO.json`, started once for each node.

The scenario has, for each node: `overrides`; `folder` to start in; `environment`; `absent` (it never comes); `clock` (seconds
that its clock is ahead) or `dies` (it ends when its clock is first read).
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from moss_train.cli.main import main as moss
from moss_train.preflight.clock import Clock


def main() -> int:
    number, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    scenario = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    node: dict[str, Any] = scenario["nodes"][number]
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        del os.environ[name]  # ranks of the check are none of the test's
    os.environ |= {"MOSS_NODE_NAME": f"gpu-{number}", "NNODES": str(count), "NODE_RANK": str(number)} | node.get(
        "environment", {}
    )
    os.chdir(node.get("folder", scenario["folder"]))
    words = [*scenario["overrides"], *node.get("overrides", [])]
    if node.get("absent"):
        return 0
    if "clock" in node or "dies" in node:
        return _with_clock(words, _dying if "dies" in node else lambda: time.time() + node["clock"])
    return moss(["preflight", *words])


def _dying() -> float:
    os._exit(0)


def _with_clock(words: list[str], clock: Clock) -> int:
    """What the command does, but for the clock."""
    from moss_train.config.compose import compose
    from moss_train.preflight.node import Request, check_node
    from moss_train.preflight.place import find_place

    config = compose([*words, "stage=pt1"])
    place, run_dir = find_place(None, None, None, 29500), Path(config.run_dir)
    request = Request(
        config=config, out=run_dir, run_dir=run_dir, data=False, processes=config.launcher.nproc_per_node, clock=clock
    )
    return check_node(place, request, place.port)


if __name__ == "__main__":
    sys.exit(main())
