"""Rotation of packed rows against megatron-core's own, unfused everywhere and fused on a GPU."""

from __future__ import annotations

import pytest
import torch
from megatron.core import parallel_state
from megatron.core.models.common.embeddings.rope_utils import apply_rotary_pos_emb
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from model.attention.cores import PackedRowParams
from model.attention.plan import make_plan
from model.text.rope import apply_rope, inverse_frequencies
from tests.model.small import packed_rows, small_config

CONFIG = small_config()
TWO, ONE = [(11, [3]), (7, [])], [(11, [3])]


def their_rotation(x: Tensor, positions: int, cu_seqlens: Tensor, fused: bool = False) -> Tensor:
    """megatron-core's rotation of thd rows [T, heads, d] with a table of so many positions."""
    config = TransformerConfig(num_layers=1, hidden_size=32, num_attention_heads=4, apply_rope_fusion=fused)
    angles = torch.outer(torch.arange(positions, dtype=torch.float32), inverse_frequencies(CONFIG.text)).to(x.device)
    table = torch.cat([angles, angles], dim=-1)[:, None, None]  # [positions, 1, 1, d]
    turned: Tensor = apply_rotary_pos_emb(
        x, table, config, cu_seqlens=cu_seqlens, cp_group=parallel_state.get_context_parallel_group()
    )
    return turned


def packed(samples: list[tuple[int, list[int]]], device: str = "cpu") -> tuple[Tensor, Tensor, PackedRowParams]:
    """Rows to turn, turned by us, and the parameters that reach the layers."""
    rows = packed_rows(CONFIG, samples, 1)
    plan = make_plan(rows, CONFIG, torch.float32)
    x = torch.randn(rows.num_rows, 4, 8, generator=torch.Generator().manual_seed(2))
    return x.to(device), apply_rope(x, *plan.rope).to(device), PackedRowParams.of(rows, plan)


@pytest.mark.parametrize("samples", [TWO, ONE, [*TWO, (5, [0])]])
def test_packed_rows_turn_as_megatron_core_turns_them(solo: None, samples: list[tuple[int, list[int]]]) -> None:
    """With a table as long as the longest sample, which is what `max_seqlen` asks for."""
    x, ours, params = packed(samples)
    theirs = their_rotation(x, int(params.max_seqlen_q), params.cu_seqlens_q)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_a_table_as_long_as_the_pack_turns_the_second_sample_by_its_place_in_the_pack(solo: None) -> None:
    """Why `max_seqlen` must not be the pack's length, and why it may be where the pack is one sample."""
    x, ours, params = packed(TWO)
    theirs = their_rotation(x, x.shape[0], params.cu_seqlens_q)
    torch.testing.assert_close(ours[:11], theirs[:11], atol=1e-6, rtol=0)
    assert (ours[11:] - theirs[11:]).abs().max() > 0.5
    lone, our_lone, lone_params = packed(ONE)
    assert lone_params.max_seqlen_q == lone.shape[0]
    torch.testing.assert_close(our_lone, their_rotation(lone, lone.shape[0], lone_params.cu_seqlens_q), atol=1e-6, rtol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_fused_rotation_of_a_pack_equals_the_unfused(solo: None, dtype: torch.dtype) -> None:
    """Transformer Engine's kernel restarts with each sample, whatever the length of the table; so do our angles."""
    pytest.importorskip("transformer_engine")
    from model.text.transformer_engine.modules import rotate

    x, ours, params = packed(TWO, "cuda")
    bounds, tolerance = params.cu_seqlens_q.cuda(), 1e-5 if dtype == torch.float32 else 2e-2
    for positions in (int(params.max_seqlen_q), x.shape[0]):
        fused = their_rotation(x.to(dtype), positions, bounds, fused=True)
        torch.testing.assert_close(fused.float(), ours, atol=tolerance, rtol=tolerance)
    assert params.plan is not None
    torch.testing.assert_close(rotate(x.to(dtype), params.plan.angles.cuda()).float(), ours, atol=tolerance, rtol=tolerance)
    unfused = their_rotation(x.to(dtype), int(params.max_seqlen_q), bounds)
    torch.testing.assert_close(unfused.float(), ours, atol=tolerance, rtol=tolerance)
