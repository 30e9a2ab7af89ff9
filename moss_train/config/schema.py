"""Dataclasses behind the groups of `conf/`. A run's resolved config is a `RunConfig` and is itself a valid input."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from model.errors import InputError
from model.lora.spec import MODULES as LORA_TARGETS
from moss_train.config.checkpoint import CheckpointConfig as CheckpointConfig
from moss_train.config.checks import above_zero, at_least, one_of, share
from moss_train.config.data import DECODERS as DECODERS
from moss_train.config.data import MODALITIES as MODALITIES
from moss_train.config.data import DataConfig as DataConfig
from moss_train.config.data import DatasetConfig as DatasetConfig
from moss_train.config.data import DecodeConfig as DecodeConfig
from moss_train.config.data import StorageConfig as StorageConfig
from moss_train.config.engine import DeepSpeedConfig as DeepSpeedConfig
from moss_train.config.engine import check_engine
from moss_train.config.evaluation import EvaluationConfig as EvaluationConfig
from moss_train.config.evaluation import check_evaluation
from moss_train.config.guard import GuardConfig as GuardConfig
from moss_train.config.launcher import LauncherConfig
from moss_train.config.logging import LoggingConfig as LoggingConfig
from moss_train.config.optimizer import OptimizerConfig as OptimizerConfig
from moss_train.config.optimizer import check_optimizer, check_plain
from moss_train.config.profile import ProfileConfig as ProfileConfig

TRAINABLE = ("projector_only", "vision+projector+xattn", "all", "vision_tower", "text_only")
OBJECTIVES = ("next_token", "dense_labels")
SCHEDULES = ("cosine", "wsd", "reference_log_linear", "constant")
DECAY_SHAPES = ("linear", "cosine", "sqrt")
MODULES = ("auto", "torch", "transformer_engine")
CROSS_BACKENDS = ("auto", "torch", "flex", "flash", "varlen", "dense")
RECOMPUTE = ("none", "full")
RANDOM_WEIGHTS = ("host", "device")
FP8_RECIPES = ("none", "delayed", "current")
TOWER_LAYERS = ("auto", "torch", "fused")
KEEP_MODES = ("auto", "input", "attention", "middle", "most", "all")
FUSED_MODES = ("middle", "most")
LORA_ALSO = ("projector", "gates", "norms")
TRUNCATION = ("expanded", "reference")
TEMPLATES = ("mllama", "mllama_pretrain")


@dataclass(kw_only=True)
class FrameConfig:
    """How many frames of a video are taken, unless the sample says otherwise."""

    fps: float = 1.0
    """Frames a second."""
    min_frames: int = 8
    max_frames: int = 256

    def __post_init__(self) -> None:
        above_zero("stage.frames.fps", self.fps)
        at_least("stage.frames.min_frames", self.min_frames, 1)
        at_least("stage.frames.max_frames", self.max_frames, self.min_frames)


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
    """cosine | wsd (warm-up, stable, decay) | reference_log_linear | constant"""
    warmup_ratio: float = 0.1
    """Share of all steps spent in warm-up."""
    decay_ratio: float = 0.2
    """Share of all steps, the last ones, in which wsd decays."""
    decay_shape: str = "linear"
    """linear | cosine | sqrt: of that decay; sqrt is 1 - sqrt(share done)."""
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
        one_of("stage.objective", self.objective, OBJECTIVES)
        one_of("stage.trainable", self.trainable, TRAINABLE)
        one_of("stage.schedule", self.schedule, SCHEDULES)
        one_of("stage.decay_shape", self.decay_shape, DECAY_SHAPES)
        one_of("stage.truncation", self.truncation, TRUNCATION)
        at_least("stage.sequence_length", self.sequence_length, 8)
        at_least("stage.max_frames_per_pack", self.max_frames_per_pack, 0)
        at_least("stage.learning_rate", self.learning_rate, 0.0)
        at_least("stage.min_learning_rate", self.min_learning_rate, 0.0)
        at_least("stage.silence_token_weight", self.silence_token_weight, 0.0)
        at_least("stage.dense_classes", self.dense_classes, 1)
        share("stage.warmup_ratio", self.warmup_ratio)
        share("stage.decay_ratio", self.decay_ratio)
        if self.vision_learning_rate is not None:
            at_least("stage.vision_learning_rate", self.vision_learning_rate, 0.0)
        if self.schedule == "wsd" and self.warmup_ratio + self.decay_ratio > 1:
            raise InputError(
                f"stage.warmup_ratio {self.warmup_ratio} and stage.decay_ratio {self.decay_ratio} are more than 1 together; "
                "lower one of them"
            )
        share("stage.realtime_jitter_prob", self.realtime_jitter_prob)
        if self.template is not None:
            one_of("stage.template", self.template, TEMPLATES)


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
    recompute_layers: int | None = None
    """With recompute=full, how many layers of every pipeline stage (of a virtual one, if there are) are computed again, from its
    first; the others keep their activations, which the backward pass frees first. None: all."""

    def __post_init__(self) -> None:
        for name in ("tensor", "pipeline", "virtual_pipeline", "context"):
            at_least(f"parallel.{name}", getattr(self, name), 1)
        one_of("parallel.recompute", self.recompute, RECOMPUTE)
        if self.recompute_layers is not None:
            at_least("parallel.recompute_layers", self.recompute_layers, 1)
            if self.recompute != "full":
                raise InputError(
                    f"parallel.recompute_layers is {self.recompute_layers} with parallel.recompute {self.recompute}, which "
                    "computes no layer again; set parallel.recompute=full, or leave parallel.recompute_layers out"
                )
        if any(count < 1 for count in self.stage_layers or ()):
            raise InputError(f"parallel.stage_layers is {self.stage_layers}; every stage needs at least one layer")


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
    """Also the tower's products: those of fused layers with a scale for each row, others with current scaling; a second forward
    pass repeats the first."""
    fp8_vision_weight_gradients: bool = True
    """With `fp8_vision` and fused layers: products that give gradients of weights too; they are in bf16 otherwise."""

    def __post_init__(self) -> None:
        one_of("precision.dtype", self.dtype, ("fp32", "bf16"))
        one_of("precision.fp8", self.fp8, FP8_RECIPES)
        if self.fp8 != "none" and self.dtype != "bf16":
            raise InputError(f"precision.fp8 is {self.fp8} with precision.dtype {self.dtype}; fp8 needs precision.dtype=bf16")
        if self.fp8_cross_layers and self.fp8 == "none":
            raise InputError("precision.fp8_cross_layers is true with precision.fp8 none; choose precision.fp8=current")
        if self.fp8_vision and self.dtype != "bf16":
            raise InputError(f"precision.fp8_vision is true with precision.dtype {self.dtype}; use precision.dtype=bf16")


@dataclass(kw_only=True)
class AttentionConfig:
    cross: str = "auto"
    """auto | torch | flex | flash | varlen | dense: how text rows attend to frames; auto takes the fastest that works on the
    device. dense holds a mask of rows by keys, to compare with."""

    def __post_init__(self) -> None:
        one_of("attention.cross", self.cross, CROSS_BACKENDS)


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
        at_least("lora.rank", self.rank, 0)
        for target in self.targets:
            one_of("lora.targets", target, tuple(LORA_TARGETS))
        for group in self.train_also:
            one_of("lora.train_also", group, LORA_ALSO)
        if self.rank and not 0 < self.alpha < math.inf:
            raise InputError(f"lora.alpha is {self.alpha}; it must be a number above 0")
        if len(set(self.targets)) < len(self.targets):
            raise InputError(f"lora.targets is {self.targets}, which names a target twice; name each once")
        if self.rank and not self.targets:
            raise InputError("lora.targets is empty with lora.rank above 0; name the layers to adapt")


@dataclass(kw_only=True)
class VisionStepConfig:
    """The decoupled encode and return phases."""

    layers: str = "auto"
    """auto | torch | fused: fused applies a layer of the tower as one node of autograd, with few passes over memory and a
    backward pass of its own; torch operator by operator; auto fuses on CUDA in 16 bits. Layers with adapters never are."""
    keep_activations_gib: float = 20.0
    """Memory of a rank, in GiB, for the autograd state of frames; frames that do not fit are encoded again in the return phase.
    -1 keeps all, 0 none."""
    keep_mode: str = "auto"
    """auto | input | attention | middle | most | all: what is kept of a layer of such a frame; the rest is computed again in the
    backward pass. GB a frame at 11B in bf16, fused: its input (0.18), attention's output too (0.35), the state between
    attention and MLP too (0.51), queries, keys and values too (1.0), fc1's result too (1.7). Not fused there are input
    (0.18), attention (0.35) and all (2.7). auto takes the level with which least is computed again."""
    keep_host_gib: float = 0.0
    """Page-locked host memory of a rank, in GiB, for the state of further frames, which would be encoded again otherwise. It goes
    there while frames are encoded and comes back in the backward pass. 0 uses none."""
    keep_host_mode: str = "auto"
    """As keep_mode, of such a frame; not fused there are input and all. auto weighs what is computed again against the copies'
    time too."""
    window_gib: float = 4.0
    """Memory of a rank, in GiB, for frames in flight: micro-batches whose pixels and features fit are exchanged at once."""
    encode_chunk_frames: int = 64
    """Frames in one call of the tower in the first pass."""
    again_chunk_frames: int = 0
    """Frames encoded again at once in the return phase; all of them keep their whole state for a moment. 0 takes as many as fit
    into keep_activations_gib, from 12 (8 where layers are not fused) to 32."""

    def __post_init__(self) -> None:
        one_of("vision.layers", self.layers, TOWER_LAYERS)
        one_of("vision.keep_mode", self.keep_mode, KEEP_MODES)
        if self.layers == "torch" and self.keep_mode in FUSED_MODES:
            raise InputError(
                f"vision.keep_mode is {self.keep_mode} with vision.layers torch, and only fused layers keep that; use "
                "vision.keep_mode=attention or vision.layers=auto"
            )
        one_of("vision.keep_host_mode", self.keep_host_mode, KEEP_MODES)
        if self.layers == "torch" and self.keep_host_mode in ("attention", *FUSED_MODES):
            raise InputError(
                f"vision.keep_host_mode is {self.keep_host_mode} with vision.layers torch, and only fused layers keep that in "
                "host memory; use vision.keep_host_mode=input or vision.layers=auto"
            )
        if not 0 <= self.keep_host_gib < math.inf:
            raise InputError(f"vision.keep_host_gib is {self.keep_host_gib}; use 0 for none, or GiB")
        if self.keep_activations_gib != -1 and not 0 <= self.keep_activations_gib < math.inf:
            raise InputError(f"vision.keep_activations_gib is {self.keep_activations_gib}; use -1 for all, 0 for none, or GiB")
        if not self.window_gib > 0:
            raise InputError(f"vision.window_gib is {self.window_gib}; it must be above 0")
        at_least("vision.encode_chunk_frames", self.encode_chunk_frames, 1)
        at_least("vision.again_chunk_frames", self.again_chunk_frames, 0)


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
    """Micro-batches (over all ranks) of a held-out evaluation, dealt to the validation sets in turns; 0 switches it off."""
    head_logits_gib: float = 1.0
    """GiB of bf16 logits of a micro-batch that stay until its backward pass (1 GB for 4,096 targets at 11B); those of further
    targets are computed again. Logits of 2,048 rows exist at once in any case. 0 keeps none."""
    seed: int = 42
    deterministic: bool = False
    """Take only kernels that add in the same order every time: the same layout gives the same numbers bit for bit, also on a GPU,
    and a resumed run those of one that was not interrupted. Backward attention is slower then."""
    overlap_grad_reduce: bool = False
    """Sum the decoder's gradients over replicas while those of frames go back through the tower; false does it before. The
    numbers are the same. engine=deepspeed has deepspeed.overlap_comm instead."""
    init_from: str | None = None
    """Run folder (its newest checkpoint), RUN@best, a checkpoint folder or Hugging Face folder that gives the weights; None
    starts at random."""
    init_ema: bool = False
    """Take the running average of that run's weights (its `optimizer.ema_decay`) instead of its last weights."""
    random_weights: str = "host"
    """host | device: where weights are drawn that start at random. The host's are the same everywhere and take one core of
    each rank long at 11B; a GPU draws other ones, and other ones on another kind of GPU."""
    resume: str = "auto"
    """auto | latest | none, or a checkpoint or run folder: auto continues the newest good checkpoint of the run folder if there
    is one, latest the newest and nothing else, none refuses a folder that holds one; a path continues just that checkpoint."""
    keep_last: int | None = None
    """Former name of `checkpoint.keep_last`; counts where it is given."""

    def __post_init__(self) -> None:
        at_least("train.steps", self.steps, 0)
        for name in ("global_batch_size", "log_every"):
            at_least(f"train.{name}", getattr(self, name), 1)
        for name in ("save_every", "eval_every", "eval_batches"):
            at_least(f"train.{name}", getattr(self, name), 0)
        at_least("train.head_logits_gib", self.head_logits_gib, 0.0)
        one_of("train.random_weights", self.random_weights, RANDOM_WEIGHTS)
        if self.init_ema and self.init_from is None:
            raise InputError("train.init_ema is true without train.init_from; name the run whose average is meant, or use false")
        if not self.resume.strip():
            raise InputError("train.resume is empty; use auto, latest, none or a checkpoint folder")


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
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    launcher: LauncherConfig = field(default_factory=LauncherConfig)
    engine: str = "megatron"
    deepspeed: DeepSpeedConfig = field(default_factory=DeepSpeedConfig)
    device: str = "auto"
    """auto | cpu | cuda"""

    def __post_init__(self) -> None:
        check_engine(self)
        check_evaluation(self)
        if self.engine == "megatron":
            check_optimizer(self.optimizer, self.precision)
        else:
            check_plain(self.optimizer, self.engine)
        if self.train.keep_last is not None:
            at_least("train.keep_last", self.train.keep_last, 1)
            self.checkpoint.keep_last = self.train.keep_last
        one_of("device", self.device, ("auto", "cpu", "cuda"))
        one_of("modules", self.modules, MODULES)
