"""The whole model as one module, as DeepSpeed wants it: a micro-batch's rows and pixels in, the rows' losses out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.config import VideoMllamaConfig
from model.rows import PackedRows
from model.vision.fused.levels import stacks_of, with_level
from moss_train.config.schema import VisionStepConfig
from moss_train.engines.models import Models, VisionUnit


class PackedModel(nn.Module):
    """Decoder and vision unit, without tensor, pipeline or context parallelism.

    Args:
        models: the modules of a run, frozen as its stage wants.
        vision: what the tower keeps for the backward pass. `keep_activations_gib` -1 keeps all, anything else what `keep_mode`
            says, each layer's input with auto and all.
    """

    def __init__(self, models: Models, vision: VisionStepConfig) -> None:
        super().__init__()
        self.decoder = models.chunks[0]
        self.unit: VisionUnit = models.unit
        self._trains = models.vision_trains
        self._config: VideoMllamaConfig = models.config
        if models.vision_trains == "tower" and vision.keep_activations_gib != -1:
            level = "input" if vision.keep_mode in ("auto", "all") else vision.keep_mode
            for stack in stacks_of(models.vision):
                stack.apply_layer = with_level(stack.apply_layer, level)

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
