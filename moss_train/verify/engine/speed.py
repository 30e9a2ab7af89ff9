"""One self layer of the 11B decoder, and four layers of its tower, forward and backward: time, rate, memory. A first look."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch

from model.attention.cores import PackedRowParams
from model.attention.plan import make_plan
from model.config import TextConfig, VideoMllamaConfig, VisionConfig
from model.rows import PackedRows
from model.vision.encoder import VisionEncoder
from model.vision.fp8 import use_fp8
from model.vision.fused.levels import use_layers
from moss_train.parallel.layout import ParallelLayout
from moss_train.verify.engine.subject import CURRENT, DELAYED, ENGINE, TORCH, Variant, build, check_config, learnable_pack

VARIANTS = (TORCH, ENGINE, DELAYED, CURRENT)
TOWER_LAYERS, TOWER_FRAMES = 4, 16
LENGTHS = (4096, 2816, 1280)
"""Rows of the pack's samples, 8,192 in all."""


def layer_config() -> VideoMllamaConfig:
    """One self layer of width 4,096 with 32 heads of 128 over 8 groups; everything around it is small."""
    text = TextConfig(vocab_size=512, num_hidden_layers=1, cross_attention_layers=())
    return dataclasses.replace(check_config(), text=text)


def layer_flops(text: TextConfig, lengths: Sequence[int]) -> float:
    """Products of one forward and backward pass: 6 per weight and row, and causal attention's half squares."""
    width, narrow = text.hidden_size, text.num_key_value_heads * text.head_dim
    weights = width * (2 * width + 2 * narrow) + 3 * width * text.intermediate_size
    return 6.0 * weights * sum(lengths) + 6.0 * width * sum(n * n for n in lengths)


def measure(layout: ParallelLayout, repeats: int = 20) -> dict[str, Any]:
    """By part and variant: `milliseconds` of a forward and backward pass (median), `tflops`, `peak_gib` above weights."""
    config = layer_config()
    return {
        "self layer, 8,192 rows": {v.name: _self_layer(config, v, layout, repeats) for v in VARIANTS},
        f"{TOWER_LAYERS} tower layers, {TOWER_FRAMES} frames": {
            "bf16 torch": _tower("torch", "none", layout, repeats), "fp8 current": _tower("torch", "linears", layout, repeats),
            "bf16 fused": _tower("fused", "none", layout, repeats), "fp8 rows, fused": _tower("fused", "rows", layout, repeats),
        },
    }  # fmt: skip


def _timed(call: Callable[[], None], repeats: int, flops: float) -> dict[str, float]:
    milliseconds = []
    before = 0
    for index in range(repeats + 5):
        if index == 5:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        end.synchronize()
        milliseconds.append(begin.elapsed_time(end))
    middle = median(milliseconds[5:])
    peak = (torch.cuda.max_memory_allocated() - before) / 2**30
    return {"milliseconds": middle, "tflops": flops / middle / 1e9, "peak_gib": peak}


def _self_layer(config: VideoMllamaConfig, variant: Variant, layout: ParallelLayout, repeats: int) -> dict[str, float]:
    models = build(config, variant, layout)
    decoder: Any = models.chunks[0]
    rows = PackedRows.of(learnable_pack(config, 1, [(n, 0) for n in LENGTHS]), layout.device)
    params = PackedRowParams.of(rows, make_plan(rows, config, models.dtype))
    hidden = torch.randn(rows.num_rows, 1, config.text.hidden_size, device=layout.device, dtype=models.dtype, requires_grad=True)
    gradient = torch.randn_like(hidden)

    def call() -> None:
        decoder.zero_grad()
        hidden.grad = None
        decoder.decoder(hidden_states=hidden, attention_mask=None, packed_seq_params=params).backward(gradient)

    return _timed(call, repeats, layer_flops(config.text, LENGTHS))


def _tower(layers: str, fp8: str, layout: ParallelLayout, repeats: int) -> dict[str, float]:
    """The tower's blocks at 11B width, 1,608 tokens a frame."""
    config = VideoMllamaConfig(
        vision=VisionConfig(num_hidden_layers=TOWER_LAYERS, num_global_layers=0, intermediate_layers_indices=()),
        text=check_config().text,
    )
    vision = config.vision
    with torch.device(layout.device):
        encoder = VisionEncoder(config).bfloat16()
    use_layers(encoder, layers)
    use_fp8(encoder, config, fp8)
    blocks = encoder.vision_model.transformer
    tokens, width = vision.num_padded_positions, vision.hidden_size
    x = torch.randn(TOWER_FRAMES, tokens, width, device=layout.device, dtype=torch.bfloat16, requires_grad=True)
    gradient = torch.randn_like(x)

    def call() -> None:
        encoder.zero_grad()
        x.grad = None
        blocks(x)[0].backward(gradient)

    weights = 4 * width**2 + 2 * width * vision.intermediate_size
    flops = TOWER_LAYERS * TOWER_FRAMES * (6.0 * weights * tokens + 12.0 * width * tokens**2)
    return _timed(call, repeats, flops)
