"""Runs killed at random moments, in random ways and layouts, and continued.

Usage: python -m tests.moss_train.kills --kills 30 --out kill.json
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from moss_train.run_folder import versions
from tests.moss_train.kills.experiment import KINDS, carry_out, draw, faults
from tests.moss_train.kills.layouts import EVAL_EVERY, GLOBAL_BATCH, READERS, SAVE_EVERY
from tests.moss_train.runs import write_data


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--steps", type=int, default=60, help="of each run")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=1, help="number of the first kill, to repeat one")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="in turn")
    parser.add_argument("--layouts", nargs="+", help="to choose among; a name that is given twice comes twice as often")
    parser.add_argument("--folder", type=Path, help="keep data, reference runs and the last killed run here")
    parser.add_argument("--out", type=Path, required=True, help="the report, as JSON, written anew after each kill")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        if not (folder / "data").is_dir():
            write_data(folder / "data")
        rows = []
        for number in range(arguments.first, arguments.first + arguments.kills):
            choice = random.Random(f"{arguments.seed}/{number}")  # of its own for each kill: one can be repeated alone
            kill = draw(arguments.kinds[(number - 1) % len(arguments.kinds)], choice, arguments.steps, arguments.layouts)
            row: dict[str, Any] = {"kill": number} | carry_out(kill, folder, arguments.steps, choice)
            row["faults"] = faults(row)
            rows.append(row)
            print(json.dumps(row), flush=True)
            report = _settings(arguments) | {"rows": rows}
            arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    bad = sum(bool(row["faults"]) for row in rows)
    print(f"{len(rows) - bad} of {len(rows)} kills left no trace in the metrics")
    return 1 if bad else 0


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    known = versions(0)
    return {
        "command": f"python -m tests.moss_train.kills --kills {arguments.kills} --seed {arguments.seed} --out kills.json",
        "steps": arguments.steps,
        "save_every": SAVE_EVERY,
        "eval_every": EVAL_EVERY,
        "global_batch_size": GLOBAL_BATCH,
        "readers": READERS,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} thread a rank",
        "versions": {name: known[name] for name in ("python", "torch", "megatron-core", "megatron-energon") if name in known},
    }


if __name__ == "__main__":
    sys.exit(main())
