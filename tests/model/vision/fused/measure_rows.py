"""Each row kernel at the 11B model's sizes: right in bf16, its microseconds, and its share of a copy's bandwidth.

Usage, on a GPU: python -m tests.model.vision.fused.measure_rows [--frames 32] [--launches] [--json OUT.json]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.kernels import whole_rows
from model.kernels.rows import Launch as Whole
from model.vision.fused import rows, rows_fp8, rows_torch, turn
from model.vision.fused.kernels import add, columns, gelu_backward, gelu_gradient, norm_backward, sums
from model.vision.fused.kernels.persistent import Launch

WIDTH, INNER, TOKENS, EPS = 1280, 5120, 1608, 1e-5


@dataclass
class Case:
    """A kernel on its operands."""

    name: str
    moved: int
    """Bytes read and written."""
    call: Callable[..., Any]
    expected: Callable[[], list[Tensor]]
    """The same results, in any dtype."""
    launches: tuple[Any, ...]
    launched: Callable[[Any], Any]
    """The call with one of the launches."""


@dataclass
class Measured:
    """What was found of one."""

    name: str
    launch: str
    microseconds: float
    share: float
    """Of the bandwidth of a copy."""
    error: float
    """Largest difference as a part of the largest value, over the results."""


def _seconds(call: Callable[[], Any], repeats: int = 20) -> float:
    """Of one call, by the device's clock; every call finds other bytes in the cache than it needs, as these are larger."""
    for _ in range(3):
        call()
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    events[0].record()
    for _ in range(repeats):
        call()
    events[1].record()
    torch.cuda.synchronize()
    return float(events[0].elapsed_time(events[1])) / 1e3 / repeats


def _flat(found: Any) -> Iterator[Tensor]:
    """Every tensor of a result; fp8 rows as the numbers that they stand for."""
    if isinstance(found, rows_fp8.Rounded):
        yield found.rows.float() * found.scale
    elif isinstance(found, turn.Turned):
        yield (found.columns.float() * found.scale).t()
    elif isinstance(found, Tensor):
        yield found
    elif isinstance(found, tuple):
        for part in found:
            yield from _flat(part)


def _error(found: Any, expected: list[Tensor]) -> float:
    parts = list(_flat(found))
    if len(parts) != len(expected):
        raise SystemExit(f"{len(parts)} results where {len(expected)} were expected")
    worst = 0.0
    for ours, theirs in zip(parts, expected, strict=True):
        if ours.shape != theirs.shape:
            raise SystemExit(f"a result has shape {list(ours.shape)} instead of {list(theirs.shape)}")
        worst = max(worst, float((ours.float() - theirs.float()).abs().max() / theirs.float().abs().max().clamp_min(1e-20)))
    return worst


class Operands:
    """Random operands of `count` rows."""

    def __init__(self, count: int) -> None:
        self.count = count
        generator = torch.Generator("cuda").manual_seed(0)

        def drawn(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, device="cuda", dtype=torch.bfloat16)

        self.x, self.y, self.dy, self.dtotal = (drawn(count, WIDTH) for _ in range(4))
        self.pre, self.da = drawn(count, INNER), drawn(count, INNER)
        self.joint = drawn(count, 3 * WIDTH)
        self.weight, self.shift, self.bias = drawn(3, WIDTH)
        self.wide_bias, self.gate = drawn(INNER), torch.tensor([0.7], device="cuda", dtype=torch.bfloat16)
        self.mean, self.rstd = rows_torch.norm(self.x, self.weight, self.shift, EPS)[1:]


def _norms(o: Operands) -> list[Case]:
    one = o.count * WIDTH  # elements of a state
    parameters = (o.weight, o.shift, EPS)
    whole = tuple(Whole(*shape) for shape in [(1, 1), (1, 2), (2, 2), (4, 4)])
    normed = rows_torch.norm

    def sum_and_norm(launch: Whole) -> Any:
        return whole_rows.norm_rows(o.x, o.y, None, o.gate, *parameters, told=True, launch=launch)

    def gradients(launch: Launch) -> Any:
        return norm_backward.norm_backward(o.dy, o.x, o.mean, o.rstd, o.weight, o.dtotal, launch)

    persistent = tuple(
        Launch(*shape)
        for shape in [(2, 4, 4, 3), (2, 4, 4, 2), (2, 4, 3, 1), (1, 2, 6, 3), (4, 8, 2, 1), (4, 4, 2, 2), (2, 4, 8, 3)]
    )
    return [
        Case(
            "norm", 4 * one, lambda: rows.norm(o.x, *parameters), lambda: [*normed(o.x, *parameters)], whole,
            lambda launch: whole_rows.norm_rows(o.x, None, None, None, *parameters, told=True, launch=launch),
        ),
        Case(
            "norm_again", 4 * one, lambda: rows.norm_again(o.x, o.mean, o.rstd, o.weight, o.shift),
            lambda: [normed(o.x, *parameters)[0]], (), lambda _: None,
        ),
        Case(
            "add", 6 * one, lambda: rows.add(o.x, o.y, o.bias, None), lambda: [o.x + (o.y + o.bias)], whole,
            lambda launch: add.add(o.x, o.y, o.bias, None, launch),
        ),
        Case(
            "add_norm", 8 * one, lambda: rows.add_norm(o.x, o.y, None, o.gate, *parameters),
            lambda: [*rows_torch.add_norm(o.x, o.y, None, o.gate, *parameters)], whole, sum_and_norm,
        ),
        Case(
            "norm_backward", 8 * one, lambda: rows.norm_backward(o.dy, o.x, o.mean, o.rstd, o.weight, o.dtotal),
            lambda: [*rows_torch.norm_backward(o.dy, o.x, o.mean, o.rstd, o.weight, o.dtotal)], persistent, gradients,
        ),
    ]  # fmt: skip


