"""What the tower costs a frame, in operations and seconds: forward, backward, and what a keep level computes again.

The backward pass of a frame with kept state runs some of a layer's forward products again, fewer the more bytes the level of
`vision.keep_mode` keeps. Layer norms and gelu always run again: they are bandwidth and count as part of the pass's rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from model.config import VideoMllamaConfig
from moss_train.config.schema import RunConfig
from moss_train.frames.cost import AGAIN, frame_flops, layer_flops
from moss_train.frames.settings import EncodeSettings, expects_fused, fp8_of_tower
from moss_train.planning.flops import Gpu
from moss_train.planning.rates import Rates

ELEMENT = {"bf16": 2, "fp32": 4}
"""Bytes of a number by `precision.dtype`."""


def encode_settings(config: RunConfig) -> EncodeSettings:
    """How a run encodes its frames on a GPU, and what it keeps of them."""
    model = VideoMllamaConfig.from_dict(config.model)
    return EncodeSettings.of(
        config.vision, model.vision, ELEMENT[config.precision.dtype], model.switches.vit_keep_pad_tokens,
        same_chunks=fp8_of_tower(config) == "linears", fused=expects_fused(config),
        fp8=fp8_of_tower(config) != "none",
    )  # fmt: skip


@dataclass(frozen=True)
class KeptFrames:
    """What of a step's frames is kept until their backward pass."""

    share: float
    """Of the frames."""
    level: str
    """What is kept of such a frame."""
    fused: bool = True
    """Whether the tower's layers are."""
    host_share: float = 0.0
    """Of the frames, those whose state goes to host memory."""
    host_level: str = "all"
    """What is kept there of such a frame."""

    @classmethod
    def of(cls, config: RunConfig, frames: float) -> KeptFrames:
        """Of a rank that encodes so many frames in a step."""
        settings = encode_settings(config)
        kept = settings.kept(math.ceil(frames))
        if not frames:
            return cls(1.0, kept.mode, settings.fused)
        share = min(1.0, kept.frames / frames)
        return cls(share, kept.mode, settings.fused, min(1.0 - share, kept.host / frames), kept.host_mode)


@dataclass(frozen=True)
class FrameSeconds:
    """Seconds of one frame on one GPU."""

    forward: float
    """Patches, layers and projector."""
    backward: float
    """For each operation of the backward pass, of which the stage says how many there are."""
    again: dict[str, float]
    """Level -> of what is computed a second time."""

    @classmethod
    def of(cls, config: RunConfig, model: VideoMllamaConfig, gpu: Gpu, rates: Rates) -> FrameSeconds:
        """From a GPU's rates.

        Args:
            config: says of what the layers are made, and their precision.
        """
        forward_rate, backward_rate, attention = _rates(config, gpu, rates)
        seconds = frame_flops(model) / forward_rate
        layers = model.vision.num_hidden_layers + model.vision.num_global_layers
        parts = layer_flops(model.vision, model.switches.vit_keep_pad_tokens)
        projections = parts.pop("projections")
        parts |= {"queries": 0.75 * projections, "output": 0.25 * projections}
        weights = {part: flops * layers for part, flops in parts.items()}
        # Attention is in bf16 beside products in fp8 too: its seconds are those of the bf16 layer.
        plain = _peak(config, gpu) * (rates.tower_forward if expects_fused(config) else rates.torch_tower_forward)
        dense = frame_flops(model) - weights["attention"]
        mixed = frame_flops(model) / plain * attention * weights["attention"] / (dense + attention * weights["attention"])
        mixed = min(mixed, seconds)
        each = {part: (seconds - mixed) * flops / dense for part, flops in weights.items()}
        each["attention"] = mixed
        again = {level: sum(each[part] for part in run) for level, run in AGAIN.items()}
        return cls(seconds, 1 / backward_rate, again)


def _rates(config: RunConfig, gpu: Gpu, rates: Rates) -> tuple[float, float, float]:
    """Operations a second forward and backward, and the seconds of one of attention in units of a product's, both in bf16."""
    fp8 = config.precision.fp8_vision and gpu.fp8 is not None
    peak = _peak(config, gpu)
    if not expects_fused(config):
        share = rates.torch_tower_fp8 if fp8 else 1.0
        return peak * share * rates.torch_tower_forward, peak * share * rates.torch_tower_backward, 1.0
    if fp8:
        return peak * rates.tower_fp8_forward, peak * rates.tower_fp8_backward, rates.tower_attention
    return peak * rates.tower_forward, peak * rates.tower_backward, rates.tower_attention


def _peak(config: RunConfig, gpu: Gpu) -> float:
    return gpu.bf16 / (2 if config.precision.dtype == "fp32" else 1)  # TF32 at best
