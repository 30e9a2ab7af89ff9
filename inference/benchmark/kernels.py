"""`python -m inference.benchmark.kernels --out FILE`: each kernel beside its alternatives, by replays of CUDA graphs.

Nothing is chosen here: the file says which form should be the default. The cache is cold: calls go round over more operands than
it holds. `--dry-run` lists what would be measured, with the bytes and the time that they take at the least; it needs no GPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from inference.benchmark.kernel_problems import Dimensions, Form, Problem, problems
from inference.benchmark.roofline import H200
from inference.commands import exit_code
from model.errors import InputError

COLD_BYTES = 120_000_000
"""Operands that calls go round over: more than twice the second-level cache."""
GRAPH_SECONDS = 2e-3
"""About the time of one replay."""
REPLAYS = 7


def copies_of(problem: Problem) -> int:
    """Sets of operands."""
    return max(1, -(-COLD_BYTES // problem.num_bytes)) if problem.group != "elementwise" else 1


def floor_us(problem: Problem) -> float:
    """Microseconds that reading the operands takes at the least."""
    return problem.num_bytes / H200.bytes_per_second * 1e6


def time_form(form: Form, copies: int, floor: float) -> list[float]:
    """Microseconds of one call in each of several replays of one graph of calls, on CUDA."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for i in range(3):
            form(i % copies)
    torch.cuda.current_stream().wait_stream(stream)
    calls = max(copies, min(200, int(GRAPH_SECONDS * 1e6 / max(floor, 5.0))))
    calls -= calls % copies
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(calls):
            form(i % copies)
    graph.replay()
    found = []
    for _ in range(REPLAYS):
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        first.record()
        graph.replay()
        last.record()
        last.synchronize()
        found.append(first.elapsed_time(last) * 1e3 / calls)
    return found


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference, of the largest element."""
    wide = expected.float()
    return float((found.float() - wide).abs().max() / wide.abs().max().clamp(min=1e-30))


def measure(problem: Problem, device: torch.device) -> list[dict[str, Any]]:
    """One entry a form; a form that fails has its error instead of times."""
    copies = copies_of(problem)
    with torch.inference_mode():
        try:
            forms = problem.make(device, torch.bfloat16, copies)
            expected = next(iter(forms.values()))(0)
        except Exception as error:
            # Operands that do not fit, or a first form that fails, must not lose the problems behind.
            return [{"group": problem.group, "name": problem.name, "form": "all", **problem.shape, "error": _short(error)}]
        entries = []
        for name, form in forms.items():
            entry: dict[str, Any] = {"group": problem.group, "name": problem.name, "form": name, **problem.shape}
            entry |= {"bytes": problem.num_bytes, "floor_us": round(floor_us(problem), 3)}
            try:
                apart = difference(form(0), expected)
                times = time_form(form, copies, floor_us(problem))
            except Exception as error:
                # One form that a build of torch or Triton lacks must not lose the others' times.
                entries.append(entry | {"error": _short(error)})
                continue
            us = statistics.median(times)
            entry |= {"us": round(us, 3), "us_all": [round(t, 3) for t in times], "difference": apart}
            # Scattered pages are other keys: their result differs from the first form's by right.
            # The tensor cores' fp8 product rounds the rows too.
            entry["agrees"] = "scattered" in name or apart <= problem.tolerance * (4 if name == "scaled_mm" else 1)
            entry |= {"gb_s": round(problem.num_bytes / us / 1e3, 1), "percent": round(100 * floor_us(problem) / us, 1)}
            entries.append(entry)
    return entries


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:400]


def dry_run(chosen: Sequence[Problem]) -> list[str]:
    """A line for each problem."""
    lines = []
    for problem in chosen:
        sizes = " ".join(f"{name}={value}" for name, value in problem.shape.items())
        copies = copies_of(problem)
        lines.append(
            f"{problem.group}: {problem.name} {sizes}: {problem.num_bytes / 1e6:.2f} MB x {copies}, "
            f"at least {floor_us(problem):.1f} us"
        )
    return lines


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m inference.benchmark.kernels", description=__doc__)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="problems whose group and name contain this, as 'cross' or 'product: qkv'"
    )
    parser.add_argument(
        "--limit-seconds", type=float, default=85.0, metavar="N", help="problems that would begin later are left out and named"
    )
    parser.add_argument(
        "--variants", action="store_true", help="other launches of the Triton forms too (minutes more: they compile)"
    )
    parser.add_argument("--dry-run", action="store_true", help="list the problems and their bytes; needs no GPU")
    return parser.parse_args(argv)


def run(argv: Sequence[str] | None = None) -> None:
    """The command.

    Raises:
        InputError: no CUDA device, no such problem, or no file to write to.
    """
    args = _arguments(argv)
    chosen = [p for p in problems(Dimensions(), variants=args.variants) if args.only in f"{p.group}: {p.name}"]
    if not chosen:
        raise InputError(f"--only {args.only!r} names no problem; see --dry-run for their names")
    if args.dry_run:
        print("\n".join(dry_run(chosen)))
        return
    if args.out is None:
        raise InputError("--out is missing; give the JSON file to write, or --dry-run")
    if not torch.cuda.is_available():
        raise InputError("there is no CUDA device; kernels are timed on a GPU only, --dry-run lists what would be")
    begun = time.monotonic()
    device = torch.device("cuda")
    import triton

    report: dict[str, Any] = {"torch": torch.__version__, "triton": triton.__version__}
    report |= {"device": torch.cuda.get_device_name(device), "bytes_per_second": H200.bytes_per_second}
    report |= {"cases": [], "left_out": []}
    for problem in chosen:
        if time.monotonic() - begun > args.limit_seconds:
            report["left_out"].append(f"{problem.group}: {problem.name} {problem.shape}")
            continue
        for entry in measure(problem, device):
            report["cases"].append(entry)
            result = (
                entry.get("error") or f"{entry['us']:9.1f} us {entry['percent']:5.1f} % {'' if entry['agrees'] else 'DIFFERS'}"
            )
            print(f"{problem.group}: {problem.name} {problem.shape} {entry['form']}: {result}", flush=True)
        with suppress(RuntimeError):  # of a device that broke: what was measured before is written all the same
            torch.cuda.empty_cache()
        _write(args.out, report | {"seconds": round(time.monotonic() - begun, 1)})
    _write(args.out, report | {"seconds": round(time.monotonic() - begun, 1)})


def _write(path: Path, report: dict[str, Any]) -> None:
    scratch = path.with_name(f"{path.name}.part")
    scratch.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    scratch.replace(path)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 2 for input that a user can put right."""
    return exit_code("kernels", lambda: run(argv))


if __name__ == "__main__":
    sys.exit(main())
