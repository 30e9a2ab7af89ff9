"""The kernels of the update as Triton's own compiler makes them for Hopper, without a GPU."""

from __future__ import annotations

import itertools

import pytest
import torch

pytest.importorskip("triton")

from model.kernels.compile_only import Compiled, compile_only, has_compiler
from moss_train.platform.fused_adam_triton import ALONE, COLUMNS, REMAINDER, WHOLE, launch_adam, launch_squares

pytestmark = pytest.mark.skipif(not has_compiler(), reason="this build of triton carries no ptxas")
FP32, BF16 = torch.float32, torch.bfloat16
SCALARS = (0.5, 1e-3, 0.9, 0.98, 0.1, 0.02, 10.0, 50.0, 1e-8, 0.01)


def compiled() -> list[Compiled]:
    """Every kind of states, aligned and not, for 11B's number of pieces."""
    table = torch.empty(163_000, COLUMNS, dtype=torch.int64, device="meta")  # [pieces, columns]
    weights = ((FP32, ALONE), (BF16, REMAINDER), (BF16, WHOLE))
    with compile_only() as found:
        for gradient, (weight, beside), moment, aligned in itertools.product((BF16, FP32), weights, (BF16, FP32), (True, False)):
            launch_adam(table, SCALARS, (gradient, weight, moment, moment), beside, True, aligned)
        for gradient, aligned in itertools.product((BF16, FP32), (True, False)):
            launch_squares(table, gradient, aligned)
    return found


def test_all_fits_into_registers() -> None:
    found = compiled()
    assert {kernel.name for kernel in found} == {"_adam", "_squares"}
    for kernel in found:
        assert kernel.stack == 0, kernel.line()
        assert kernel.at_once * kernel.threads >= 640, kernel.line()  # 80 bytes a thread on their way: 50 KB a multiprocessor


if __name__ == "__main__":
    print("\n".join(kernel.line() for kernel in compiled()))
