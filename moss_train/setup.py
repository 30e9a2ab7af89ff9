"""From a run's config to everything that a training loop needs, on this rank."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from data_pipeline.loader import Loader, build_loader
from data_pipeline.shards.emission import measure_emission
from data_pipeline.storage.address import is_remote
from data_pipeline.text.tokenizer import Tokenizer
from model.config import VideoMllamaConfig
from model.errors import InputError
from model.initialise import initialise_weights, set_cross_gates
from moss_train.checkpoint.description import CheckpointDescription, read_description
from moss_train.checkpoint.load import TrainingState, check_continuable, check_same_model, load_training_state
from moss_train.checkpoint.resume import checkpoint_to_continue
from moss_train.checkpoint.start import load_start
from moss_train.config.schema import RunConfig
from moss_train.dense_step import DenseStep
from moss_train.engines.adapters import adapt, check_adapters, lora_spec
from moss_train.engines.deepspeed.optimization import DeepSpeedOptimization
from moss_train.engines.deepspeed.step import DeepSpeedStep
from moss_train.engines.from_config import encode_settings_of, models_of
from moss_train.engines.models import Models, freeze
from moss_train.engines.optimization import Optimization
from moss_train.feed.agreement import Agreement
from moss_train.feed.counts import SampleCounts
from moss_train.feed.feed import Feed
from moss_train.feed.sample_log import SampleLog
from moss_train.guards.resiliency import start_heartbeats
from moss_train.guards.watch import Watch, start_watch
from moss_train.parallel.layout import ParallelLayout, start_layout
from moss_train.parallel.world import start_world
from moss_train.platform.deterministic import set_deterministic
from moss_train.platform.device import resolve_device
from moss_train.run_folder import RunFolder
from moss_train.step import DecoupledStep, StepSettings


@dataclass
class Session:
    """A run on this rank, ready to train."""

    config: RunConfig
    model_config: VideoMllamaConfig
    folder: RunFolder
    layout: ParallelLayout
    tokenizer: Tokenizer
    models: Models
    optimization: Optimization | DeepSpeedOptimization
    step: DecoupledStep | DenseStep | DeepSpeedStep
    agreement: Agreement
    feed: Feed
    counts: SampleCounts
    micro_batches: int
    """Micro-batches of this replica in one step."""
    resumed: TrainingState | None
    watch: Watch
    emission: dict[str, Any] | None = None
    """How fast the timed dialogues among the data speak: see `measure_emission`."""

    def describe(self, step: int) -> CheckpointDescription:
        """What a checkpoint written now says about itself."""
        lora = lora_spec(self.config.lora, self.config.stage)
        return CheckpointDescription(
            step=step,
            model=dataclasses.asdict(self.model_config),
            stage=dataclasses.asdict(self.config.stage) | ({"emission": self.emission} if self.emission else {}),
            lora=None if lora is None else dataclasses.asdict(lora),
            samples=dict(self.counts.samples),
        )


def start_session(config: RunConfig) -> Session:
    """Start processes, build and load everything; every rank calls it.

    Raises:
        InputError: whatever of the config, data or checkpoints does not fit.
    """
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(megatron|torch)\..*")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(megatron|torch)\..*")
    device = resolve_device(config.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    set_deterministic(config.train.deterministic)
    start_world(device)
    watch = start_watch(config, dist.get_rank(), dist.get_world_size())
    with watch.starting():
        start_heartbeats(config.guard, watch.position)
        return _start(config, device, watch)


def _start(config: RunConfig, device: torch.device, watch: Watch) -> Session:
    layout = start_layout(config.parallel, device, config.train.seed)
    micro_batches = _micro_batches(config, layout)
    model_config = VideoMllamaConfig.from_dict(config.model)
    tokenizer_path = Path(config.data.root) / config.data.tokenizer
    tokenizer = Tokenizer.from_file(tokenizer_path)
    folder = RunFolder(config.run_dir)
    checkpoint = _checkpoint_to_resume(config, folder)
    agreement = Agreement(layout, patience=config.data.worker_timeout_seconds)
    feed = _open_feed(config, model_config, tokenizer, layout, agreement, folder)
    models = _build(config, model_config, layout, fresh=checkpoint is None)
    optimization = _make_optimization(config, models, layout, micro_batches)
    resumed = None
    if checkpoint is not None:
        resumed = load_training_state(checkpoint, models.chunks, models.unit, optimization, layout, verify="nothing")
        feed.load_state_dict(resumed.loader)
    sizes = agreement.from_first(getattr(feed.loader, "dataset_sizes", {}))
    used = {} if checkpoint is None else read_description(checkpoint).samples
    # Only now: a run that is refused leaves no folder behind.
    agreement.together(lambda: folder.prepare(config, tokenizer_path, layout.world_size) if layout.rank == 0 else None)
    return Session(
        config=config,
        model_config=model_config,
        folder=folder,
        layout=layout,
        tokenizer=tokenizer,
        models=models,
        optimization=optimization,
        step=_make_step(config, models, optimization, layout, tokenizer),
        agreement=agreement,
        feed=feed,
        counts=SampleCounts(sizes, used),
        micro_batches=micro_batches,
        resumed=resumed,
        watch=watch,
        emission=agreement.from_first(_emission(config, tokenizer) if layout.rank == 0 else None),
    )


def _emission(config: RunConfig, tokenizer: Tokenizer) -> dict[str, Any] | None:
    """The pace of the timed dialogues that are trained on, in local folders; those of a remote store are not fetched for it."""
    root, mixture = config.data.root, config.data.mixture
    if mixture and not mixture.get("realtime"):
        return None
    found = [data.path for data in config.data.datasets if data.modality == "realtime" and data.weight > 0]
    folders = [Path(root) / path for path in found if not (is_remote(path) or is_remote(root))]
    return measure_emission(folders, tokenizer, config.stage.template)


def _open_feed(
    config: RunConfig, model_config: VideoMllamaConfig, tokenizer: Tokenizer, layout: ParallelLayout,
    agreement: Agreement, folder: RunFolder,
) -> Feed:  # fmt: skip
    """The training data, read by one rank of each replica."""

    def build() -> Loader:
        return build_loader(
            config.data,
            config.stage,
            model_config,
            tokenizer,
            rank=layout.place.data,
            world_size=layout.data_size,
            split="train",
            ledger=folder.quarantine,
            cache=config.launcher.cache.folder or None,
        )

    log = SampleLog(folder.path, layout.place.data, layout.data_size) if config.data.log_samples else None
    names = [dataset.name for dataset in config.data.datasets]
    return Feed(build, agreement, layout, names, ahead=config.data.worker_processes != 0, log=log)


def _micro_batches(config: RunConfig, layout: ParallelLayout) -> int:
    count, rest = divmod(config.train.global_batch_size, layout.data_size)
    if rest:
        raise InputError(
            f"train.global_batch_size is {config.train.global_batch_size}, not a multiple of the {layout.data_size} "
            "data-parallel replicas; choose a multiple"
        )
    if config.parallel.virtual_pipeline > 1 and count % config.parallel.pipeline:
        raise InputError(
            f"each replica has {count} micro-batches in a step, not a multiple of parallel.pipeline {config.parallel.pipeline} "
            "as parallel.virtual_pipeline needs; change train.global_batch_size"
        )
    return count


def _checkpoint_to_resume(config: RunConfig, folder: RunFolder) -> Path | None:
    """The checkpoint to continue, good and of this kind of run; None to start."""

    def check(description: CheckpointDescription, checkpoint: Path) -> None:
        check_same_model(VideoMllamaConfig.from_dict(config.model), description.config, checkpoint)
        name = description.stage.get("name")
        if name != config.stage.name:
            raise InputError(
                f"{checkpoint} belongs to stage {name!r}, not {config.stage.name!r}; choose another run_dir and give this one as "
                "train.init_from"
            )
        check_adapters(description, lora_spec(config.lora, config.stage), checkpoint)
        check_continuable(description, checkpoint)

    begun_with = folder.setting("train", "resume")
    return checkpoint_to_continue(folder.path, config.train.resume, config.checkpoint.verify, check, begun_with)


def _build(config: RunConfig, model_config: VideoMllamaConfig, layout: ParallelLayout, fresh: bool) -> Models:
    """Modules with their starting weights, frozen as the stage wants; a continued run's weights come later."""
    models = models_of(config, layout, model_config)
    if fresh:
        if config.train.init_from is not None:
            told = load_start(config.train.init_from, config.train.init_ema, models.chunks, models.vision)
            if layout.rank == 0:
                print(told, flush=True)
        else:
            drawn_on = layout.device if config.train.random_weights == "device" else "cpu"
            initialise_weights(models.chunks, models.vision, model_config, config.train.seed, drawn_on)
        if config.stage.gate_init is not None:
            set_cross_gates(models.chunks, config.stage.gate_init)
    adapt(models, config.lora, config.stage, config.train.seed)
    freeze(models, config.stage, config.lora)
    return models


