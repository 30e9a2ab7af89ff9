"""Rotary embedding on a pack of two samples: the fused kernel with an angle for every row, against other ways."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from data_pipeline.packing.batch import PackedMicroBatch
from model.conversion import load_hf_weights
from model.rows import PackedRows
from model.text.rope import apply_rope, rope_angles, rope_tables
from moss_train.parallel.layout import ParallelLayout
from moss_train.verify.engine.distances import distance
from moss_train.verify.engine.subject import ENGINE, build, check_config, learnable_pack, lively_weights

SAMPLES = ((100, 2), (156, 3))


def measure(layout: ParallelLayout) -> dict[str, float]:
    """Distances: fused from unfused in fp32, both in bf16 from fp32, fused from the kernel that counts rows by sample, and
    attention over the pack from attention over each sample by itself."""
    from megatron.core.extensions.transformer_engine import fused_apply_rotary_pos_emb_thd

    from model.text.transformer_engine.modules import rotate

    config = check_config()
    text, rows = config.text, PackedRows.of(learnable_pack(config, 1, SAMPLES), layout.device)
    generator = torch.Generator(layout.device).manual_seed(1)
    x = torch.randn(rows.num_rows, text.num_attention_heads, text.head_dim, device=layout.device, generator=generator)
    angles = rope_angles(text, rows.position_ids)
    exact = apply_rope(x, *rope_tables(text, rows.position_ids))
    short = x.bfloat16()
    true = apply_rope(short.double(), *(t.double() for t in rope_tables(text, rows.position_ids)))
    counted = rope_angles(text, torch.arange(rows.num_rows, device=x.device))
    by_sample = fused_apply_rotary_pos_emb_thd(x, rows.cu_seqlens, counted[:, None, None])
    return {
        "fused from unfused, fp32": distance(rotate(x, angles), exact),
        "fused from the kernel that counts rows by sample, fp32": distance(rotate(x, angles), by_sample),
        "fused bf16 from exact": distance(rotate(short, angles), true),
        "unfused bf16 from exact": distance(apply_rope(short, *rope_tables(text, rows.position_ids, dtype=torch.bfloat16)), true),
        "one pack from separate samples, bf16": _packing(layout),
    }


def _packing(layout: ParallelLayout) -> float:
    """Losses of a pack from those of its samples one at a time."""
    config = check_config()
    models = build(config, ENGINE, layout)
    load_hf_weights(models.chunks, models.vision, lively_weights(config))
    decoder: Any = models.chunks[0]
    pack = learnable_pack(config, 1, SAMPLES)
    states = torch.randn(pack.num_frames, *models.state_shape, generator=torch.Generator().manual_seed(2))
    states = states.to(layout.device, models.dtype)
    with torch.no_grad():
        together: Tensor = decoder(PackedRows.of(pack, layout.device), states)
        apart = []
        for sample in range(len(SAMPLES)):
            first, last = (int(b) for b in pack.cu_frames[sample : sample + 2])
            apart.append(decoder(PackedRows.of(_only(pack, sample), layout.device), states[first:last]))
    return distance(together, torch.cat(apart))


def _only(pack: PackedMicroBatch, sample: int) -> PackedMicroBatch:
    """The rows of one sample, and the bounds that they need."""
    rows = slice(*(int(b) for b in pack.cu_seqlens[sample : sample + 2]))
    first, last = (int(b) for b in pack.cu_frames[sample : sample + 2])
    return dataclasses.replace(
        pack,
        input_ids=pack.input_ids[rows],
        position_ids=pack.position_ids[rows],
        targets=pack.targets[rows],
        cu_seqlens=torch.tensor([0, rows.stop - rows.start], dtype=torch.int32),
        cu_frames=torch.tensor([0, last - first], dtype=torch.int32),
        frame_begin=pack.frame_begin[rows] - first,
        frame_end=pack.frame_end[rows] - first,
        frame_positions=pack.frame_positions[first:last],
    )
