"""A run goes on with other modules: weights, optimizer state and counters come from a checkpoint of torch's, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from model.config import VideoMllamaConfig
from model.conversion import gather_hf_weights, load_hf_weights
from model.text.provider import ModuleProvider, torch_provider, transformer_engine_provider
from moss_train.checkpoint.description import CheckpointDescription
from moss_train.checkpoint.load import load_training_state
from moss_train.checkpoint.save import save_checkpoint
from moss_train.config.schema import OptimizerConfig, ParallelConfig, PrecisionConfig
from moss_train.engines.models import build_models
from moss_train.engines.optimization import Optimization
from moss_train.frames.settings import EncodeSettings
from moss_train.parallel.layout import ParallelLayout, start_layout, stop_layout
from moss_train.parallel.world import start_world, stop_world
from moss_train.step import DecoupledStep, StepSettings
from tests.model.small import lively_weights
from tests.model.text.engine_stand_in import stand_in
from tests.moss_train.packs import DATASETS, make_pack, tiny_config


@pytest.fixture
def layout() -> Iterator[ParallelLayout]:
    device = torch.device("cpu")
    start_world(device)
    with stand_in():
        yield start_layout(ParallelConfig(), device, seed=1)
    stop_layout()
    stop_world()


class _Run:
    def __init__(self, config: VideoMllamaConfig, layout: ParallelLayout, provider: ModuleProvider) -> None:
        self.config, self.layout = config, layout
        self.models = build_models(config, layout, provider=provider)
        load_hf_weights(self.models.chunks, self.models.vision, lively_weights(config, 0))
        models, precision = self.models, PrecisionConfig(dtype="fp32")
        self.optimization = Optimization(
            models.chunks, models.unit, models.transformer_config, layout, OptimizerConfig(), precision
        )
        settings = StepSettings(silence_token_weight=1.0, silence_id=None, encode=EncodeSettings(), dataset_names=DATASETS)
        self.step = DecoupledStep(self.models, self.optimization, layout, settings)

    def update(self, seed: int) -> None:
        self.step.accumulate([make_pack(self.config, seed, [(9, 3), (6, 1)], 24)])
        self.optimization.set_learning_rates(1e-2, 1e-2)
        self.optimization.update()

    def weights(self) -> dict[str, torch.Tensor]:
        found = gather_hf_weights(self.models.chunks, self.models.vision)
        assert found is not None
        return found


@pytest.mark.parametrize("written_by_engine", [False, True])
def test_training_goes_on_with_other_modules(layout: ParallelLayout, tmp_path: Path, written_by_engine: bool) -> None:
    config = tiny_config()
    providers: list[Any] = [torch_provider(), transformer_engine_provider()]
    first, second = (_Run(config, layout, provider) for provider in (reversed(providers) if written_by_engine else providers))
    for seed in (1, 2):
        first.update(seed)
    description = CheckpointDescription(step=2, model=dataclasses.asdict(config), stage={"name": "pt2"})
    folder = save_checkpoint(tmp_path, description, first.models.chunks, first.models.unit, first.optimization, layout)
    second.update(9)  # whatever it holds is replaced
    state = load_training_state(folder, second.models.chunks, second.models.unit, second.optimization, layout)
    assert state.step == 2
    for run in (first, second):
        run.update(3)
    expected = first.weights()
    for name, weight in second.weights().items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-6, atol=1e-7, msg=name)
