"""`python -m inference.benchmark.sampling --out FILE`: sampling and fp8 products as a decoding step has them, by graph replays.

Sampling is timed for each kind of arithmetic and number of sessions, at 128,256 tokens; products with gate and up, joined,
of the 11B model, for 1 to 577 rows, in bf16 and in fp8, with the rounding of rows that fp8 takes beyond 16. `--dry-run` lists the
cases; it needs no GPU.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from inference.benchmark.kernels import time_form
from inference.benchmark.roofline import H200
from inference.commands import exit_code
from inference.model.linear import DenseLinear
from inference.quantize import Fp8Linear
from inference.sampling import GraphSampler, Sampler, SamplingConfig
from model.errors import InputError

VOCABULARY = 128_256
SESSIONS = (1, 16, 64)
ROWS = (1, 4, 16, 17, 64, 577)
OUT, IN = 28_672, 4096
"""Of gate and up, joined."""
SETTINGS = {
    "greedy": SamplingConfig(),
    "greedy, silence threshold": SamplingConfig(silence_threshold=0.3),
    "greedy, penalty": SamplingConfig(repetition_penalty=1.1),
    "all tokens": SamplingConfig(do_sample=True),
    "top-k 50": SamplingConfig(do_sample=True, top_k=50),
    "top-k 1000, top-p": SamplingConfig(do_sample=True, top_k=1000, top_p=0.9),
    "top-p alone": SamplingConfig(do_sample=True, top_p=0.9),
}

Work = Callable[[int], Any]


@dataclass(frozen=True)
class Case:
    """One thing to time."""

    name: str
    rows: int
    num_bytes: int
    """Read at the least: logits, or the weight."""
    make: Callable[[torch.device], Work]


def cases() -> list[Case]:
    """All of them."""
    found = [
        Case(f"sampling, {name}", rows, rows * VOCABULARY * 5, functools.partial(_sampling, config, rows))
        for name, config in SETTINGS.items()
        for rows in SESSIONS
    ]
    for rows in ROWS:
        found.append(Case("gate and up, bf16", rows, 2 * OUT * IN, functools.partial(_product, rows, False)))
        found.append(Case("gate and up, fp8", rows, OUT * IN, functools.partial(_product, rows, True)))
    return found


def _sampling(config: SamplingConfig, rows: int, device: torch.device) -> Work:
    samplers = [Sampler(config, banned=[128_011], silence_id=128_012, silenced=[128_009]) for _ in range(rows)]
    buffers = GraphSampler(rows, VOCABULARY, device)
    path = buffers.load(samplers)
    logits = 3 * torch.randn(rows, VOCABULARY, device=device)
    return lambda _: buffers.sample(logits, path)


def _product(rows: int, fp8: bool, device: torch.device) -> Work:
    # Two weights in turn: more than the cache holds.
    weights = [torch.randn(OUT, IN, device=device, dtype=torch.bfloat16) / 64 for _ in range(2)]
    matrices = [Fp8Linear.of(weight) if fp8 else DenseLinear(weight) for weight in weights]
    x = torch.randn(rows, IN, device=device, dtype=torch.bfloat16)
    return lambda turn: matrices[turn](x)


def measure(case: Case, device: torch.device) -> dict[str, Any]:
    """Microseconds of one call, and what reading its bytes would take."""
    floor = case.num_bytes / H200.bytes_per_second * 1e6
    entry: dict[str, Any] = {"name": case.name, "rows": case.rows, "bytes": case.num_bytes, "floor_us": round(floor, 3)}
    try:
        with torch.inference_mode():
            times = time_form(case.make(device), 2, floor)
    except Exception as error:
        # One case that a build of torch lacks must not lose the others' times.
        return entry | {"error": f"{type(error).__name__}: {error}"[:400]}
    return entry | {"us": round(statistics.median(times), 3), "us_all": [round(t, 3) for t in times]}


def run(argv: Sequence[str] | None = None) -> None:
    """The command.

    Raises:
        InputError: no CUDA device, or no file to write to.
    """
    parser = argparse.ArgumentParser(prog="python -m inference.benchmark.sampling", description=__doc__)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--dry-run", action="store_true", help="list the cases and their bytes; needs no GPU")
    parser.add_argument(
        "--limit-seconds", type=float, default=85.0, metavar="N", help="cases that would begin later are left out and named"
    )
    args = parser.parse_args(argv)
    if args.dry_run:
        for case in cases():
            floor = case.num_bytes / H200.bytes_per_second * 1e6
            print(f"{case.name}, {case.rows} rows: {case.num_bytes / 1e6:.2f} MB, at least {floor:.1f} us")
        return
    if args.out is None or not args.out.resolve().parent.is_dir():
        raise InputError(f"--out is {args.out}; name a file in a folder that exists, or use --dry-run")
    if not torch.cuda.is_available():
        raise InputError("no CUDA device is there to measure on; use --dry-run to list the cases")
    device = torch.device("cuda", torch.cuda.current_device())
    begun = time.monotonic()
    content: dict[str, Any] = {"device": torch.cuda.get_device_name(device), "torch": torch.__version__}
    content |= {"cases": [], "left_out": []}
    for case in cases():
        if time.monotonic() - begun > args.limit_seconds:
            content["left_out"].append(f"{case.name}, {case.rows} rows")
        else:
            content["cases"].append(measure(case, device))
            print({key: value for key, value in content["cases"][-1].items() if key != "us_all"}, flush=True)
        args.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(exit_code("sampling", run))