def _others(o: Operands) -> list[Case]:
    one, inner = o.count * WIDTH, o.count * INNER

    def expected() -> list[Tensor]:
        dpre, a, dbias = rows_torch.gelu_backward(o.da, o.pre, o.wide_bias)
        assert dbias is not None
        return [dpre, a, dbias]

    def both(scales: Any) -> Callable[[Launch], Any]:
        return lambda launch: gelu_backward.gelu_backward(o.da, o.pre, o.wide_bias, scales, launch=launch)

    shapes = [(1, 8, 2, 1), (1, 8, 2, 2), (1, 8, 2, 3), (1, 16, 2, 1), (1, 16, 2, 2), (1, 4, 2, 2), (1, 16, 1, 2)]
    persistent = tuple(Launch(*shape) for shape in shapes)
    summing = tuple(
        Launch(*shape) for shape in [(4, 4, 8, 1), (4, 4, 8, 3), (2, 4, 8, 3), (2, 4, 16, 1), (8, 8, 4, 1), (1, 1, 32, 1)]
    )
    rounding = tuple(Launch(*shape) for shape in [(4, 4, 5, 1), (4, 4, 5, 2), (2, 4, 8, 2), (2, 4, 8, 1), (4, 8, 3, 1)])
    return [
        Case(
            "column_sums", 2 * one, lambda: rows.column_sums(o.dtotal), lambda: [o.dtotal.float().sum(0)], summing,
            lambda launch: sums.column_sums(o.dtotal, launch=launch),
        ),
        Case(
            "gelu", 4 * inner, lambda: rows.gelu(o.pre, o.wide_bias), lambda: [rows_torch.gelu(o.pre, o.wide_bias)],
            tuple(Whole(*shape) for shape in [(1, 4), (1, 8), (1, 2)]),
            lambda launch: whole_rows.gelu_rows(o.pre, o.wide_bias, launch=launch),
        ),
        Case("gelu_backward", 8 * inner, lambda: rows.gelu_backward(o.da, o.pre, o.wide_bias), expected, persistent, both(None)),
        Case(
            "fp8 gelu_backward", 6 * inner, lambda: rows_fp8.gelu_backward(o.da, o.pre, o.wide_bias), expected, persistent,
            both("powers"),
        ),
        Case(
            "fp8 gelu", 3 * inner, lambda: rows_fp8.gelu(o.pre, o.wide_bias), lambda: [rows_torch.gelu(o.pre, o.wide_bias)],
            tuple(Whole(*shape) for shape in [(1, 4), (1, 8), (1, 2)]),
            lambda launch: whole_rows.gelu_rows(o.pre, o.wide_bias, "powers", launch),
        ),
        Case(
            "fp8 round", 3 * one, lambda: rows_fp8.round_rows(o.x), lambda: [o.x],
            tuple(Whole(*shape) for shape in [(1, 1), (1, 2), (4, 4)]),
            lambda launch: whole_rows.round_rows(o.x, "powers", launch),
        ),
        Case(
            "fp8 round, 3840 wide", 9 * one, lambda: rows_fp8.round_rows(o.joint), lambda: [o.joint],
            tuple(Whole(*shape) for shape in [(1, 4), (1, 2), (1, 8), (1, 1)]),
            lambda launch: whole_rows.round_rows(o.joint, "powers", launch),
        ),
        Case(
            "fp8 round_summed", 3 * one, lambda: rows_fp8.round_rows_summed(o.dtotal),
            lambda: [o.dtotal, o.dtotal.float().sum(0)], rounding,
            lambda launch: sums.column_sums(o.dtotal, "powers", launch),
        ),
        Case(
            "fp8 add_norm", 7 * one, lambda: rows_fp8.add_norm(o.x, o.y, None, o.gate, o.weight, o.shift, EPS),
            lambda: [*rows_torch.add_norm(o.x, o.y, None, o.gate, o.weight, o.shift, EPS)],
            tuple(Whole(*shape) for shape in [(1, 1), (1, 2), (4, 4)]),
            lambda launch: whole_rows.norm_rows(
                o.x, o.y, None, o.gate, o.weight, o.shift, EPS, "powers", told=True, launch=launch
            ),
        ),
        Case(
            "fp8 norm_again", 3 * one, lambda: rows_fp8.norm_again(o.x, o.mean, o.rstd, o.weight, o.shift),
            lambda: [rows_torch.norm(o.x, o.weight, o.shift, EPS)[0]], (), lambda _: None,
        ),
    ]  # fmt: skip


