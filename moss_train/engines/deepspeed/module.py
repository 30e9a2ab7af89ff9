"""The whole model as one module, as DeepSpeed wants it: a micro-batch's rows and pixels in, the rows' losses out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.config import VideoMllamaConfig
from model.rows import PackedRows
from model.vision.layers import VisionTransformer
from moss_train.config.schema import VisionStepConfig
from moss_train.engines.models import Models, VisionUnit
from moss_train.frames.kept import keep_attention


def keep_input(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a layer so that only its input stays for the backward pass."""
    output: Tensor = checkpoint(layer, x, use_reentrant=False, preserve_rng_state=False)
    return output


class PackedModel(nn.Module):
    """Decoder and vision unit, without tensor, pipeline or context parallelism.

    Args:
        models: the modules of a run, frozen as its stage wants.
        vision: what the tower keeps for the backward pass. `keep_activations_gib` -1 keeps all, anything else each layer's
            input, and with `keep_mode` attention also its attention's output.
    """

    def __init__(self, models: Models, vision: VisionStepConfig) -> None:
        super().__init__()
        self.decoder = models.chunks[0]
        self.unit: VisionUnit = models.unit
        self._trains = models.vision_trains
        self._config: VideoMllamaConfig = models.config
        if models.vision_trains == "tower" and vision.keep_activations_gib != -1:
            apply: Any = keep_attention if vision.keep_mode == "attention" else keep_input
            for module in models.vision.modules():
                if isinstance(module, VisionTransformer):
                    module.apply_layer = apply

    def forward(self, rows: PackedRows, pixels: Tensor | None, ids: Tensor | None, calls: int) -> Tensor:
        """Losses fp32 [T] of a micro-batch, 0 where a row has no target.

        Args:
            rows: T rows with targets and F frames.
            pixels: uint8 [F, 3, S, S]; None where there is no frame.
            ids: int64 [F], aspect ids.
            calls: of the tower; at most F.
        """
        states = None if pixels is None or ids is None else self._encode(pixels, ids, calls)
        losses: Tensor = self.decoder(rows, states)
        return losses

    def _encode(self, pixels: Tensor, ids: Tensor, calls: int) -> Tensor:
        """Frames [F, 3, S, S] -> states [F, P, H]."""
        encoder = self.unit.encoder
        parts = []
        for frames, aspects in zip(pixels.tensor_split(calls), ids.tensor_split(calls), strict=True):
            with torch.set_grad_enabled(torch.is_grad_enabled() and self._trains == "tower"):
                pooled = encoder.pooled(frames, aspects)
            with torch.set_grad_enabled(torch.is_grad_enabled() and self._trains != "nothing"):
                parts.append(encoder.project_pooled(pooled))
        return torch.cat(parts)
