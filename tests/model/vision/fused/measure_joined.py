"""Times products joined with what follows them against a product and a row kernel, at the widths of 11B on a GPU.

    python -m tests.model.vision.fused.measure_joined [--frames 32] [--tiles] [--json OUT.json]

Forms take turns in rounds of a quarter of a second, so all meet the same clock. `--tiles` tries other tiles, which compile for
3 seconds each.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.vision.fused import joined, rows
from model.vision.fused.joined import TILES, Tile

TOKENS, WIDTH, INNER, EPS = 1608, 1280, 5120, 1e-5
ROUNDS, SECONDS = 4, 0.25
OTHERS = [Tile(128, 256, False), Tile(256, 160, False), Tile(128, 192, True), Tile(128, 160, True), Tile(256, 128, False)]


def mean_milliseconds(call: Callable[[], Any], repeats: int) -> float:
    """Of one call, of many in a row on a GPU."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / repeats


def compare(forms: dict[str, Callable[[], Any]]) -> dict[str, float | str]:
    """Median milliseconds of each, in turns; a sentence where one fails."""
    found: dict[str, float | str] = {}
    alive: dict[str, Callable[[], Any]] = {}
    for name, call in forms.items():
        try:
            mean_milliseconds(call, 3)
            alive[name] = call
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"[:400]
    repeats = {name: max(5, int(SECONDS * 1e3 / mean_milliseconds(call, 5))) for name, call in alive.items()}
    times: dict[str, list[float]] = {name: [] for name in alive}
    for _ in range(ROUNDS):
        for name, call in alive.items():
            times[name].append(mean_milliseconds(call, repeats[name]))
    return found | {name: statistics.median(told) for name, told in times.items()}


def _error(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected.float()).abs().max() / expected.float().abs().max())


def measure(frames: int, tiles: bool) -> dict[str, Any]:
    """Every joined product against its parts."""
    count = frames * TOKENS

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, device="cuda", dtype=torch.bfloat16)

    x, total, wide = drawn(count, WIDTH), drawn(count, WIDTH), drawn(count, INNER)
    o, fc1, fc2 = drawn(WIDTH, WIDTH) / 36, drawn(INNER, WIDTH) / 36, drawn(WIDTH, INNER) / 72
    weight, shift, bias = drawn(3, WIDTH)
    inner_bias = drawn(INNER)
    ways: list[Tile | None] = [None, *(OTHERS if tiles else [])]

    def add(tile: Tile | None) -> Tensor:
        return joined.quack_sum(wide, fc2, total, bias, tile or TILES["sum"])

    def attention(tile: Tile | None) -> tuple[Tensor, ...]:
        return rows.norm(joined.quack_sum(x, o, total, None, tile or TILES["sum"]), weight, shift, EPS)

    def gelu(tile: Tile | None) -> Tensor:
        return joined.quack_gelu(x, fc1, inner_bias, tile or TILES["gelu"])

    def gradient(tile: Tile | None) -> tuple[Tensor, ...]:
        return joined.quack_gradient(x, fc2, wide, inner_bias, tile or TILES["gradient"])

    cases: dict[str, tuple[Callable[[], Any], Callable[[Tile | None], Any], Callable[[], Any], float]] = {
        "fc2 and sum": (
            lambda: rows.add(total, torch.mm(wide, fc2.t()), bias, None), add, lambda: torch.mm(wide, fc2.t()), WIDTH * INNER
        ),
        "o, sum and norm": (
            lambda: rows.add_norm(total, torch.mm(x, o.t()), None, None, weight, shift, EPS), attention,
            lambda: torch.mm(x, o.t()), WIDTH * WIDTH,
        ),
        "fc1 and gelu": (
            lambda: rows.gelu(torch.mm(x, fc1.t()), inner_bias), gelu, lambda: torch.mm(x, fc1.t()), WIDTH * INNER
        ),
        "gradient of gelu": (
            lambda: rows.gelu_backward(torch.mm(x, fc2), wide, inner_bias), gradient, lambda: torch.mm(x, fc2), WIDTH * INNER
        ),
    }  # fmt: skip
    result: dict[str, Any] = {"device": torch.cuda.get_device_name(), "frames": frames}
    for name, (apart, together, alone, size) in cases.items():
        forms: dict[str, Callable[[], Any]] = {"product alone": alone, "apart": apart}
        forms |= {f"joined {tuple(way) if way else ''}": (lambda t=way, f=together: f(t)) for way in ways}
        told = compare(forms)
        flops = 2.0 * count * size
        for form, took in told.items():
            line = took if isinstance(took, str) else f"{took:7.3f} ms {flops / took / 1e9:6.0f} TFLOP/s"
            print(f"{name:18} {form:26} {line}", flush=True)
        result[name] = told
    try:
        result["errors"] = {
            "sum": _error(add(None), rows.add(total, torch.mm(wide, fc2.t()), bias, None)),
            "gelu": _error(gelu(None), rows.gelu(torch.mm(x, fc1.t()), inner_bias)),
        }
        print("largest differences as a part of the largest value:", result["errors"])
    except Exception as error:
        result["errors"] = f"{type(error).__name__}: {error}"[:400]
    return result


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--tiles", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result = measure(arguments.frames, arguments.tiles)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
