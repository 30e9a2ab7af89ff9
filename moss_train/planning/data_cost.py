"""Predicted operations of a training step: the tower for frames, the decoder for rows, cross-attention between them.

A multiplication and an addition are two operations. Backward is counted as twice forward for what trains and once for
frozen parts that gradients pass through; the tower's ratio is the measured one of `moss_train.frames.cost`. With
`parallel.recompute=full` the decoder runs forward once more. Padding rows are computed like all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from model.config import VideoMllamaConfig
from moss_train.config.schema import RunConfig
from moss_train.frames.cost import frame_flops, rank_cost
from moss_train.frames.settings import EncodeSettings, expects_fused
from moss_train.planning.data_items import DataItem
from moss_train.planning.flops import cross_row_flops, key_flops, row_flops
from moss_train.planning.parameters import share_again

TOWER = ("all", "vision+projector+xattn", "vision_tower")
ELEMENT_BYTES = {"fp32": 4, "bf16": 2}


@dataclass(frozen=True)
class StepCost:
    """Operations of the parts of a step."""

    model: VideoMllamaConfig
    trains: str
    """tower | projector: how far the frames' backward pass goes."""
    settings: EncodeSettings
    self_passes: float
    """Passes over the self layers and the head, in forward passes."""
    cross_passes: float

    @classmethod
    def of(cls, config: RunConfig) -> StepCost:
        model = VideoMllamaConfig.from_dict(config.model)
        size = ELEMENT_BYTES[config.precision.dtype]
        pads = model.switches.vit_keep_pad_tokens
        trainable = config.stage.trainable
        again = share_again(model, config.parallel)
        return cls(
            model=model,
            trains="tower" if trainable in TOWER else "projector",
            settings=EncodeSettings.of(config.vision, model.vision, size, pads, fused=expects_fused(config)),
            self_passes=(3.0 if trainable in ("all", "text_only") else 2.0) + again,
            cross_passes=(2.0 if trainable == "projector_only" else 3.0) + again,
        )

    def vision(self, frames: int) -> float:
        """Operations of a rank that encodes `frames` in a step."""
        return rank_cost(self.model, self.trains, self.settings, frames) * frame_flops(self.model)

    def text(self, samples: Sequence[DataItem], rows: int) -> float:
        """Operations of the decoder for a micro-batch of `rows` rows; what the samples leave of them is padding."""
        padding = rows - sum(s.rows for s in samples)
        attention = sum(self._attention(s.rows) for s in samples) + self._attention(padding)
        cross = sum(self._cross(s) for s in samples)
        linear_self, linear_cross = self._linear()
        return self.self_passes * (rows * linear_self + attention) + self.cross_passes * (rows * linear_cross + cross)

    def row(self) -> float:
        """Forward operations of a row without attention."""
        return sum(self._linear())

    def _linear(self) -> tuple[float, float]:
        """Of a row: in self layers and the head, and in cross layers."""
        text = self.model.text
        crosses = len(text.cross_attention_layers)
        head = 2.0 * text.hidden_size * text.vocab_size
        return (text.num_hidden_layers - crosses) * row_flops(self.model) + head, crosses * cross_row_flops(self.model)

    def _attention(self, rows: int) -> float:
        """Of the self layers among the rows of a sample, each seeing those before it."""
        text = self.model.text
        layers = text.num_hidden_layers - len(text.cross_attention_layers)
        return layers * 4.0 * text.hidden_size * rows**2 / 2

    def _cross(self, sample: DataItem) -> float:
        """Keys and values of a sample's frames, and its rows' scores with those that they see."""
        text, keys = self.model.text, self.model.vision.tokens_per_frame
        projected = sample.frames * key_flops(self.model)
        pairs = sample.rows * sample.frames * keys * (0.5 if sample.streamed else 1.0)
        return len(text.cross_attention_layers) * (projected + 4.0 * text.hidden_size * pairs)
