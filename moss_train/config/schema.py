"""Dataclasses behind the groups of `conf/`. A run's resolved config is a `RunConfig` and is itself a valid input."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from model.errors import InputError
from model.lora.spec import MODULES as LORA_TARGETS
from moss_train.config.launcher import LauncherConfig

TRAINABLE = ("projector_only", "vision+projector+xattn", "all", "vision_tower", "text_only")
OBJECTIVES = ("next_token", "dense_labels")
SCHEDULES = ("cosine", "reference_log_linear", "constant")
MODALITIES = ("text", "image", "video", "realtime", "dense")
MODULES = ("auto", "torch", "transformer_engine")
CROSS_BACKENDS = ("auto", "torch", "flex", "flash", "varlen")
RECOMPUTE = ("none", "full")
FP8_RECIPES = ("none", "delayed", "current")
KEEP_MODES = ("all", "attention")
LORA_ALSO = ("projector", "gates", "norms")
TRUNCATION = ("expanded", "reference")
DECODERS = ("auto", "pyav", "torchcodec", "opencv")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"{name} is {value!r}; use one of {', '.join(allowed)}")


def _at_least(name: str, value: float, least: float) -> None:
    if value < least:
        raise InputError(f"{name} is {value}; it must be at least {least}")


@dataclass(kw_only=True)
class FrameConfig:
    """How many frames of a video are taken, unless the sample says otherwise."""

    fps: float = 1.0
    """Frames a second."""
    min_frames: int = 8
    max_frames: int = 256

    def __post_init__(self) -> None:
        if self.fps <= 0:
            raise InputError(f"stage.frames.fps is {self.fps}; it must be above 0")
        _at_least("stage.frames.min_frames", self.min_frames, 1)
        _at_least("stage.frames.max_frames", self.max_frames, self.min_frames)


@dataclass(kw_only=True)
class StageConfig:
    """What a training stage is: objective, trainable set, sequence, frames, learning rate."""

    name: str
    objective: str = "next_token"
    """next_token | dense_labels (patch classification of the tower, only for the demo's warm start)"""
    trainable: str = "all"
    """projector_only | vision+projector+xattn | all | vision_tower | text_only"""
    template: str | None = None
    """Template forced on every sample; None leaves each sample its own."""
    sequence_length: int = 4096
    """Rows of a packed micro-batch, frames included."""
    truncation: str = "expanded"
    """expanded | reference: a sample is cut to `sequence_length` counting every frame, or as the reference does, which counts a
    video's marker as one token."""
    max_frames_per_pack: int = 64
    frames: FrameConfig = field(default_factory=FrameConfig)
    learning_rate: float = 2e-5
    min_learning_rate: float = 0.0
    vision_learning_rate: float | None = None
    """Peak for the tower and projector; None takes `learning_rate`."""
    schedule: str = "cosine"
    """cosine | reference_log_linear | constant"""
    warmup_ratio: float = 0.1
    """Share of all steps spent in warm-up."""
    silence_token_weight: float = 1.0
    """Weight of silence targets in the numerator of the loss; the denominator counts them fully."""
    realtime_jitter_prob: float = 0.5
    """Probability of moving a mid-sentence frame one token earlier."""
    label_eot_realtime: bool = False
    gate_init: float | None = None
    """Value written into all cross-attention gates before training; None leaves them alone."""
    dense_classes: int = 32
    """Classes of the patch classifier; only for dense_labels. Labels run from 0 to one less."""

    def __post_init__(self) -> None:
        _one_of("stage.objective", self.objective, OBJECTIVES)
        _one_of("stage.trainable", self.trainable, TRAINABLE)
        _one_of("stage.schedule", self.schedule, SCHEDULES)
        _one_of("stage.truncation", self.truncation, TRUNCATION)
        _at_least("stage.sequence_length", self.sequence_length, 8)
        _at_least("stage.learning_rate", self.learning_rate, 0.0)


@dataclass(kw_only=True)
class DatasetConfig:
    """One folder of shards."""

    name: str
    path: str
    """Folder written by `moss data prepare`: local, or an address such as s3://bucket/folder or https://host/folder."""
    modality: str
    """text | image | video | realtime | dense: which share of `data.mixture` it belongs to."""
    weight: float = 1.0
    """Share within its modality."""
    repeats: int | None = None
    """Passes over the dataset, after which it gives no more samples; None never ends."""
    max_samples: int | None = None
    """Only so many of its samples, the first in stored order, take part; None takes all."""
    max_bad_samples: int | None = None
    """Samples of it that may be unreadable before training stops; None takes `data.max_bad_samples`."""

    def __post_init__(self) -> None:
        where = f"data.datasets[{self.name}]"
        _one_of(f"{where}.modality", self.modality, MODALITIES)
        for name, least in (("repeats", 1), ("max_samples", 1), ("max_bad_samples", 0)):
            value = getattr(self, name)
            if value is not None:
                _at_least(f"{where}.{name}", value, least)


@dataclass(kw_only=True)
class DecodeConfig:
    """How videos are decoded."""

    backend: str = "auto"
    """auto | pyav | torchcodec | opencv; auto takes the first of pyav and opencv that imports."""
    skip_non_reference: bool = False
    """Leave out frames on which no other depends: faster, but a wanted frame may become its neighbour."""

    def __post_init__(self) -> None:
        _one_of("data.decode.backend", self.backend, DECODERS)


@dataclass(kw_only=True)
class StorageConfig:
    """How patiently remote shards are read."""

    retries: int = 5
    """Further attempts of a read that failed, with growing pauses."""
    timeout_seconds: float = 30.0
    """Longest wait for bytes in one attempt."""
    backoff_seconds: float = 0.5
    """Pause before the first further attempt; it doubles each time, with some chance in it."""

    def __post_init__(self) -> None:
        _at_least("data.storage.retries", self.retries, 0)
        for name in ("timeout_seconds", "backoff_seconds"):
            if getattr(self, name) <= 0:
                raise InputError(f"data.storage.{name} is {getattr(self, name)}; it must be above 0")


@dataclass(kw_only=True)
class DataConfig:
    """Datasets, their mixture and the loader."""

    root: str = "."
    """Folder to which relative dataset paths and the tokenizer path belong."""
    tokenizer: str = "tokenizer.json"
    datasets: list[DatasetConfig] = field(default_factory=list)
    validation: list[DatasetConfig] = field(default_factory=list)
    """Held-out sets for the evaluation loss."""
    mixture: dict[str, float] = field(default_factory=dict)
    """Share of samples by modality; shares are normalised; a modality left out has share 0."""
    global_data_workers: int = 2
    """Readers among which the data are split: fixed for the life of a run, since it determines the order of samples. The
    data-parallel size may be any divisor of it; each replica runs its share of the readers."""
    worker_processes: int | None = None
    """Processes of a replica that run its readers; 0 runs them in the training process, best where the cores are as few as the
    ranks; None gives every reader a process. No choice changes the order of samples."""
    prefetch: int = 2
    """Micro-batches that each process prepares ahead."""
    worker_timeout_seconds: float = 600.0
    """A process that gives no micro-batch for so long ends the run with a sentence."""
    shuffle_buffer: int = 100
    """Samples (undecoded) in each reader's shuffle buffer; 0 keeps the shards' order."""
    packing_buffer: int = 16
    """Samples (undecoded) among which packs are formed."""
    samples_per_pack: int | None = None
    """Upper bound of samples in a pack; None leaves only the token and frame bounds."""
    seed: int = 42
    max_bad_samples: int = 100
    """Samples of each dataset that may be unreadable before training stops."""
    skip_samples: str | None = None
    """A quarantine ledger of another run: the samples that it lists are left out unread, at the same points."""
    log_samples: bool = False
    """Write the keys of the samples of every step into the run folder."""
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    storage: StorageConfig = field(default_factory=StorageConfig)

    def __post_init__(self) -> None:
        for name, least in (("global_data_workers", 1), ("prefetch", 1), ("packing_buffer", 1), ("max_bad_samples", 0)):
            _at_least(f"data.{name}", getattr(self, name), least)
        if self.worker_processes is not None:
            _at_least("data.worker_processes", self.worker_processes, 0)
        if self.worker_timeout_seconds <= 0:
            raise InputError(f"data.worker_timeout_seconds is {self.worker_timeout_seconds}; it must be above 0")


@dataclass(kw_only=True)
class ParallelConfig:
    """Sizes of the parallel groups; data parallel is what remains of the world."""

    tensor: int = 1
    pipeline: int = 1
    virtual_pipeline: int = 1
    context: int = 1
    """Ranks among which the rows of a micro-batch, and the frames that they look at, are spread."""
    sequence_parallel: bool = False
    stage_layers: list[int] | None = None
    """Layers of every pipeline stage, virtual ones included, in the order of the layers; None splits them evenly."""
    recompute: str = "none"
    """none | full: full keeps only the input of every decoder layer and computes the rest again in the backward pass."""

    def __post_init__(self) -> None:
        for name in ("tensor", "pipeline", "virtual_pipeline", "context"):
            _at_least(f"parallel.{name}", getattr(self, name), 1)
        _one_of("parallel.recompute", self.recompute, RECOMPUTE)
        if any(count < 1 for count in self.stage_layers or ()):
            raise InputError(f"parallel.stage_layers is {self.stage_layers}; every stage needs at least one layer")


@dataclass(kw_only=True)
class OptimizerConfig:
    """AdamW or SGD of megatron-core."""

    name: str = "adam"
    """adam (decoupled weight decay) | sgd"""
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_grad: float = 1.0
    """Global gradient norm; 0 switches clipping off."""
    distributed: bool = True
    """Shard optimizer state over data-parallel ranks."""

    def __post_init__(self) -> None:
        _one_of("optimizer.name", self.name, ("adam", "sgd"))


@dataclass(kw_only=True)
class PrecisionConfig:
    dtype: str = "bf16"
    """fp32 | bf16"""
    grad_reduce_fp32: bool = True
    fp8: str = "none"
    """none | delayed | current: scaling recipe of the matrix products of self layers and their MLPs. Delayed takes scales from
    the largest magnitudes of the last 1,024 products, current from the tensors at hand."""
    fp8_cross_layers: bool = False
    """Also the cross layers' products, with current scaling; they stay in `dtype` otherwise. Embedding and head always do."""
    fp8_vision: bool = False
    """Also the tower's products, always with current scaling, so that a second forward pass repeats the first."""

    def __post_init__(self) -> None:
        _one_of("precision.dtype", self.dtype, ("fp32", "bf16"))
        _one_of("precision.fp8", self.fp8, FP8_RECIPES)
        if self.fp8 != "none" and self.dtype != "bf16":
            raise InputError(f"precision.fp8 is {self.fp8} with precision.dtype {self.dtype}; fp8 needs precision.dtype=bf16")
        if self.fp8_cross_layers and self.fp8 == "none":
            raise InputError("precision.fp8_cross_layers is true with precision.fp8 none; choose precision.fp8=current")
        if self.fp8_vision and self.dtype != "bf16":
            raise InputError(f"precision.fp8_vision is true with precision.dtype {self.dtype}; use precision.dtype=bf16")


@dataclass(kw_only=True)
class AttentionConfig:
    cross: str = "auto"
    """auto | torch | flex | flash | varlen: how text rows attend to frames; auto takes the fastest that works on the device."""

    def __post_init__(self) -> None:
        _one_of("attention.cross", self.cross, CROSS_BACKENDS)


@dataclass(kw_only=True)
class LoraConfig:
    """Low-rank adapters beside chosen linear layers; with them the weights themselves do not train."""

    rank: int = 0
    """Rank of the adapters; 0 uses none."""
    alpha: float = 16.0
    """The adapter's output is scaled by alpha / rank."""
    targets: list[str] = field(default_factory=lambda: ["attention_qkv", "attention_proj", "mlp_fc1", "mlp_fc2"])
    """Which linear layers: attention_qkv, attention_proj, cross_q, cross_kv, cross_proj, mlp_fc1, mlp_fc2 (decoder),
    vision_attention, vision_mlp (tower). In the parts that `stage.trainable` trains."""
    train_also: list[str] = field(default_factory=list)
    """What else of those parts trains beside the adapters: projector, gates, norms."""

    def __post_init__(self) -> None:
        _at_least("lora.rank", self.rank, 0)
        for target in self.targets:
            _one_of("lora.targets", target, tuple(LORA_TARGETS))
        for group in self.train_also:
            _one_of("lora.train_also", group, LORA_ALSO)
        if self.rank and not 0 < self.alpha < math.inf:
            raise InputError(f"lora.alpha is {self.alpha}; it must be a number above 0")
        if len(set(self.targets)) < len(self.targets):
            raise InputError(f"lora.targets is {self.targets}, which names a target twice; name each once")
        if self.rank and not self.targets:
            raise InputError("lora.targets is empty with lora.rank above 0; name the layers to adapt")


@dataclass(kw_only=True)
class VisionStepConfig:
    """The decoupled encode and return phases."""

    keep_activations_gib: float = 20.0
    """Memory of a rank, in GiB, for the autograd state of frames (2.7 GB a frame at 11B in bf16); frames that do not fit
    are encoded again in the return phase. -1 keeps all, 0 none."""
    keep_mode: str = "all"
    """all | attention: attention keeps only every layer's input and attention output of such a frame (0.35 GB at 11B)
    and computes the rest again in the backward pass, attention's forward apart."""
    window_gib: float = 4.0
    """Memory of a rank, in GiB, for frames in flight: micro-batches whose pixels and features fit are exchanged at once."""
    encode_chunk_frames: int = 64
    """Frames in one call of the tower in the first pass."""
    again_chunk_frames: int = 8
    """Frames encoded again at once in the return phase; all of them keep their whole state for a moment."""

    def __post_init__(self) -> None:
        _one_of("vision.keep_mode", self.keep_mode, KEEP_MODES)
        if self.keep_activations_gib < 0 and self.keep_activations_gib != -1:
            raise InputError(f"vision.keep_activations_gib is {self.keep_activations_gib}; use -1 for all, 0 for none, or GiB")
        if not self.window_gib > 0:
            raise InputError(f"vision.window_gib is {self.window_gib}; it must be above 0")
        _at_least("vision.encode_chunk_frames", self.encode_chunk_frames, 1)
        _at_least("vision.again_chunk_frames", self.again_chunk_frames, 1)


@dataclass(kw_only=True)
class TrainConfig:
    steps: int = 100
    global_batch_size: int = 2
    """Packed micro-batches in one optimizer step, over all data-parallel ranks."""
    log_every: int = 1
    save_every: int = 0
    """Steps between checkpoints; 0 saves only at the end."""
    eval_every: int = 0
    """Steps between held-out evaluations; 0 evaluates only before the first and after the last step."""
    eval_batches: int = 0
    """Micro-batches (over all ranks) of a held-out evaluation; 0 switches it off."""
    seed: int = 42
    init_from: str | None = None
    """Run folder (its newest checkpoint) or Hugging Face folder that gives the weights; None starts at random."""
    resume: str = "auto"
    """auto | none: auto continues the newest checkpoint of the run folder if there is one."""
    keep_last: int = 2
    """Checkpoints kept."""

    def __post_init__(self) -> None:
        _at_least("train.steps", self.steps, 0)
        for name in ("global_batch_size", "log_every", "keep_last"):
            _at_least(f"train.{name}", getattr(self, name), 1)
        for name in ("save_every", "eval_every", "eval_batches"):
            _at_least(f"train.{name}", getattr(self, name), 0)
        _one_of("train.resume", self.resume, ("auto", "none"))


@dataclass(kw_only=True)
class LoggingConfig:
    progress: bool = True
    wandb: str = "disabled"
    """disabled | offline | online"""
    wandb_project: str = "moss-train"

    def __post_init__(self) -> None:
        _one_of("logging.wandb", self.wandb, ("disabled", "offline", "online"))


@dataclass(kw_only=True)
class RunConfig:
    """Everything about one training run."""

    run_dir: str
    model: dict[str, Any]
    """Nested values of `model.config.VideoMllamaConfig`."""
    stage: StageConfig
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    vision: VisionStepConfig = field(default_factory=VisionStepConfig)
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    modules: str = "auto"
    """auto | torch | transformer_engine: what the layers are made of; auto takes Transformer Engine where it imports and
    the device is CUDA."""
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    launcher: LauncherConfig = field(default_factory=LauncherConfig)
    engine: str = "megatron"
    """megatron; `deepspeed` is planned."""
    device: str = "auto"
    """auto | cpu | cuda"""

    def __post_init__(self) -> None:
        _one_of("engine", self.engine, ("megatron",))
        _one_of("device", self.device, ("auto", "cpu", "cuda"))
        _one_of("modules", self.modules, MODULES)
