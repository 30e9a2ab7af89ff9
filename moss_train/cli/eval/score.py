"""`moss eval score`: score traces of any system against their scenarios."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from inference.evaluation.judge.open import add_judge_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Traces, scenarios, where the results go, and a judge."""
    parser.add_argument(
        "traces", type=Path, nargs="+", help="JSON-lines files of traces, of any system (docs/traces.md says what they need)"
    )
    parser.add_argument(
        "--scenarios", type=Path, nargs="+", required=True, help="JSON-lines files of the scenarios that they name"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for traces.jsonl, items.jsonl, scores.json and run.json")
    parser.add_argument("--label", default="", help="what tables call the system")
    parser.add_argument("--partial", action="store_true", help="score what is there: scenarios without a trace are left out")
    add_judge_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Read, score, write, and print the metrics of each suite."""
    from rich.console import Console
    from rich.table import Table

    from inference.evaluation.folder import Provenance, write_folder
    from inference.evaluation.judge.open import judge_from
    from inference.evaluation.storage import check_folder, load_scenario_files, load_traces
    from model.errors import InputError

    scenarios = load_scenario_files(args.scenarios)
    traces = [trace for path in args.traces for trace in load_traces(path)]
    if not traces:
        raise InputError(f"{args.traces[0]} holds no trace; write one JSON object a line")
    check_folder(args.out)
    given = {trace.scenario_id for trace in traces}
    missing = [scenario.id for scenario in scenarios if scenario.id not in given]
    if missing and not args.partial:
        raise InputError(
            f"{len(missing)} scenarios have no trace, the first is {missing[0]!r}; run them, or leave them out with --partial"
        )
    counted: set[tuple[str, str]] = set()
    for trace in traces:
        if (trace.scenario_id, trace.mode) in counted:
            raise InputError(f"scenario {trace.scenario_id!r} has two traces of mode {trace.mode}; give one of them")
        counted.add((trace.scenario_id, trace.mode))
    provenance = Provenance(command=sys.argv, checkpoint={"path": args.label or str(args.traces[0])}, files=args.scenarios)
    chosen = [scenario for scenario in scenarios if scenario.id in given or not args.partial]
    scores = write_folder(args.out, traces, chosen, provenance, judge_from(args, args.out))
    table = Table("suite", "metric", "value")
    for suite, metrics in scores["suites"].items():
        for name, value in metrics.items():
            if value is not None:
                table.add_row(suite, name, f"{value:.4g}")
    Console().print(table)
    if missing:
        print(f"moss: {len(missing)} scenarios without a trace were left out: {json.dumps(missing[:5])}", file=sys.stderr)
    print(args.out / "scores.json")
    return 0
