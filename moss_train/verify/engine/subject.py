"""The models of the checks and packed micro-batches that can be learned from."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from data_pipeline.packing.batch import IGNORE_INDEX, PackedMicroBatch
from model.config import SwitchConfig, TextConfig, VideoMllamaConfig, VisionConfig
from model.initialise import RandomWeights
from model.text.provider import ModuleProvider, torch_provider, transformer_engine_provider
from moss_train.config.schema import ParallelConfig
from moss_train.engines.models import Models, build_models
from moss_train.parallel.layout import ParallelLayout

SEED = 11
STEPS_OF_TOKENS = 4
"""Kinds of sequences: each colour of a clip stands for one difference between neighbouring tokens."""


@dataclass(frozen=True)
class Variant:
    """One way to compute the same model."""

    name: str
    dtype: str = "bf16"
    engine: bool = True
    fp8: str = "none"
    fp8_cross_layers: bool = False
    fp8_vision: bool = False
    recompute: str = "none"

    def provider(self) -> ModuleProvider:
        return transformer_engine_provider(fp8_cross_layers=self.fp8_cross_layers) if self.engine else torch_provider()


REFERENCE = Variant("fp32 torch", dtype="fp32", engine=False)
TORCH = Variant("bf16 torch", engine=False)
ENGINE = Variant("bf16 Transformer Engine")
DELAYED = Variant("fp8 delayed", fp8="delayed")
CURRENT = Variant("fp8 current", fp8="current")
ALL_FP8 = Variant("fp8 current, cross layers and tower too", fp8="current", fp8_cross_layers=True, fp8_vision=True)
DELAYED_ALL = Variant("fp8 delayed, cross layers and tower too", fp8="delayed", fp8_cross_layers=True, fp8_vision=True)


def check_config() -> VideoMllamaConfig:
    """Six layers of width 256, two of them cross layers, and a tower of width 128 on 32 x 32 pixels."""
    return VideoMllamaConfig(
        vision=VisionConfig(
            hidden_size=128, num_attention_heads=2, num_hidden_layers=3, num_global_layers=1, intermediate_size=256,
            image_size=32, patch_size=8, max_num_tiles=1, max_aspect_ratio_id=1, intermediate_layers_indices=(1, 2),
            pool_stride=2,
        ),
        text=TextConfig(
            vocab_size=500, hidden_size=256, num_hidden_layers=6, cross_attention_layers=(1, 4), num_attention_heads=4,
            num_key_value_heads=2, intermediate_size=512, rope_theta=10000.0,
        ),
        switches=SwitchConfig(no_visible_rows="skip"),
    )  # fmt: skip


def build(config: VideoMllamaConfig, variant: Variant, layout: ParallelLayout, cross_attention: str = "torch") -> Models:
    """A variant of the model without weights of its own; its cross-attention is the same in all variants."""
    parallel: dict[str, Any] = {**vars(layout.sizes), "recompute": variant.recompute}
    placed = ParallelLayout(**{**vars(layout), "sizes": ParallelConfig(**parallel)})
    return build_models(
        config,
        placed,
        dtype=variant.dtype,
        provider=variant.provider(),
        fp8=variant.fp8,
        fp8_vision="rows" if variant.fp8_vision else "none",
        cross_attention=cross_attention,
    )


def forget_engine() -> None:
    """Frees what is left of the models before, the histories of delayed scaling among it: they are kept by the process."""
    from transformer_engine.pytorch.quantization import FP8GlobalStateManager

    FP8GlobalStateManager.reset()
    gc.collect()
    torch.cuda.empty_cache()


def lively_weights(config: VideoMllamaConfig, deviation: float = 0.05) -> dict[str, Tensor]:
    """Random weights, exact in bf16, in which nothing is neutral: gates, norms and biases differ from their initial values."""
    generator = torch.Generator().manual_seed(SEED)
    weights = dict(RandomWeights(config, SEED, text_deviation=deviation))
    moved = {n: t + (0.3 * torch.randn(t.shape, generator=generator) if t.dim() == 1 else 0) for n, t in weights.items()}
    return {name: tensor.bfloat16().float() for name, tensor in moved.items()}


def learnable_pack(
    config: VideoMllamaConfig, seed: int, samples: Sequence[tuple[int, int]], noise: Tensor | None = None
) -> PackedMicroBatch:
    """A micro-batch whose clips' colour tells how their tokens go on: token i is (start + i * step) modulo a prime.

    Args:
        samples: (rows, frames) of each sample; its frames stand at equal distances from its first row on.
        noise: int16 [N, 3, S, S], frames of noise to draw from; None makes fresh ones, which takes long where frames are large.
    """
    generator = torch.Generator().manual_seed(seed)
    modulus, size = 31, config.vision.image_size
    fields: dict[str, list[Tensor]] = {name: [] for name in ("ids", "targets", "positions", "begin", "end", "at", "frames")}
    lengths, totals = [0], [0]
    for rows, count in samples:
        kind, start = (int(torch.randint(0, high, (), generator=generator)) for high in (STEPS_OF_TOKENS, modulus))
        marker = torch.zeros(rows, dtype=torch.bool)
        marker[torch.arange(count) * max(rows // max(count, 1), 1)] = True
        tokens = torch.where(marker, config.image_token_id, (start + torch.arange(rows) * (kind + 1)) % modulus)
        targets = torch.full((rows,), IGNORE_INDEX)
        targets[:-1] = torch.where(marker[1:], IGNORE_INDEX, tokens[1:])
        colour = torch.tensor([(kind * 53) % 256, (kind * 101) % 256, (kind * 197) % 256]).view(1, 3, 1, 1)
        if noise is None:
            added = torch.randint(-20, 21, (count, 3, size, size), generator=generator)
        else:
            added, colour = noise[torch.randint(0, len(noise), (count,), generator=generator)], colour.to(noise.dtype)
        fields["ids"].append(tokens)
        fields["targets"].append(targets)
        fields["positions"].append(torch.arange(rows))
        fields["begin"].append(torch.full((rows,), totals[-1]))
        fields["end"].append(totals[-1] + marker.long().cumsum(0))
        fields["at"].append(marker.nonzero().flatten())
        fields["frames"].append((colour + added).clamp(0, 255).to(torch.uint8))
        lengths.append(lengths[-1] + rows)
        totals.append(totals[-1] + count)
    joined = {name: torch.cat(parts) for name, parts in fields.items()}
    return PackedMicroBatch(
        input_ids=joined["ids"], targets=joined["targets"], position_ids=joined["positions"],
        cu_seqlens=torch.tensor(lengths, dtype=torch.int32), cu_frames=torch.tensor(totals, dtype=torch.int32),
        frame_begin=joined["begin"].int(), frame_end=joined["end"].int(), frame_positions=joined["at"], frames=joined["frames"],
        aspect_ratio_ids=torch.ones(totals[-1], dtype=torch.int64), token_class=(joined["targets"] >= 0).to(torch.int8),
        sample_keys=[f"synthetic/{i}" for i in range(len(samples))], dataset_index=[0] * len(samples),
    )  # fmt: skip
