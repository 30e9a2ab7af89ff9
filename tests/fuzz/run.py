"""Feeds many damaged inputs to all readers, and writes down what any of them did that a user should not see.

python -m tests.fuzz.run --inputs 100000 --out fuzz.json            # own mutations of sound inputs
python -m tests.fuzz.run --engine atheris --inputs 100000           # coverage-guided; needs `pip install atheris`
"""

from __future__ import annotations

import argparse
import base64
import json
import logging
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from tests.fuzz.targets import TOLD, Target, all_targets

KEPT_FAULTS = 20


def fuzz(target: Target, inputs: int, seed: int) -> dict[str, Any]:
    """Feed mutations of the seeds.

    Returns:
        Counts of outcomes, the largest growth of memory (MB), and each new kind of fault with its input.
    """
    outcomes: Counter[str] = Counter()
    faults: dict[str, dict[str, str]] = {}
    for data in target.seeds:  # a sound input that is refused would make the rest worthless
        target.run(data)
    before, begin = _peak(), time.process_time()
    for number in range(inputs):
        rng = random.Random(f"{seed}/{number}")
        data = target.mutate(rng.choice(target.seeds), rng)
        outcome = feed(target, data, faults)
        outcomes[outcome] += 1
    return {
        "inputs": inputs,
        "outcomes": dict(outcomes.most_common()),
        "peak_growth_mb": round(_peak() - before, 1),
        "cpu_seconds": round(time.process_time() - begin, 1),
        "faults": list(faults.values()),
    }


def feed(target: Target, data: bytes, faults: dict[str, dict[str, str]]) -> str:
    """read | told | fault; a fault is entered once for each place in the code."""
    try:
        target.run(data)
        return "read"
    except TOLD as error:
        if "\n" in str(error).strip() or not str(error).strip():
            _enter(faults, data, "a message that is no sentence", repr(str(error)))
            return "fault"
        return "told"
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
        _enter(faults, data, where, traceback.format_exc(limit=-6))
        return "fault"


def _enter(faults: dict[str, dict[str, str]], data: bytes, what: str, detail: str) -> None:
    if what not in faults and len(faults) < KEPT_FAULTS:
        faults[what] = {"what": what, "detail": detail, "input": base64.b64encode(data).decode()}


def _peak() -> float:
    """MB of this process at its largest."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000, help="in all, shared out over the targets (default 100000)")
    parser.add_argument("--target", action="append", help="only this one; may be given several times")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", choices=("own", "atheris"), default="own")
    parser.add_argument("--memory-mb", type=int, default=2048, help="a target may grow by no more (default 2048)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args(argv)
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        targets = all_targets(Path(folder))
        unknown = set(args.target or ()) - set(targets)
        if unknown:
            parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(targets)}")
        chosen = {name: target for name, target in targets.items() if not args.target or name in args.target}
        shares = sum(target.share for target in chosen.values())
        results = {}
        for name, target in chosen.items():
            count = max(1, args.inputs * target.share // shares)
            results[name] = _guided(name, count, args) if args.engine == "atheris" else fuzz(target, count, args.seed)
            print(f"{name:12s} {json.dumps({k: v for k, v in results[name].items() if k != 'faults'})}", flush=True)
            for fault in results[name]["faults"]:
                print(f"  FAULT {fault['what']}\n{fault['detail']}", flush=True)
    if args.out:
        args.out.write_text(json.dumps({"engine": args.engine, "seed": args.seed, "targets": results}, indent=1) + "\n")
    bad = [name for name, r in results.items() if r["faults"] or r["peak_growth_mb"] > args.memory_mb]
    print(f"{sum(r['inputs'] for r in results.values())} inputs; " + (f"faults in {', '.join(bad)}" if bad else "no fault"))
    return 1 if bad else 0


def _guided(name: str, inputs: int, args: argparse.Namespace) -> dict[str, Any]:
    """One target under atheris, which ends its own process."""
    with tempfile.TemporaryDirectory(prefix=f"atheris-{name}-") as folder:
        command = [sys.executable, "-m", "tests.fuzz.guided", name, folder, str(inputs), str(args.seed), str(args.memory_mb)]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONWARNINGS": "ignore"})
        report = Path(folder) / "report.json"
        if not report.is_file():
            fault = {"what": "the fuzzer ended without a report", "detail": done.stderr[-3000:], "input": ""}
            return {"inputs": 0, "outcomes": {}, "peak_growth_mb": 0.0, "faults": [fault]}
        result: dict[str, Any] = json.loads(report.read_text())
        if done.returncode and not result["faults"]:
            result["faults"] = [{"what": f"the fuzzer ended with {done.returncode}", "detail": done.stderr[-3000:], "input": ""}]
        return result


if __name__ == "__main__":
    sys.exit(main())
