"""The torch forms against fp64 said row by row, and against the separate operations that they stand for."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from inference import kernels
from inference.kernels import paged_attention
from inference.kernels.heads import norm_rotate, rotate_and_store, store_frames
from inference.kernels.norms import add_rms_norm, rms_norm
from inference.kernels.skinny import skinny_linear, skinny_swiglu
from inference.kernels.torch_forms import prefix_attention as prefix
from inference.model.linear import DenseLinear, set_products
from inference.model.rows import PagedView
from inference.quantize.rows import quantize_rows
from model.errors import InputError
from model.kernels.select import choose_form
from model.text.rope import apply_rope
from tests.inference.kernels.oracle import FP8, Case, attention, cases


@given(cases())
def test_attention_is_that_of_every_row_alone(case: Case) -> None:
    found = paged_attention(case.queries, case.keys, case.values, None, case.view)
    torch.testing.assert_close(found.double(), attention(case), atol=1e-5, rtol=1e-5)
    assert not found[case.view.limits == 0].any()


@given(cases(fp8=True))
def test_attention_over_fp8_means_stored_times_scale(case: Case) -> None:
    found = paged_attention(case.queries, case.keys, case.values, case.scales, case.view)
    torch.testing.assert_close(found.double(), attention(case), atol=1e-5, rtol=1e-5)


@given(cases(), st.integers(1, 200))
def test_masks_in_blocks_change_nothing(case: Case, elements: int) -> None:
    whole = paged_attention(case.queries, case.keys, case.values, None, case.view)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefix, "_MASK_ELEMENTS", elements)
        torch.testing.assert_close(paged_attention(case.queries, case.keys, case.values, None, case.view), whole)


def test_no_rows() -> None:
    case = Case(torch.zeros(0, 4, 16), torch.zeros(2, 3, 2, 16), torch.zeros(2, 3, 2, 16), None, None)  # type: ignore[arg-type]
    view = PagedView(
        torch.zeros(1, 1, dtype=torch.int32), torch.zeros(0, dtype=torch.int32), torch.zeros(0, dtype=torch.int32), []
    )
    assert paged_attention(case.queries, case.keys, case.values, None, view).shape == (0, 64)


def _rotation(rows: int, dim: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    angles = torch.randn(rows, dim // 2).repeat(1, 2)
    return angles.cos().to(dtype), angles.sin().to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_self_layers_rows_go_where_their_slots_say(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    qkv, (cos, sin) = torch.randn(3, (4 + 2 * 2) * 16).to(dtype), _rotation(3, 16, dtype)
    keys, values, raw = (torch.zeros(4, 5, 2, 16, dtype=dtype) for _ in range(3))
    queries = rotate_and_store(qkv, cos, sin, keys, values, torch.tensor([7, 3, 19]), raw_keys=raw)
    heads = qkv.view(3, 8, 16)
    assert torch.equal(queries, apply_rope(heads[:, :4], cos, sin))
    for row, (page, place) in enumerate(((1, 2), (0, 3), (3, 4))):
        assert torch.equal(keys[page, place], apply_rope(heads[:, 4:6], cos, sin)[row])
        assert torch.equal(values[page, place], heads[row, 6:])
        assert torch.equal(raw[page, place], heads[row, 4:6])
    assert int((keys != 0).any(-1).sum()) == 3 * 2, "a slot that nobody named was written"


def test_frames_share_a_position_and_are_rotated_before_their_norm() -> None:
    torch.manual_seed(0)
    frames, rows, heads, dim = 2, 5, 2, 16
    kv, (cos, sin), weight = torch.randn(frames * rows, 2 * heads * dim), _rotation(frames, dim, torch.float32), torch.rand(dim)
    keys, values = torch.zeros(4, rows, heads, dim), torch.zeros(4, rows, heads, dim)
    slots = torch.cat([torch.arange(3 * rows, 4 * rows), torch.arange(rows, 2 * rows)])  # pages 3 and 1
    store_frames(kv, cos, sin, weight, 1e-5, keys, values, slots)
    split = kv.view(frames, rows, 2 * heads, dim)
    for frame, page in enumerate((3, 1)):
        for row in range(rows):
            turned = apply_rope(split[frame, row, :heads][None], cos[frame : frame + 1], sin[frame : frame + 1])[0]
            torch.testing.assert_close(keys[page, row], F.rms_norm(turned, (dim,), weight, 1e-5))
            assert torch.equal(values[page, row], split[frame, row, heads:])
    assert not keys[0].any() and not keys[2].any()


def test_fp8_slots_hold_what_quantize_rows_gives() -> None:
    torch.manual_seed(0)
    qkv, (cos, sin) = torch.randn(3, (4 + 2 * 2) * 16), _rotation(3, 16, torch.float32)
    qkv[1] = 0
    keys, values = (torch.zeros(2, 5, 2, 16, dtype=FP8) for _ in range(2))
    scales = torch.zeros(2, 2, 5, 2)
    rotate_and_store(qkv, cos, sin, keys, values, torch.tensor([0, 1, 2]), scales=scales)
    expected, factors = quantize_rows(qkv.view(3, 8, 16)[:, 6:])
    assert torch.equal(values[0, :3].float(), expected.float()) and torch.equal(scales[1, 0, :3], factors)
    expected, factors = quantize_rows(apply_rope(qkv.view(3, 8, 16)[:, 4:6], cos, sin))
    assert torch.equal(keys[0, :3].float(), expected.float()) and torch.equal(scales[0, 0, :3], factors)


@pytest.mark.parametrize("gate", [None, torch.tensor([0.3]), torch.tensor([0.0, 0.5, 1.0])])
def test_a_sum_and_its_norm(gate: torch.Tensor | None) -> None:
    residual, x, weight = torch.randn(3, 32), torch.randn(3, 32), torch.rand(32)
    total, normed = add_rms_norm(residual, x, weight, 1e-5, gate)
    factor = 1.0 if gate is None else gate.expand(3)[:, None]
    torch.testing.assert_close(total, residual + factor * x)
    torch.testing.assert_close(normed, total * torch.rsqrt(total.square().mean(-1, keepdim=True) + 1e-5) * weight)
    torch.testing.assert_close(rms_norm(total, weight, 1e-5), normed)
    queries, (cos, sin) = torch.randn(3, 2, 32), _rotation(3, 32, torch.float32)
    torch.testing.assert_close(
        norm_rotate(queries, weight, 1e-5, cos, sin), apply_rope(rms_norm(queries, weight, 1e-5), cos, sin)
    )


def test_products_with_any_form_of_matrix() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 3, 32), torch.randn(24, 32)
    dense = DenseLinear(weight)
    set_products([dense], None)  # by device
    assert torch.equal(dense(x), F.linear(x, weight)) and dense.num_bytes == 24 * 32 * 4
    gate, up = F.linear(x, weight).chunk(2, -1)
    torch.testing.assert_close(dense.swiglu(x), F.silu(gate) * up)
    quantised, factors = quantize_rows(weight)
    meant = quantised.float() * factors[:, None]
    torch.testing.assert_close(skinny_linear(x, quantised, factors), F.linear(x, meant))
    gate, up = F.linear(x, meant).chunk(2, -1)
    torch.testing.assert_close(skinny_swiglu(x, quantised, factors), F.silu(gate) * up)


def test_forms_are_chosen_by_device_and_named_in_errors() -> None:
    assert choose_form(torch.device("cpu")) == "torch"
    with pytest.raises(InputError, match="kernel form 'cuda' is unknown; use one of torch, triton"):
        choose_form(torch.device("cpu"), "cuda")  # type: ignore[arg-type]


def test_triton_is_named_by_its_own_folder_alone() -> None:
    folder = Path(kernels.__file__).parent
    for path in folder.rglob("*.py"):
        if path.parent.name == "triton_forms":
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:  # what runs when the module is imported
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not any("triton" in name for name in names), f"{path.name} imports {names} at its top"