def _make_optimization(
    config: RunConfig, models: Models, layout: ParallelLayout, micro_batches: int
) -> Optimization | DeepSpeedOptimization:
    if config.engine == "deepspeed":
        return DeepSpeedOptimization(models, config, micro_batches, layout.device)
    return Optimization(models.chunks, models.unit, models.transformer_config, layout, config.optimizer, config.precision)


def _make_step(
    config: RunConfig, models: Models, optimization: Optimization | DeepSpeedOptimization, layout: ParallelLayout,
    tokenizer: Tokenizer,
) -> DecoupledStep | DenseStep | DeepSpeedStep:  # fmt: skip
    if isinstance(optimization, Optimization) and config.stage.objective == "dense_labels":
        return DenseStep(models, optimization, layout, config.vision.encode_chunk_frames)
    settings = StepSettings(
        silence_token_weight=config.stage.silence_token_weight,
        silence_id=tokenizer.silence_id,
        encode=encode_settings_of(config, models),
        dataset_names=tuple(dataset.name for dataset in config.data.datasets),
        overlap_grad_reduce=config.train.overlap_grad_reduce,
    )
    if isinstance(optimization, DeepSpeedOptimization):
        return DeepSpeedStep(models, optimization, layout, settings)
    return DecoupledStep(models, optimization, layout, settings)
