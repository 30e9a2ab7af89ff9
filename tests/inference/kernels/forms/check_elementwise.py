"""Norms, rotation and writing into pages in Triton: the bits of the torch forms in bf16, 1e-6 in fp32."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from inference.kernels.gates import silu_and_multiply
from inference.kernels.heads import norm_rotate, rotate_and_store, store_frames
from inference.kernels.norms import add_rms_norm, rms_norm
from model.kernels.select import Form
from tests.inference.kernels.forms.where import DEVICE, INTERPRETED

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


def _same(run: Callable[[Form], list[torch.Tensor]], dtype: torch.dtype) -> bool:
    # A GPU's square root and sums of other order may move a norm by one unit in the last place.
    exact = INTERPRETED and dtype != torch.float32
    tolerance = 1e-6 if dtype == torch.float32 else 1e-2
    for expected, found in zip(run("torch"), run("triton"), strict=True):
        coarse = found.dtype == torch.float8_e4m3fn  # a last bit in fp32 may turn a rounding
        absolute, relative = (0.0, 0.0) if exact else (32, 0.125) if coarse else (tolerance, tolerance)
        torch.testing.assert_close(found.float(), expected.float(), atol=absolute, rtol=relative)
    return True


@DTYPES
@pytest.mark.parametrize("gate", [0, 1, 3])
def test_norms(gate: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    residual, x = torch.randn(2, 3, 96, device=DEVICE).to(dtype)
    weight = torch.rand(96, device=DEVICE).to(dtype)
    factor = torch.rand(gate, device=DEVICE).to(dtype) if gate else None

    def run(form: Form) -> list[torch.Tensor]:
        return [*add_rms_norm(residual, x, weight, 1e-5, factor, form=form), rms_norm(x, weight, 1e-5, form=form)]

    assert _same(run, dtype)


@DTYPES
def test_the_gate_of_an_mlp(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    gate_up = torch.randn(2, 2 * 40, device=DEVICE).to(dtype)
    assert _same(lambda form: [silu_and_multiply(gate_up, form=form)], dtype)


@DTYPES
@pytest.mark.parametrize("fp8", [False, True], ids=["dense", "fp8"])
def test_heads(fp8: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    count, heads, kv_heads, dim, page_rows, pages = 3, 2, 1, 24, 4, 4
    qkv = torch.randn(count, (heads + 2 * kv_heads) * dim, device=DEVICE).to(dtype)
    angles = torch.randn(count, dim // 2, device=DEVICE).repeat(1, 2)
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    weight = torch.rand(dim, device=DEVICE).to(dtype)
    kv = torch.randn(2 * page_rows, 2 * kv_heads * dim, device=DEVICE).to(dtype)
    frame_slots = torch.cat([torch.arange(8, 12), torch.arange(4, 8)]).to(DEVICE)

    def run(form: Form) -> list[torch.Tensor]:
        kind = torch.float8_e4m3fn if fp8 else dtype
        found: list[torch.Tensor] = []
        for frames in (False, True):
            keys, values = (torch.zeros(pages, page_rows, kv_heads, dim, device=DEVICE).to(kind) for _ in range(2))
            raw = torch.zeros(pages, page_rows, kv_heads, dim, device=DEVICE, dtype=dtype)
            scales = torch.zeros(2, pages, page_rows, kv_heads, device=DEVICE) if fp8 else None
            if frames:
                store_frames(
                    kv, cos[:2], sin[:2], weight, 1e-5, keys, values, frame_slots, scales=scales, raw_keys=raw, form=form
                )
            else:
                slots = torch.tensor([3, 15, 8], device=DEVICE)
                found.append(rotate_and_store(qkv, cos, sin, keys, values, slots, scales=scales, raw_keys=raw, form=form))
            found += [keys, values, raw] + ([] if scales is None else [scales])
        queries = qkv.view(count, -1, dim)[:, :heads].contiguous()
        return [*found, norm_rotate(queries, weight, 1e-5, cos, sin, form=form)]

    assert _same(run, dtype)
