"""Run on ranks: elements of the real modules of a layout, and of what trains, against what the plan counts.

Usage: parameters_ranks LAYOUT... as in `moss verify layouts`.
"""

# ruff: noqa: E402 - the platform comes before everything of megatron-core
from __future__ import annotations

import sys

from moss_train import platform

platform.install()

import torch.distributed as dist

from moss_train.config.schema import LoraConfig, OptimizerConfig, PrecisionConfig, StageConfig
from moss_train.engines.adapters import adapt
from moss_train.engines.models import build_models, freeze
from moss_train.engines.optimization import Optimization
from moss_train.parallel.layout import start_layout, stop_layout
from moss_train.parallel.world import start_world, stop_world
from moss_train.planning.parameters import pipeline_stages, stage_parameters, trained_parameters
from moss_train.platform.device import resolve_device
from tests.moss_train.lora_ranks import CASES
from tests.moss_train.packs import tiny_config
from tests.moss_train.updates import layout_sizes

ALIGNED = 128
"""Elements to which a parameter's place in a gradient buffer, and its buckets, are rounded at most."""
STAGES = [("all", LoraConfig()), ("projector_only", LoraConfig()), ("vision+projector+xattn", LoraConfig()), *CASES.values()]


def main() -> None:
    """One line for each layout, once all ranks agree."""
    device = resolve_device("cpu")
    start_world(device)
    config = tiny_config()
    for name in sys.argv[1:]:
        layout = start_layout(layout_sizes(name), device, 1)
        stage = pipeline_stages(config, layout.sizes)[layout.place.pipeline]
        for trainable, lora in STAGES:
            training = StageConfig(name="x", trainable=trainable)
            models = build_models(config, layout)
            whole = stage_parameters(config, stage, layout.sizes.tensor)
            have = sum(p.numel() for chunk in models.chunks for p in chunk.parameters())
            assert (have, sum(p.numel() for p in models.vision.parameters())) == (whole.decoder, whole.vision), (name, whole)
            adapt(models, lora, training, 1)
            freeze(models, training, lora)
            trained, adapters = trained_parameters(config, stage, layout.sizes.tensor, training, lora)
            found = [
                sum(p.numel() for m in part for p in m.parameters() if p.requires_grad) for part in (models.chunks, [models.unit])
            ]
            expected = [trained.decoder + adapters.decoder, trained.vision + adapters.vision]
            assert found == expected, (name, trainable, lora, found, expected)
            optimization = Optimization(
                models.chunks, models.unit, models.transformer_config, layout, OptimizerConfig(), PrecisionConfig(dtype="fp32")
            )
            buffered = sum(buffer.grad_data.numel() for chunk in optimization.decoder for buffer in chunk.buffers)
            count = sum(p.requires_grad for chunk in models.chunks for p in chunk.parameters())
            assert expected[0] <= buffered <= expected[0] + ALIGNED * (count + 4), (name, trainable, buffered, expected)
        stop_layout()
        if dist.get_rank() == 0:
            print(f"{name} agrees", flush=True)
    stop_world()


if __name__ == "__main__":
    main()
