"""Predicted time of a step: operations over reached rates, bytes over bandwidths, waiting in the pipeline. A prediction.

    encode    forward passes of the frames of a rank
    decode    operations of a replica's micro-batches over its ranks, logits, gradients added up, all of it times
              1 + (P - 1) / (m V) for P pipeline stages, V virtual stages and m micro-batches; tensor-parallel sums
    return    backward passes of the rank's frames, forward passes of those whose state was not kept
    exchange  pixels to the encoding ranks, features and their gradients between them and the attending ranks
    update    gradients summed over replicas, weights gathered, and the optimizer's pass over its share

Nothing overlaps anything, and nobody waits for data. The decoder takes at least the time in which the host starts its kernels,
which is what small models, few rows, or many tensor-parallel ranks come to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from model.config import VideoMllamaConfig
from moss_train.config.schema import RunConfig
from moss_train.frames.settings import EncodeSettings
from moss_train.parallel.sizes import check_sizes
from moss_train.planning.flops import Flops, Gradients, Work, forward_flops, hardware_flops, model_flops
from moss_train.planning.hardware import (
    ACCUMULATED_BYTES,
    BANDWIDTH,
    FORWARD,
    FP8,
    HOST_LAYER,
    HOST_MICRO_BATCH,
    LOGIT_BYTES,
    TORCH_MODULES,
    UPDATED_BYTES,
    Cluster,
)  # fmt: skip
from moss_train.planning.memory import ELEMENT, uses_engine
from moss_train.planning.parameters import pipeline_stages, trained_parameters


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step by phase."""

    encode: float
    decode: float
    bubble: float
    """Waiting in the pipeline."""
    tensor_sums: float
    back: float
    """The frames' backward passes."""
    exchange: float
    update: float

    @property
    def total(self) -> float:
        """Seconds of the step."""
        return float(sum(getattr(self, spec.name) for spec in fields(self)))


def step_flops(config: RunConfig, work: Work, kept_share: float = 1.0) -> tuple[Flops, Flops]:
    """Operations of a step over all ranks: what the model needs, and what is really done.

    Args:
        work: of all ranks.
        kept_share: share of the frames whose state is kept until their backward pass.
    """
    model = VideoMllamaConfig.from_dict(config.model)
    tower = Gradients.of(model, config.stage, config.lora).tower
    kept = round(work.frames * kept_share)
    less = kept if tower and config.vision.keep_mode == "attention" else 0
    done = hardware_flops(
        model, work, config.stage, config.lora, recompute=config.parallel.recompute,
        frames_again=work.frames - kept if tower else 0, frames_less=less,
    )  # fmt: skip
    return model_flops(model, work, config.stage, config.lora), done


def kept_share(config: RunConfig, frames: float) -> float:
    """Share of a rank's `frames` of a step whose state is kept."""
    model = VideoMllamaConfig.from_dict(config.model)
    settings = EncodeSettings.of(
        config.vision, model.vision, ELEMENT[config.precision.dtype], model.switches.vit_keep_pad_tokens,
        same_chunks=config.precision.fp8_vision,
    )  # fmt: skip
    return 1.0 if settings.keep_frames < 0 or not frames else min(1.0, settings.keep_frames / frames)


def step_time(config: RunConfig, ranks: int, work: Work, cluster: Cluster, micro_batches: int) -> StepTime:
    """Predict a step.

    Args:
        ranks: of the world.
        work: of all ranks in one step.
        cluster: what they run on.
        micro_batches: of a replica in a step.

    Raises:
        InputError: the layout does not fit the ranks.
    """
    data = check_sizes(config.parallel, ranks)
    model = VideoMllamaConfig.from_dict(config.model)
    parallel, gpu = config.parallel, cluster.gpu
    frames = work.frames / ranks
    _, done = step_flops(config, work, kept_share(config, frames))
    rate = gpu.bf16 * cluster.reached.decoder * (1.0 if uses_engine(config) else TORCH_MODULES)
    fp8 = FP8 if config.precision.fp8 != "none" and gpu.fp8 is not None else 1.0
    if config.precision.dtype == "fp32":  # in TF32 at best: half of bf16
        rate /= 2
    trained, adapters = _trained(config, model)
    decode = _decoder(config, model, work, done, (rate * fp8, rate), gpu.bandwidth * BANDWIDTH, data)
    decode += micro_batches * trained * ACCUMULATED_BYTES / (gpu.bandwidth * BANDWIDTH)
    decode = 0.0 if config.stage.objective == "dense_labels" else max(decode, micro_batches * _host(config, model))
    tower = gpu.bf16 * cluster.reached.tower / (2 if config.precision.dtype == "fp32" else 1)
    forward = forward_flops(model, work)
    first = (forward.vision + forward.projector) / ranks / (tower * FORWARD)
    again = (done.vision + done.projector) / ranks - (forward.vision + forward.projector) / ranks
    element = ELEMENT[config.precision.dtype]
    return StepTime(
        encode=first,
        decode=decode,
        bubble=decode * (parallel.pipeline - 1) / (micro_batches * parallel.virtual_pipeline),
        tensor_sums=_tensor_sums(config, model, work.rows / data, cluster, element),
        back=max(again, 0.0) / (tower * _backward_rate(forward, done)),
        exchange=_exchange(config, model, ranks, data, work, cluster, element),
        update=_update(config, model, ranks, data, trained + adapters, cluster),
    )


