"""Builds the modules of a run in this rank's place: decoder chunks, vision encoder, and the dense head of the warm start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from megatron.core.transformer.transformer_config import TransformerConfig

from model.config import VideoMllamaConfig
from model.freeze import apply_preset, part_parameters, trains_any
from model.lora.attach import freeze_base
from model.text.cross_layer import GatedCrossLayer
from model.text.provider import ModuleProvider
from model.text.transformer_config import DTYPES
from model.video_mllama import VideoMllamaDecoder, build_decoder_chunks, make_transformer_config
from model.vision.encoder import VisionEncoder
from model.vision.fp8 import use_fp8
from model.vision.fused.levels import use_layers
from moss_train.config.schema import LoraConfig, StageConfig
from moss_train.parallel.layout import ParallelLayout


class VisionUnit(torch.nn.Module):
    """What is replicated over the world: the encoder, and a linear patch classifier in the dense warm start."""

    def __init__(self, encoder: VisionEncoder, dense_head: torch.nn.Linear | None) -> None:
        super().__init__()
        self.encoder = encoder
        self.dense_head = dense_head


@dataclass
class Models:
    """The modules of this rank and what the step must know of them."""

    config: VideoMllamaConfig
    transformer_config: TransformerConfig
    chunks: list[VideoMllamaDecoder]
    unit: VisionUnit
    dtype: torch.dtype
    attends: tuple[bool, ...]
    """For every rank of the world, whether its stage has a cross-attention layer."""
    vision_trains: str
    """nothing | projector | tower: how far the backward pass must go."""

    @property
    def vision(self) -> VisionEncoder:
        return self.unit.encoder

    @property
    def state_shape(self) -> tuple[int, int]:
        """Shape of one frame's features, (P, H)."""
        return self.config.vision.tokens_per_frame, self.config.text.hidden_size


def build_models(
    config: VideoMllamaConfig,
    layout: ParallelLayout,
    *,
    dtype: str = "fp32",
    seed: int = 42,
    dense_classes: int | None = None,
    provider: ModuleProvider | None = None,
    fp8: str = "none",
    fp8_vision: str = "none",
    cross_attention: str = "auto",
    vision_layers: str = "auto",
    head_logits_gib: float | None = 1.0,
) -> Models:
    """Modules with random weights; everything is trainable until `freeze`.

    Args:
        config: the model's dimensions.
        layout: this rank's place.
        dtype: fp32 | bf16, of parameters.
        seed: base of the random states; equal for every rank of a replica's stage and for all vision encoders.
        dense_classes: classes of the patch classifier, which also tells the pooled cell of a patch; None builds none.
        provider: what the decoder's layers are made of; None takes plain torch.
        fp8: none | delayed | current, of the decoder; needs a provider with fp8.
        fp8_vision: none | rows | rows_bf16 | linears, of the tower: see `model.vision.fp8.use_fp8`.
        cross_attention: backend of the attention from rows to frames.
        vision_layers: auto | torch | fused, how the tower applies its layers.
        head_logits_gib: logits that stay until the backward pass; None computes all of them at once.

    Raises:
        InputError: sizes that the layout does not divide, or that fp8 does not take.
    """
    sizes = layout.sizes
    transformer_config = make_transformer_config(
        config,
        tensor=sizes.tensor,
        pipeline=sizes.pipeline,
        virtual_pipeline=sizes.virtual_pipeline,
        context=sizes.context,
        sequence_parallel=sizes.sequence_parallel,
        dtype=dtype,
        recompute=sizes.recompute,
        recompute_layers=sizes.recompute_layers,
        stage_layers=sizes.stage_layers,
        fp8=fp8,
        cross_attention=cross_attention,
        head_logits_gib=head_logits_gib,
    )
    torch.manual_seed(seed + layout.place.pipeline)
    chunks = build_decoder_chunks(config, transformer_config, provider)
    torch.manual_seed(seed)
    # Made where it is used: its own random values, which are replaced, would take a CPU seconds. The dense head's are not.
    with torch.device(layout.device if dense_classes is None else "cpu"):
        encoder = VisionEncoder(config)
    use_layers(encoder, vision_layers)
    head = None
    if dense_classes is not None:
        head = torch.nn.Linear(config.vision.output_dim, dense_classes + config.vision.tokens_per_frame - 1)
    unit = VisionUnit(encoder, head).to(device=layout.device, dtype=DTYPES[dtype])
    use_fp8(encoder, config, fp8_vision)
    return Models(
        config=config,
        transformer_config=transformer_config,
        chunks=chunks,
        unit=unit,
        dtype=DTYPES[dtype],
        attends=_attends(chunks, layout),
        vision_trains="tower",
    )


def freeze(models: Models, stage: StageConfig, lora: LoraConfig | None = None) -> None:
    """Apply the stage's preset; must run before gradient buffers are made.

    Args:
        stage: names the preset.
        lora: with a rank above 0, only adapters train and what its `train_also` names.

    Raises:
        InputError: an unknown preset.
    """
    apply_preset(stage.trainable, models.chunks, models.vision)
    if lora is not None and lora.rank:
        freeze_base(models.chunks, models.vision, lora.train_also)
    if trains_any(part_parameters("vision_tower", models.chunks, models.vision)):
        models.vision_trains = "tower"
    elif trains_any(models.vision.multi_modal_projector.parameters()):
        models.vision_trains = "projector"
    else:
        models.vision_trains = "nothing"


def _attends(chunks: Sequence[VideoMllamaDecoder], layout: ParallelLayout) -> tuple[bool, ...]:
    here = any(isinstance(module, GatedCrossLayer) for chunk in chunks for module in chunk.modules())
    if layout.world_size == 1:
        return (here,)
    answers = torch.empty(layout.world_size, dtype=torch.int64, device=layout.device)
    dist.all_gather_into_tensor(answers, torch.tensor([int(here)], device=layout.device))
    return tuple(bool(answer) for answer in answers.tolist())
