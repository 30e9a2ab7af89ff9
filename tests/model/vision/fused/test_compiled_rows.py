"""The row kernels as Triton's own compiler makes them for Hopper at the 11B model's sizes, without a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from model.kernels.compile_only import Compiled, compile_only, has_compiler
from model.vision.fused import rows, rows_fp8, turn

pytestmark = pytest.mark.skipif(not has_compiler(), reason="this build of triton carries no ptxas")
WIDTH, INNER, ROWS = 1280, 5120, 8 * 1608
EPS = 1e-5


def _rows(width: int) -> Tensor:
    return torch.empty(ROWS, width, device="meta", dtype=torch.bfloat16)


def _vector(width: int) -> Tensor:
    return torch.empty(width, device="meta", dtype=torch.bfloat16)


def _compiled(calls: Iterable[Callable[[], object]]) -> list[Compiled]:
    with compile_only() as found:
        for call in calls:
            call()
    return found


def _calls() -> dict[str, Callable[[], object]]:
    """Every function as the tower calls it, plain and in fp8."""
    x, inner, vector, gate = _rows(WIDTH), _rows(INNER), _vector(WIDTH), _vector(1)
    wide, told, common = _vector(INNER), torch.empty(ROWS, device="meta"), torch.empty(1, device="meta")
    return {
        "norm": lambda: rows.norm(x, vector, vector, EPS),
        "norm_again": lambda: rows.norm_again(x, told, told, vector, vector),
        "add": lambda: rows.add(x, x, vector, None),
        "add_gated": lambda: rows.add(x, x, vector, gate),
        "add_norm": lambda: rows.add_norm(x, x, None, None, vector, vector, EPS),
        "add_norm_gated": lambda: rows.add_norm(x, x, None, gate, vector, vector, EPS),
        "norm_backward": lambda: rows.norm_backward(x, x, told, told, vector, None),
        "norm_backward_on": lambda: rows.norm_backward(x, x, told, told, vector, x),
        "column_sums": lambda: rows.column_sums(x),
        "gelu": lambda: rows.gelu(inner, wide),
        "gelu_backward": lambda: rows.gelu_backward(inner, inner, wide),
        "fp8_round": lambda: rows_fp8.round_rows(x),
        "fp8_round_joint": lambda: rows_fp8.round_rows(_rows(3 * WIDTH)),
        "fp8_round_summed": lambda: rows_fp8.round_rows_summed(x),
        "fp8_norm": lambda: rows_fp8.norm(x, vector, vector, EPS),
        "fp8_norm_again": lambda: rows_fp8.norm_again(x, told, told, vector, vector, plain=True),
        "fp8_add_norm": lambda: rows_fp8.add_norm(x, x, None, None, vector, vector, EPS),
        "fp8_gelu": lambda: rows_fp8.gelu(inner, wide),
        "fp8_gelu_backward": lambda: rows_fp8.gelu_backward(inner, inner, wide),
        "fp8_gelu_gradient": lambda: rows_fp8.gelu_gradient(inner, inner, wide),
        "fp8_columns": lambda: turn.columns(x, common),
        "fp8_norm_columns": lambda: turn.norm_columns(x, told, told, vector, vector, common),
        "fp8_gelu_columns": lambda: turn.gelu_columns(inner, wide, common),
        "fp8_gelu_backward_plain": lambda: rows_fp8.gelu_backward(inner, inner, wide, plain=True),
    }


@pytest.mark.parametrize("name", sorted(_calls()))
def test_nothing_is_spilled_and_many_rows_are_on_their_way(name: str) -> None:
    found = _compiled([_calls()[name]])
    assert found
    for kernel in found:
        assert not kernel.spills, kernel.line()
        assert kernel.at_once * kernel.threads >= 256, kernel.line()
        # A kernel that sums for parameters runs all its programs at once, so none waits for others' registers.
        if "STAGES" in kernel.constants:
            assert kernel.programs % 132 == 0 and kernel.programs <= kernel.at_once * 132, kernel.line()
