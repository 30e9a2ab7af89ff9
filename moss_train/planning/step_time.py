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
from moss_train.parallel.sizes import check_sizes
from moss_train.planning.activations import LayerShape, logits_again
from moss_train.planning.flops import Flops, Gradients, Work, forward_flops, hardware_flops, model_flops
from moss_train.planning.hardware import ADDED_BYTES, LOGIT_BYTES, Cluster
from moss_train.planning.memory import uses_engine
from moss_train.planning.parameters import layers_again, pipeline_stages, share_again, trained_parameters
from moss_train.planning.rates import Rates
from moss_train.planning.tower import ELEMENT, FrameSeconds, KeptFrames
from moss_train.planning.update import updated_bytes


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


def step_flops(config: RunConfig, work: Work, kept: KeptFrames, micro_batches: int) -> tuple[Flops, Flops]:
    """Operations of a step over all ranks: what the model needs, and what is really done.

    Args:
        work: of all ranks.
        kept: of their frames.
        micro_batches: of all replicas.
    """
    model = VideoMllamaConfig.from_dict(config.model)
    tower = Gradients.of(model, config.stage, config.lora).tower
    frames, host = round(work.frames * kept.share), round(work.frames * kept.host_share)
    done = hardware_flops(
        model, work, config.stage, config.lora, recompute=config.parallel.recompute,
        layers_again=layers_again(model, config.parallel), frames_again=work.frames - frames - host if tower else 0,
        frames_kept=frames if tower else 0, keep_mode=kept.level, frames_on_host=host if tower else 0, host_mode=kept.host_level,
        fused=kept.fused,
        logits_again=_logits_again(config, model, work, micro_batches),
    )  # fmt: skip
    return model_flops(model, work, config.stage, config.lora), done


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
    parallel, rates, bandwidth = config.parallel, cluster.rates, cluster.gpu.bandwidth * cluster.rates.memory
    kept = KeptFrames.of(config, work.frames / ranks)
    needed, done = step_flops(config, work, kept, micro_batches * data)
    trained, adapters = _trained(config, model)
    decode = _decoder(config, model, work, done, cluster) / (data * parallel.tensor * parallel.context)
    decode += micro_batches * trained * _added_bytes(config) / bandwidth
    decode = 0.0 if config.stage.objective == "dense_labels" else max(decode, micro_batches * _host(config, model, rates))
    encode, back = _tower(config, model, work, needed, kept, cluster)
    element = ELEMENT[config.precision.dtype]
    return StepTime(
        encode=encode / ranks,
        decode=decode,
        bubble=decode * (parallel.pipeline - 1) / (micro_batches * parallel.virtual_pipeline),
        tensor_sums=_tensor_sums(config, model, work.rows / data, cluster, element),
        back=back / ranks,
        exchange=_exchange(config, model, ranks, data, work, cluster, element),
        update=_update(config, model, ranks, data, trained + adapters, cluster),
    )


def _logits_again(config: RunConfig, model: VideoMllamaConfig, work: Work, micro_batches: int) -> int:
    """Rows of all micro-batches of which the head's backward pass makes the logits once more."""
    shape = LayerShape(model, config.parallel, ELEMENT[config.precision.dtype], uses_engine(config))
    each = work.through_head / micro_batches / config.parallel.context
    again = logits_again(shape, math.ceil(each), config.train.head_logits_gib)
    return round(again * micro_batches * config.parallel.context)


def _added_bytes(config: RunConfig) -> int:
    """Read and written for each trained weight when its gradient of a micro-batch is added to the buffer."""
    buffer = 4 if config.precision.grad_reduce_fp32 or config.precision.dtype == "fp32" else 2
    return 2 * buffer + ADDED_BYTES["product" if uses_engine(config) else "apart"]


def _tower(
    config: RunConfig, model: VideoMllamaConfig, work: Work, needed: Flops, kept: KeptFrames, cluster: Cluster
) -> tuple[float, float]:
    """Seconds of all frames, as if one GPU had them: their forward passes, and their way back."""
    frame = FrameSeconds.of(config, model, cluster.gpu, cluster.rates)
    forward = forward_flops(model, work)
    backward = max(needed.vision + needed.projector - forward.vision - forward.projector, 0.0) * frame.backward
    again = kept.share * frame.again[kept.level] + kept.host_share * frame.again[kept.host_level]
    again += (1 - kept.share - kept.host_share) * frame.forward
    tower = Gradients.of(model, config.stage, config.lora).tower and config.stage.objective != "dense_labels"
    return work.frames * frame.forward, backward + (work.frames * again if tower else 0.0)


def _host(config: RunConfig, model: VideoMllamaConfig, rates: Rates) -> float:
    """Seconds in which the host starts the kernels of a micro-batch, on the pipeline stage with most layers."""
    layers = max(stage.selfs + stage.crosses for stage in pipeline_stages(model, config.parallel))
    return rates.host_micro_batch + layers * rates.host_layer * (1 + share_again(model, config.parallel) / 3)


def _decoder(config: RunConfig, model: VideoMllamaConfig, work: Work, done: Flops, cluster: Cluster) -> float:
    """Seconds of all micro-batches on the pipeline stage that takes longest, as if one GPU had it."""
    selfs, cross, head = decoder_rates(config, cluster)
    cross_layers = len(model.text.cross_attention_layers)
    self_layers = model.text.num_hidden_layers - cross_layers
    logits = work.through_head * model.text.vocab_size * LOGIT_BYTES / (cluster.gpu.bandwidth * cluster.rates.memory)
    longest = 0.0
    for stage in pipeline_stages(model, config.parallel):
        seconds = (
            done.text * stage.selfs / max(self_layers, 1) / selfs + done.cross * stage.crosses / max(cross_layers, 1) / cross
        )
        longest = max(longest, seconds + stage.last * (done.head / head + logits))
    return longest


def decoder_rates(config: RunConfig, cluster: Cluster) -> tuple[float, float, float]:
    """Operations a second of self layers, cross layers and head."""
    rates, gpu = cluster.rates, cluster.gpu
    peak = gpu.bf16 / (2 if config.precision.dtype == "fp32" else 1)  # in TF32 at best
    modules = 1.0 if uses_engine(config) else rates.decoder_torch / rates.decoder
    fp8 = rates.decoder_fp8 / rates.decoder if config.precision.fp8 != "none" and gpu.fp8 is not None else 1.0
    cross = rates.cross * (fp8 if config.precision.fp8_cross_layers else 1.0)
    return peak * rates.decoder * modules * fp8, peak * cross * modules, peak * rates.head * modules


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
    times = 4 + 2 * share_again(model, config.parallel)
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
    shares = (own / sharers, tower / ranks) if config.optimizer.distributed else (own, tower)
    each = [updated_bytes(config.optimizer, config.precision, vision=vision) for vision in (False, True)]
    passed = sum(share * bytes_ for share, bytes_ in zip(shares, each, strict=True))
    return moved + passed / (cluster.gpu.bandwidth * cluster.rates.update)


def _span(config: RunConfig, sharers: int, ranks: int) -> int:
    """Neighbouring ranks over which the replicas of one shard are spread: tensor-parallel ranks lie between them."""
    return 1 if sharers == 1 else min(ranks, math.ceil(sharers * config.parallel.tensor))