def _host(config: RunConfig, model: VideoMllamaConfig) -> float:
    """Seconds in which the host starts the kernels of a micro-batch, on the pipeline stage with most layers."""
    layers = max(stage.selfs + stage.crosses for stage in pipeline_stages(model, config.parallel))
    return HOST_MICRO_BATCH + layers * HOST_LAYER * (4 / 3 if config.parallel.recompute == "full" else 1)


def _decoder(
    config: RunConfig, model: VideoMllamaConfig, work: Work, done: Flops, rates: tuple[float, float], bandwidth: float, data: int
) -> float:
    """Seconds of a replica's micro-batches on the pipeline stage that takes longest.

    Args:
        rates: operations a second of self layers, and of the rest.
        bandwidth: bytes a second.
    """
    parallel, crosses = config.parallel, len(model.text.cross_attention_layers)
    selfs = model.text.num_hidden_layers - crosses
    logits = work.through_head * model.text.vocab_size * LOGIT_BYTES
    longest = 0.0
    for stage in pipeline_stages(model, parallel):
        seconds = done.text * stage.selfs / max(selfs, 1) / rates[0] + done.cross * stage.crosses / max(crosses, 1) / rates[1]
        seconds += stage.last * (done.head / rates[1] + logits / bandwidth)
        longest = max(longest, seconds)
    return longest / (data * parallel.tensor * parallel.context)


def _backward_rate(forward: Flops, done: Flops) -> float:
    """Rate behind the first forward pass, in units of both passes' rate: second forward passes are as fast as first ones."""
    first = forward.vision + forward.projector
    again = max(done.vision - 3 * forward.vision, 0.0)
    rest = max(done.vision + done.projector - first - again, 0.0)
    backward = 2 / (3 - 1 / FORWARD)
    seconds = again / FORWARD + rest / backward
    return (again + rest) / seconds if seconds else 1.0


def _trained(config: RunConfig, model: VideoMllamaConfig) -> tuple[int, int]:
    """Decoder's trained parameters on the rank that has most, and the tower's."""
    stages = pipeline_stages(model, config.parallel)
    sums = [trained_parameters(model, stage, config.parallel.tensor, config.stage, config.lora) for stage in stages]
    own = max(trained.decoder + adapters.decoder for trained, adapters in sums)
    return own, sums[0][0].vision + sums[0][1].vision


def _tensor_sums(config: RunConfig, model: VideoMllamaConfig, rows: float, cluster: Cluster, element: int) -> float:
    """Two sums a layer forward and two backward, forward again with recompute; sequence parallelism moves as much."""
    tensor = config.parallel.tensor
    if tensor == 1:
        return 0.0
    times = 6 if config.parallel.recompute == "full" else 4
    layers = model.text.num_hidden_layers / config.parallel.pipeline
    moved = times * layers * rows / config.parallel.context * model.text.hidden_size * element * 2 * (tensor - 1) / tensor
    return moved / cluster.carried(tensor)


def _exchange(
    config: RunConfig, model: VideoMllamaConfig, ranks: int, data: int, work: Work, cluster: Cluster, element: int
) -> float:
    """Pixels leave the one rank of a replica that reads; features arrive at every attending rank, gradients go back."""
    if ranks == 1 or not work.frames:
        return 0.0
    vision, replica = model.vision, ranks // data
    frames = work.frames / data
    pixels = frames * vision.num_channels * vision.image_size**2 * (1 - 1 / replica)
    features = frames / config.parallel.context * vision.tokens_per_frame * model.text.hidden_size * element * (1 - 1 / replica)
    passes = 2 if Gradients.of(model, config.stage, config.lora).features else 1
    return (pixels + passes * features) / cluster.carried(replica)


def _update(config: RunConfig, model: VideoMllamaConfig, ranks: int, data: int, trained: int, cluster: Cluster) -> float:
    """Sums over replicas, the optimizer's pass over its share, and new weights back."""
    own, tower = _trained(config, model)
    sharers = data * config.parallel.context
    gradient = 4 if config.precision.grad_reduce_fp32 or config.precision.dtype == "fp32" else 2
    weight = ELEMENT[config.precision.dtype]
    moved = own * (gradient + weight) * (1 - 1 / sharers) / cluster.carried(_span(config, sharers, ranks))
    moved += tower * (4 + weight) * (1 - 1 / ranks) / cluster.carried(ranks)
    if not config.optimizer.distributed:
        return moved + (own + tower) * UPDATED_BYTES / (cluster.gpu.bandwidth * BANDWIDTH)
    return moved + (own / sharers + tower / ranks) * UPDATED_BYTES / (cluster.gpu.bandwidth * BANDWIDTH)


def _span(config: RunConfig, sharers: int, ranks: int) -> int:
    """Neighbouring ranks over which the replicas of one shard are spread: tensor-parallel ranks lie between them."""
    return 1 if sharers == 1 else min(ranks, math.ceil(sharers * config.parallel.tensor))
