"""From a run's config to its modules and the settings of their frames: the one place, for runs, plans and measurements."""

from __future__ import annotations

from model.config import VideoMllamaConfig
from model.vision.fused.levels import all_fused
from moss_train.config.schema import RunConfig
from moss_train.engines.models import Models, build_models
from moss_train.engines.precision import provider_of
from moss_train.frames.settings import EncodeSettings, fp8_of_tower
from moss_train.parallel.layout import ParallelLayout


def models_of(config: RunConfig, layout: ParallelLayout, model_config: VideoMllamaConfig | None = None) -> Models:
    """The modules of a run, with random weights and everything trainable.

    Args:
        config: of the run.
        layout: this rank's place.
        model_config: `config.model`, where it was read already.

    Raises:
        InputError: modules, sizes or a precision that this machine or the layout does not have.
    """
    dense = config.stage.objective == "dense_labels"
    return build_models(
        model_config or VideoMllamaConfig.from_dict(config.model),
        layout,
        dtype=config.precision.dtype,
        seed=config.train.seed,
        dense_classes=config.stage.dense_classes if dense else None,
        provider=provider_of(config),
        fp8=config.precision.fp8,
        fp8_vision=fp8_of_tower(config),
        vision_layers=config.vision.layers,
        cross_attention=config.attention.cross,
        # DeepSpeed gathers a spread head for the head's own forward pass only.
        head_logits_gib=None if config.engine == "deepspeed" else config.train.head_logits_gib,
    )


def encode_settings_of(config: RunConfig, models: Models) -> EncodeSettings:
    """How the frames of a run are encoded and what is kept of them."""
    return EncodeSettings.of(
        config.vision,
        models.config.vision,
        element_size=models.dtype.itemsize,
        pad_tokens=models.config.switches.vit_keep_pad_tokens,
        same_chunks=fp8_of_tower(config) == "linears",
        fused=all_fused(models.vision),
        fp8=fp8_of_tower(config) != "none",
    )
