"""`moss bench convergence`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from model.errors import InputError
from moss_train.cli.bench.shared import chosen, file_to_write, positive, show_tables, surroundings

VERSIONS = ("torch", "triton", "megatron-core", "transformer-engine", "flash-attn", "flash-attn-4")
"""Packages whose versions are written beside the numbers."""
HEADER = (
    "", "steps", "seeds", "loss", "of the other", "difference", "spread of seeds", "within it", "always, to step",
    "in standard errors", "tenths within noise",
)  # fmt: skip
_SHOWN = 300
EXAMPLES = """examples:
  moss bench convergence --pairs states --seeds 3 --out states.json --plot states.svg
  moss bench convergence --pairs fp8,fp8_wide --seeds 2 --parallel 4 --limit-seconds 240 --out fp8.json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to compare."""
    parser.epilog = EXAMPLES
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="further values of every run's config")
    parser.add_argument(
        "--pairs", default="states,fp8,fp8_wide",
        help="separated by commas (default %(default)s): states, of 10 bytes a parameter against fp32; fp8 against bf16 on "
        "the small model; fp8_wide, on four layers of 11B widths",
    )  # fmt: skip
    parser.add_argument("--seeds", default="3", help="runs of each way (default %(default)s)")
    parser.add_argument("--steps", default=None, help="of each run (default: states 2000, fp8 500)")
    parser.add_argument("--parallel", default=None, help="processes at once (default: one for two cores)")
    parser.add_argument("--limit-seconds", default=None, help="then all end with the steps that they have (default: no limit)")
    parser.add_argument("--keep-seconds", default="15", help="after which --out takes in runs that go on (default 15)")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="auto (default): cuda if there is one")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write curves and comparisons to this JSON file")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw the curves, a file FILE-PAIR.svg for each pair")


def run(arguments: argparse.Namespace) -> int:
    """Run, print, write.

    Returns:
        1 where a pair could not be compared.

    Raises:
        InputError: an option that nothing can be compared with.
        KeyboardInterrupt: SIGTERM or Ctrl-C; the steps so far are written.
    """
    from moss_train.bench.convergence.configs import PAIRS, ways_of

    pairs = chosen("--pairs", arguments.pairs, list(PAIRS))
    seeds = positive("--seeds", arguments.seeds)
    steps = None if arguments.steps is None else positive("--steps", arguments.steps)
    cores = os.cpu_count() or 2
    parallel = max(1, cores // 2) if arguments.parallel is None else positive("--parallel", arguments.parallel)
    limit = None if arguments.limit_seconds is None else float(positive("--limit-seconds", arguments.limit_seconds))
    keep_seconds = float(positive("--keep-seconds", arguments.keep_seconds))
    file_to_write("--out", arguments.out)
    file_to_write("--plot", arguments.plot)

    import torch

    from moss_train.bench.convergence.runs import all_runs, run_all
    from moss_train.bench.plain import without_folders
    from moss_train.bench.train.tables import Table
    from moss_train.checkpoint.description import write_atomically
    from moss_train.config.compose import compose

    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device is cuda, but torch sees no CUDA device; use --device cpu")
    ways = ways_of(pairs)
    for way in ways:
        compose([*way.overrides, *arguments.overrides])  # what a run would refuse is told once, before any begins
    runs = all_runs(ways, seeds, steps)
    on_gpu = torch.cuda.is_available() and arguments.device != "cpu"
    head = {
        **surroundings(VERSIONS, torch.device("cuda" if on_gpu else "cpu")), "parallel": parallel, "limit_seconds": limit,
        "overrides": arguments.overrides,
        "ways": {way.name: {"overrides": way.overrides, "samples": way.samples, "rate": way.rate,
                            "micro_batches": way.micro_batches} for way in ways},
    }  # fmt: skip

    def keep() -> None:
        """Behind every run and now and then, so that what ends the command later takes nothing."""
        if arguments.out is not None:
            write_atomically(arguments.out, json.dumps(without_folders({**head, **_content(pairs, runs)})) + "\n")

    logs = None if arguments.out is None else arguments.out.with_suffix("")
    try:
        with tempfile.TemporaryDirectory(prefix="moss-convergence-") as folder:
            run_all(
                runs, Path(folder), parallel=parallel, device=arguments.device, limit=limit, more=arguments.overrides, say=_say,
                logs=logs, keep=keep, keep_seconds=keep_seconds,
            )  # fmt: skip
        keep()
    finally:  # also of what there is where the command was told to end
        content = _content(pairs, runs)
        show_tables(Table(table["title"], tuple(table["header"]), table["rows"]) for table in content["tables"])
        if arguments.plot is not None:
            _plot(arguments.plot, pairs, runs)
    return int(any("failed" in pair for pair in content["pairs"]))


def _content(pairs: list[str], runs: list[Any]) -> dict[str, Any]:
    """Comparisons, curves and tables of what has run so far."""
    from moss_train.bench.convergence.compare import compare

    found = [compare(pair, runs) for pair in pairs]
    curves = [
        {
            "way": r.way.name, "seed": r.seed, "steps": len(r.losses), "asked": r.steps, "seconds": round(r.seconds, 2),
            "build_seconds": r.build_seconds, "trouble": r.trouble, "losses": r.losses, "norms": r.norms,
        }
        for r in runs
    ]  # fmt: skip
    return {"tables": _tables(found, runs), "pairs": found, "runs": curves}


def _tables(found: list[dict[str, Any]], runs: list[Any]) -> list[dict[str, Any]]:
    rows = []
    for pair in found:
        if "failed" in pair:
            rows.append([pair["pair"], _short(pair["failed"]), *[""] * (len(HEADER) - 2)])
            continue
        last = pair["last"]
        rows.append([
            f"{pair['of']} against {pair['against']}", f"{pair['steps']:,} of {pair['asked']:,}",
            "/".join(map(str, pair["seeds"])),
            f"{last['mean']:.4f} ± {_number(last['deviation'])}", f"{last['against']:.4f} ± {_number(last['deviation_against'])}",
            f"{last['difference']:+.4f} ({100 * last['relative']:+.2f} %)", _number(last["spread"]),
            {None: "one seed", True: "yes", False: "no"}[pair["within_spread"]], f"{pair['agrees_to']:,}",
            f"{_number(last['standard_errors'], 2)} (noise to {_number(last['bound'], 2)})",
            f"{pair['windows_within_noise']} of {len(pair['windows'])}",
        ])  # fmt: skip
    each = [
        [
            r.name,
            f"{len(r.losses):,} of {r.steps:,}",
            f"{r.seconds:.0f}",
            f"{r.losses[-1]:.4f}" if r.losses else "–",
            _short(r.trouble or ""),
        ]
        for r in runs
    ]
    return [
        {"title": "means of the last tenth of the steps", "header": list(HEADER), "rows": rows},
        {"title": "runs", "header": ["", "steps", "seconds", "last loss", ""], "rows": each},
    ]


def _short(trouble: str) -> str:
    """The end of what a process said, where a table has room for it: what went wrong is in the last line."""
    return trouble if len(trouble) <= _SHOWN else f"{trouble[: _SHOWN // 4]} … {' '.join(trouble[-_SHOWN // 2 :].split())}"


def _number(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _plot(path: Path, pairs: list[str], runs: list[Any]) -> None:
    """A chart for each pair, a line for each run."""
    from moss_train.bench.convergence.configs import PAIRS
    from moss_train.report.chart import Series, line_chart

    for pair in pairs:
        drawn = [
            Series(run.name, range(1, len(run.losses) + 1), run.losses)
            for name in PAIRS[pair]
            for run in runs
            if run.way.name == name and run.losses
        ]
        if drawn:
            of, against = PAIRS[pair]
            target = path.with_name(f"{path.stem}-{pair}.svg")
            target.write_text(line_chart(f"loss, {of} against {against}", drawn, log=True), encoding="utf-8")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
