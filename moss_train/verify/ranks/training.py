"""A tiny run without a config: model, optimizer, step, and its whole state to be compared bit for bit."""

from __future__ import annotations

import dataclasses
import gc
from pathlib import Path

import torch

from model.conversion import gather_hf_weights
from moss_train.checkpoint.collect import described as with_optimizer
from moss_train.checkpoint.description import CheckpointDescription
from moss_train.checkpoint.load import load_training_state
from moss_train.checkpoint.optimizer_state import initialise_states, optimizer_states
from moss_train.checkpoint.save import save_checkpoint
from moss_train.config.schema import PrecisionConfig, StageConfig
from moss_train.engines.models import freeze
from moss_train.engines.optimization import Optimization
from moss_train.frames.settings import EncodeSettings
from moss_train.parallel.layout import ParallelLayout
from moss_train.statistics import StepStatistics
from moss_train.step import DecoupledStep, StepSettings
from moss_train.verify.layouts.subject import DATASETS, SILENCE, global_batch
from moss_train.verify.layouts.trial import LEARNING_RATES, OPTIMIZERS, build_subject, described, own_batches
from moss_train.verify.ranks.agreed import everyone
from moss_train.verify.ranks.names import Kind

SPOILT = 7.0
"""Put into everything before a checkpoint is loaded, so that what is not loaded shows."""


class Training:
    """Everything trains, by AdamW with its state sharded over data-parallel ranks.

    Args:
        kind: modules and dtype.
        layout: this rank's place.

    Raises:
        InputError: sizes that do not fit the model.
    """

    def __init__(self, kind: Kind, layout: ParallelLayout) -> None:
        self.layout = layout
        self._own = own_batches(layout.sizes, layout.data_size, layout.place.data)
        self.models = models = build_subject(kind.modules, kind.dtype, layout)
        self.made_of = described(models)
        freeze(models, StageConfig(name="ranks", trainable="all"))
        optimizer, precision = OPTIMIZERS["adamw"], PrecisionConfig(dtype=kind.dtype)
        self.optimization = Optimization(models.chunks, models.unit, models.transformer_config, layout, optimizer, precision)
        self._settings = StepSettings(
            silence_token_weight=0.1,
            silence_id=SILENCE,
            encode=EncodeSettings(keep_frames=1, chunk=2, again_chunk=2),
            dataset_names=DATASETS,
        )
        self.step = DecoupledStep(models, self.optimization, layout, self._settings)

    def overlap(self, on: bool) -> None:
        """Whether updates from now on sum the decoder's gradients beside the return of frames' (`train.overlap_grad_reduce`)."""
        settings = dataclasses.replace(self._settings, overlap_grad_reduce=on)
        self.step = DecoupledStep(self.models, self.optimization, self.layout, settings)

    def accumulate(self, number: int) -> StepStatistics:
        """Gradients of the global batch of an update, from 0."""
        rate = LEARNING_RATES["adamw"]
        self.optimization.set_learning_rates(rate, rate)
        return self.step.accumulate(global_batch(self.models.config, number)[self._own])

    def update(self, number: int) -> tuple[float, float]:
        """Loss, and gradient norm before clipping, of an update that is applied."""
        loss = self.accumulate(number).loss
        return loss, self.optimization.update()

    def save(self, run_dir: Path, step: int) -> Path:
        """A checkpoint of all ranks.

        Raises:
            CommonError: some rank cannot write.
        """
        description = CheckpointDescription(step=step, model=dataclasses.asdict(self.models.config))
        description = with_optimizer(description, self.optimization, self.layout)
        return save_checkpoint(run_dir, description, self.models.chunks, self.models.unit, self.optimization, self.layout)

    def load(self, checkpoint: Path) -> int:
        """Spoil everything and load a checkpoint; its step."""
        for parameter in self.parameters():
            parameter.data.fill_(SPOILT)
        optimizers = self.optimization.optimizer.chained_optimizers
        initialise_states(optimizers)
        for state in optimizer_states(optimizers):
            for values in state.tensors.values():
                values.fill_(SPOILT)
        models = self.models
        return load_training_state(checkpoint, models.chunks, models.unit, self.optimization, self.layout).step

    def state(self) -> list[torch.Tensor]:
        """Copies on the host of all weights and optimizer states of this rank."""
        tensors = [parameter.detach() for parameter in self.parameters()]
        for state in optimizer_states(self.optimization.optimizer.chained_optimizers):
            tensors += state.tensors.values()
        return [tensor.to("cpu", copy=True) for tensor in tensors]

    def weights(self) -> dict[str, torch.Tensor] | None:
        """Whole weights by published name on the first rank; None elsewhere."""
        found = gather_hf_weights(self.models.chunks, self.models.vision)
        return None if found is None else {name: tensor.to("cpu", copy=True) for name, tensor in found.items()}

    def parameters(self) -> list[torch.nn.Parameter]:
        """Of all modules of this rank."""
        modules: list[torch.nn.Module] = [*self.models.chunks, self.models.unit]
        return [parameter for module in modules for parameter in module.parameters()]


def differing(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> tuple[int, int]:
    """How many tensors are not equal bit for bit, and how many there are, over all ranks."""
    assert len(ours) == len(theirs)
    counts = (sum(not torch.equal(_bits(a), _bits(b)) for a, b in zip(ours, theirs, strict=True)), len(ours))
    found: list[tuple[int, int]] = everyone(counts)
    return sum(bad for bad, _ in found), sum(count for _, count in found)


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """So that numbers which are none count as equal to themselves, and 0 and -0 as different."""
    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.contiguous().view(kinds[tensor.element_size()])


def equal_weights(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> int:
    """How many whole tensors are not equal bit for bit or are missing on one side."""
    common = ours.keys() & theirs.keys()
    return len(ours.keys() ^ theirs.keys()) + sum(not torch.equal(_bits(ours[name]), _bits(theirs[name])) for name in common)


def clear() -> None:
    """Free what models of a layout hold in cycles."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