def _columns(o: Operands) -> list[Case]:
    """What fp8 weight gradients take."""
    one, inner, filled = o.count * WIDTH, o.count * INNER, o.count  # a multiple of 16
    norm = (o.x, o.mean, o.rstd, o.weight, o.shift)
    of_x, of_norm = (turn.largest(rows_fp8.round_rows(x).scale) for x in (o.x, rows.norm_again(*norm)))
    of_gelu = turn.largest(rows_fp8.gelu(o.pre, o.wide_bias).scale)
    rounded = rows_fp8.round_rows(o.pre)
    shapes = tuple(
        columns.Launch(*s) for s in [(128, 64, 8), (128, 64, 4), (64, 64, 4), (128, 128, 8), (128, 32, 4), (256, 32, 8)]
    )
    gradient = tuple(Launch(*s) for s in [(1, 8, 3, 2), (1, 8, 3, 1), (1, 8, 4, 1), (1, 4, 4, 2), (1, 4, 4, 1), (1, 8, 2, 3)])

    def dpre() -> list[Tensor]:
        found, _, dbias = rows_torch.gelu_backward(o.da, o.pre, o.wide_bias)
        assert dbias is not None
        return [found, dbias]

    return [
        Case(
            "fp8 gelu_gradient", 5 * inner, lambda: rows_fp8.gelu_gradient(o.da, o.pre, o.wide_bias), dpre, gradient,
            lambda launch: gelu_gradient.gelu_gradient(o.da, o.pre, o.wide_bias, launch),
        ),
        Case(
            "fp8 gelu_columns", 3 * inner, lambda: turn.gelu_columns(o.pre, o.wide_bias, of_gelu),
            lambda: [rows_torch.gelu(o.pre, o.wide_bias)], shapes,
            lambda launch: columns.gelu_columns(o.pre, o.wide_bias, of_gelu, filled, launch),
        ),
        Case(
            "fp8 norm_columns", 3 * one, lambda: turn.norm_columns(*norm, of_norm), lambda: [rows_torch.norm_again(*norm)],
            shapes, lambda launch: columns.norm_columns(*norm, of_norm, filled, launch),
        ),
        Case(
            "fp8 columns", 3 * one, lambda: turn.columns(o.x, of_x), lambda: [o.x], shapes,
            lambda launch: columns.columns(o.x, of_x, filled, launch),
        ),
        Case("fp8 turn", 2 * inner, lambda: turn.turn(rounded.rows, rounded.scale), lambda: [o.pre], (), lambda _: None),
    ]  # fmt: skip


def measure(frames: int, launches: bool) -> tuple[float, list[Measured]]:
    """Bytes a second of a copy, and every kernel's numbers."""
    o = Operands(frames * TOKENS)
    copy = 4 * o.pre.numel() / _seconds(lambda: o.da.clone())
    found = []
    for case in _norms(o) + _others(o) + _columns(o):
        expected = case.expected()
        error = _error(case.call(), expected)
        del expected
        tried: list[tuple[str, Callable[[], Any]]] = [("as set", case.call)]
        if launches:
            tried += [(str(tuple(launch)), partial(case.launched, launch)) for launch in case.launches]
        for name, call in tried:
            seconds = _seconds(call)
            found.append(Measured(case.name, name, seconds * 1e6, case.moved / seconds / copy, error))
            print(
                f"{case.name:22} {name:16} {seconds * 1e6:8.1f} us  {found[-1].share:6.1%} of a copy  error {error:.1e}",
                flush=True,
            )
    return copy, found


def main() -> None:
    """Prints the table; fails where a kernel is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--launches", action="store_true", help="compare (rows, warps[, programs, stages])")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    copy, found = measure(arguments.frames, arguments.launches)
    device = torch.cuda.get_device_name()
    print(f"{device}, {arguments.frames} frames of {TOKENS} rows, copy {copy / 1e12:.2f} TB/s")
    if arguments.json:
        told = {"device": device, "frames": arguments.frames, "copy": copy, "kernels": [asdict(one) for one in found]}
        arguments.json.write_text(json.dumps(told, indent=1))
    # Two units in the last place of bf16; half a unit of fp8, which is up to 2^-4 of a value.
    wrong = [one.name for one in found if not one.error <= (0.07 if one.name.startswith("fp8") else 0.008)]
    if wrong:
        sys.exit(f"wrong: {', '.join(sorted(set(wrong)))}")


if __name__ == "__main__":
    main()
