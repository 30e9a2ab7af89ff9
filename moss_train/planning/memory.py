"""Memory of one rank, predicted from the configuration: what stays, and what each phase of a step adds.

A step has five moments at which most can be held: the end of encoding, the losses, the backward pass of a layer, the tower's
backward pass, and the update. Weights, gradient buffers and optimizer states are there in all of them; the peak is the
largest sum. What was measured beside it: docs/benchmarks/plan-memory.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from model.config import VideoMllamaConfig
from model.errors import InputError
from moss_train.config.schema import RunConfig
from moss_train.engines.optimizer.bytes import optimizer_bytes
from moss_train.frames.activations import activation_bytes
from moss_train.frames.host_memory import ON_THE_WAY
from moss_train.frames.owned import HOST_CHUNK
from moss_train.frames.windows import WindowBound
from moss_train.parallel.sizes import check_sizes
from moss_train.planning import activations
from moss_train.planning.activations import LayerShape, Trains
from moss_train.planning.flops import Gradients
from moss_train.planning.parameters import (
    Stage,
    layers_again,
    pipeline_stages,
    self_matrices,
    stage_parameters,
    trained_parameters,
)
from moss_train.planning.tower import ELEMENT, encode_settings

OUTSIDE = int(3.4e9)
"""Bytes of a process outside torch's allocator: the driver's context, kernels, and NCCL's communicators of one rank."""
COMMUNICATORS = {"world": int(0.7e9), "tensor": int(0.9e9), "pipeline": int(0.9e9), "context": int(1.4e9)}
"""What communicators of several ranks add, where a group has several. Measured at two ranks of one host."""
WORKSPACE = int(0.1e9)
"""Work space of matrix products, and lists and tables of a micro-batch."""
FREE = 0.03
"""Share of a GPU's memory that has to stay free: an allocator cuts memory into pieces that do not fit everywhere."""
PHASES = ("encode", "losses", "backward", "return", "update")


@dataclass(frozen=True)
class PackLoad:
    """Micro-batches of a step, as large as they may be."""

    rows: int
    frames: int
    targets: int
    """Rows with a target."""
    samples: int = 4
    micro_batches: int = 1
    """Of a replica in a step."""

    @classmethod
    def largest(cls, config: RunConfig, micro_batches: int) -> PackLoad:
        """What the stage allows: every pack full of rows, frames and targets."""
        stage = config.stage
        return cls(stage.sequence_length, largest_frames(config), stage.sequence_length, micro_batches=micro_batches)

    @classmethod
    def of_samples(cls, packs: Sequence[Sequence[tuple[int, int]]]) -> PackLoad:
        """Of micro-batches given as (rows, frames) of their samples; the largest stands for all.

        Raises:
            InputError: micro-batches of different lengths.
        """
        rows = [sum(rows for rows, _ in pack) for pack in packs]
        frames = [sum(frames for _, frames in pack) for pack in packs]
        if len(set(rows)) > 1:
            raise InputError(f"micro-batches have {', '.join(map(str, rows))} rows; all of a step are equally long")
        targets = max(r - f - len(pack) for r, f, pack in zip(rows, frames, packs, strict=True))
        return cls(rows[0], max(frames), max(targets, 1), max(map(len, packs)), len(packs))


def largest_frames(config: RunConfig) -> int:
    """Frames of the largest pack; none where the mixture has text alone."""
    mixture = config.data.mixture
    visual = not mixture or any(share > 0 for kind, share in mixture.items() if kind != "text")
    return config.stage.max_frames_per_pack if visual else 0


@dataclass(frozen=True)
class StageMemory:
    """One rank of a pipeline stage."""

    stage: int
    phases: dict[str, dict[str, int]]
    """Phase -> what is held then, by kind, in bytes."""
    outside: int = OUTSIDE
    """Bytes beside torch's allocator."""
    host: int = 0
    """Bytes of host memory that hold states of frames."""

    def allocated(self, phase: str) -> int:
        """Bytes that the allocator has given out at the worst moment of a phase."""
        return sum(self.phases[phase].values())

    @property
    def worst(self) -> str:
        """The phase with the peak."""
        return max(self.phases, key=self.allocated)

    @property
    def peak(self) -> int:
        """Most bytes allocated at once."""
        return self.allocated(self.worst)

    @property
    def total(self) -> int:
        """The peak, and what the process holds beside it."""
        return self.peak + self.outside


@dataclass(frozen=True)
class Memory:
    """All stages of a layout."""

    stages: tuple[StageMemory, ...]

    @property
    def worst(self) -> StageMemory:
        """The stage that needs most."""
        return max(self.stages, key=lambda stage: stage.peak)

    def fits(self, bytes_of_gpu: int) -> bool:
        """Whether every rank fits with a margin."""
        return self.worst.total <= (1 - FREE) * bytes_of_gpu


def in_flight(stage: int, stages: int, virtual: int, virtual_stages: int, micro_batches: int) -> int:
    """Micro-batches whose activations a virtual stage holds at most: one forward, one backward, or megatron-core's interleaved
    order, in which the pieces of a rank take turns in groups of as many micro-batches as there are stages."""
    if virtual_stages == 1:
        return min(stages - stage, micro_batches)
    ahead = 2 * (stages - stage - 1) + (virtual_stages - 1) * stages + 1  # forward passes before the first backward pass
    rounds, rest = divmod(ahead, stages * virtual_stages)
    return min(rounds * stages + min(max(rest - virtual * stages, 0), stages), micro_batches)


def uses_engine(config: RunConfig) -> bool:
    """Whether layers are Transformer Engine's on a GPU: `modules=auto` takes them for bf16."""
    return config.modules == "transformer_engine" or (config.modules == "auto" and config.precision.dtype == "bf16")


def plan_memory(config: RunConfig, ranks: int, load: PackLoad | None = None) -> Memory:
    """Memory of every stage's ranks.

    Args:
        config: the run.
        ranks: of the world.
        load: micro-batches; None takes the largest that the stage allows.

    Raises:
        InputError: the layout does not fit the ranks or the model.
    """
    data = check_sizes(config.parallel, ranks)
    model = VideoMllamaConfig.from_dict(config.model)
    load = load or PackLoad.largest(config, max(1, config.train.global_batch_size // data))
    stages = pipeline_stages(model, config.parallel)
    return Memory(tuple(_Rank(config, model, ranks, data, load, stages, i).memory() for i in range(len(stages))))


class _Rank:
    """The counts of one rank; its methods are the moments of a step."""

    def __init__(
        self, config: RunConfig, model: VideoMllamaConfig, ranks: int, data: int, load: PackLoad, stages: Sequence[Stage],
        index: int,
    ) -> None:  # fmt: skip
        self.config, self.model, self.load, self.stage, self.index = config, model, load, stages[index], index
        self.ranks, self.data, self.depth = ranks, data, len(stages)
        precision, parallel = config.precision, config.parallel
        self.element = ELEMENT[precision.dtype]
        fp8_cross = precision.fp8 != "none" and precision.fp8_cross_layers
        self.shape = LayerShape(model, parallel, self.element, uses_engine(config), precision.fp8, fp8_cross)
        self.gradients = Gradients.of(model, config.stage, config.lora)
        self.dense = config.stage.objective == "dense_labels"
        self.encode = encode_settings(config)
        replica_frames = load.frames * load.micro_batches
        self.owned = math.ceil(replica_frames * data / ranks)
        """Frames that this rank encodes in a step."""
        found = self.encode.kept(self.owned)
        self.level = found.mode
        """What is kept of a frame whose state is."""
        self.kept = min(self.owned, self.encode.chunk) if self.dense else found.frames
        """Frames with kept state on the GPU."""
        self.host_level = found.host_mode
        self.on_host = 0 if self.dense else found.host
        """Frames whose state goes to host memory."""
        if not self.gradients.tower:
            self.kept = self.on_host = 0
        self.again = self.owned - self.kept - self.on_host
        """Frames that are encoded again, if the tower trains."""

    def memory(self) -> StageMemory:
        """All phases."""
        stays = self.stays()
        kinds = {
            "encode": self.encoding(), "losses": self.decoding(losses=True), "backward": self.decoding(losses=False),
            "return": self.returning(), "update": self.updating(),
        }  # fmt: skip
        return StageMemory(self.index, {phase: {**stays, **kinds[phase]} for phase in PHASES}, self.outside(), self.host())

    def host(self) -> int:
        """Bytes of states that leave the GPU."""
        return self.on_host * self._frame_state(self.host_level)

    def outside(self) -> int:
        """Bytes of the driver's context and the communicators."""
        sizes = {"world": self.ranks, **vars(self.config.parallel)}
        return OUTSIDE + sum(bytes_ for group, bytes_ in COMMUNICATORS.items() if sizes[group] > 1)

    def stays(self) -> dict[str, int]:
        """Weights, gradient buffers, optimizer states: there all the time."""
        have = stage_parameters(self.model, self.stage, self.config.parallel.tensor)
        trained, adapters = trained_parameters(
            self.model, self.stage, self.config.parallel.tensor, self.config.stage, self.config.lora
        )
        bytes_ = optimizer_bytes(self.config.optimizer, self.config.precision)
        vision = optimizer_bytes(self.config.optimizer, self.config.precision, vision=True)
        own, tower = trained.decoder + adapters.decoder, trained.vision + adapters.vision
        sharers, everyone = (self.data * self.config.parallel.context, self.ranks) if bytes_.distributed else (1, 1)
        found = {
            "weights": int((have.total + adapters.total) * bytes_.weight),
            "gradients": int(own * bytes_.gradient + tower * vision.gradient),
            "optimizer": int(own * bytes_.shared / sharers + tower * vision.shared / everyone),
        }
        if self.config.precision.fp8 != "none":  # a quantised copy of each weight, and its transpose
            layers = self.stage.selfs + self.stage.crosses * self.shape.fp8_cross
            found["fp8 copies of weights"] = 2 * layers * self_matrices(self.model) // self.config.parallel.tensor
        return {**found, "work space": WORKSPACE}

    def updating(self) -> dict[str, int]:
        """Copies that the optimizer makes for a moment."""
        trained, adapters = trained_parameters(
            self.model, self.stage, self.config.parallel.tensor, self.config.stage, self.config.lora
        )
        bytes_ = optimizer_bytes(self.config.optimizer, self.config.precision)
        vision = optimizer_bytes(self.config.optimizer, self.config.precision, vision=True)
        sharers, everyone = (self.data * self.config.parallel.context, self.ranks) if bytes_.distributed else (1, 1)
        own, tower = trained.decoder + adapters.decoder, trained.vision + adapters.vision
        return {"optimizer's copies": int(own * bytes_.temporary / sharers + tower * vision.temporary / everyone)}

    def _frame_features(self) -> int:
        return self.model.vision.tokens_per_frame * self.model.text.hidden_size * self.element

    def _frame_state(self, mode: str) -> int:
        pads = self.model.switches.vit_keep_pad_tokens
        return activation_bytes(self.model.vision, self.element, mode, pads, self.encode.fused)

    def _pixels(self) -> int:
        return self.model.vision.num_channels * self.model.vision.image_size**2

    def kept_state(self) -> dict[str, int]:
        """What of the frames outlives encoding: autograd state, and pixels of those that are encoded again."""
        if not self.owned:
            return {}
        state = self.kept * self._frame_state(self.level)
        if not self.gradients.tower and self.gradients.features:  # the projector's input
            state = self.owned * self.model.vision.tokens_per_frame * self.model.vision.output_dim * self.element
        again = self.gradients.tower and self.again > 0 and not self.dense
        return {"vision state": state, "pixels": self.owned * self._pixels() if again or self.dense else 0}

    def features(self, gradients: int) -> int:
        """Bytes of this rank's features, and of the gradients of `gradients` micro-batches."""
        if not self.stage.crosses or self.dense:
            return 0
        own = -(-self.load.frames // self.config.parallel.context) * self._frame_features()
        return own * (self.load.micro_batches + (gradients if self.gradients.features else 0))

    def encoding(self) -> dict[str, int]:
        """The last chunk of frames in the tower."""
        if not self.owned:
            return {}
        moving = self.owned * (self._pixels() + self._frame_features())
        if self.ranks > 1:
            parallel = self.config.parallel
            bound = WindowBound(
                self.encode.window_bytes, self._pixels(), self._frame_features(), self.ranks // self.data,
                parallel.context, parallel.pipeline,
            )  # fmt: skip
            whole = self.load.frames * self.load.micro_batches
            single = bound.needed([self.load.frames] * self.data)
            moving = max(single, min(int(min(self.encode.window_bytes, 1e15)), bound.needed([whole] * self.data)))
        fused, fp8 = self.encode.fused, self.config.precision.fp8_vision
        again = _chunk(self.again, self.encode.chunk) * activations.frame_encoding(
            self.model, self.element, fused, fp8
        )  # fmt: skip
        most = min(self.encode.chunk, HOST_CHUNK) if self.on_host else self.encode.chunk
        first = _chunk(self.kept, most) * activations.frame_keeping(self.model, self.element, self.level, fused, fp8)
        moved = _chunk(self.on_host, most) * activations.frame_keeping(self.model, self.element, self.host_level, fused, fp8)
        passing = max(first, again, moved) + self._on_the_way()
        kept = self.kept_state().get("vision state", 0)
        return {"vision state": kept, "frames in flight": moving, "tower": passing, "features": self.features(0)}

    def decoding(self, losses: bool) -> dict[str, int]:
        """The decoder's activations, and either logits or a layer in its backward pass."""
        if self.dense:
            return {}
        kept, layer = self._activations()
        found = {**self.kept_state(), "features": self.features(self.load.micro_batches - losses), "activations": kept}
        weights = "text" in self.gradients.parts
        if self.stage.last:
            rows = self.load.rows
            state, logits = activations.head(
                self.shape, rows, self.load.targets, weights, self.config.train.head_logits_gib
            )  # fmt: skip
            found["activations"] += state
            if losses:
                found["logits"] = logits
        if not losses:
            found["layer's backward pass"] = layer + activations.layer_backward(self.shape, self.load.rows)
        return found

    def _activations(self) -> tuple[int, int]:
        """Kept of all micro-batches in flight, and what a layer that is computed again keeps for a moment."""
        config, load, shape = self.config, self.load, self.shape
        crosses, again = frozenset(self.model.text.cross_attention_layers), layers_again(self.model, config.parallel)
        full = config.parallel.recompute == "full"
        sizes: dict[tuple[bool, bool], int] = {}  # all layers of a kind keep the same
        total, moment = 0, 0
        for part, pieces in enumerate(self.stage.layers):
            inputs, kept, largest = 0, 0, 0
            for index in pieces:
                passes = full or index > self.gradients.entry or (index == self.gradients.entry and index not in crosses)
                kind = (index in crosses, passes)
                if kind not in sizes:
                    sizes[kind] = self._layer(*kind)
                if index in again:
                    inputs, largest = inputs + shape.hidden(load.rows), max(largest, sizes[kind])
                else:
                    kept += sizes[kind]
            total += (inputs + kept) * self._held(part)
            moment = max(moment, largest - kept)  # the layers that keep theirs are behind, and have freed it by then
        edges = shape.hidden(load.rows) * (2 if self.depth > 1 else 1)  # what comes in, and what goes out
        return total + edges * self._held(0), moment

    def _layer(self, cross: bool, passes: bool) -> int:
        """Kept of one decoder layer of a micro-batch."""
        weights, load = self.gradients.parts, self.load
        adapted = self.gradients.moved if self.config.lora.rank else frozenset()
        if cross:
            trains = Trains(passes, "cross_layers" in weights, self.gradients.features, "cross_layers" in adapted)
            return activations.cross_layer(self.shape, load.rows, load.frames, trains)
        trains = Trains(passes, "text" in weights, adapters="text" in adapted)
        return activations.self_layer(self.shape, load.rows, trains, load.samples)

    def _held(self, virtual: int) -> int:
        sizes = self.config.parallel
        return in_flight(self.index, sizes.pipeline, virtual, sizes.virtual_pipeline, self.load.micro_batches)

    def returning(self) -> dict[str, int]:
        """The tower's backward pass: of a chunk of kept frames, or of frames that are encoded again."""
        if not self.owned or not (self.gradients.features or self.gradients.tower):
            return {}
        arrived = self.owned * self._frame_features() // self.element * activations.FP32  # summed in fp32
        mine = 0 if self.ranks == 1 else 2 * self.features(1)
        if not self.gradients.tower:
            state = self.kept_state()["vision state"]
            return {"vision state": state, "gradients of features": arrived + mine, "tower": 0}
        kept = self.kept_state()
        first = _chunk(self.kept, self.encode.chunk) * self._frame_return(self.level)
        again = _chunk(self.again, self.encode.again_chunk) * (self._frame_state("all") + self._frame_return("all"))
        held = {"gradients of features": arrived + mine, "pixels": kept["pixels"]}
        back = _chunk(self.on_host, min(self.encode.chunk, HOST_CHUNK)) * self._frame_return(self.host_level) + self._on_the_way()
        if kept["vision state"] + first + self._on_the_way() >= max(again, back):
            return {**held, "vision state": kept["vision state"], "tower": first + self._on_the_way()}
        return {**held, "vision state": 0, "tower": max(again, back)}

    def _on_the_way(self) -> int:
        """Bytes of the GPU with states that are on their way to the host or back."""
        return min(ON_THE_WAY, self.host())

    def _frame_return(self, level: str) -> int:
        """Bytes of a frame in the tower's backward pass beside what a level keeps."""
        return activations.frame_return(self.model, self.element, level, self.encode.fused, self.config.precision.fp8_vision)


def _chunk(frames: int, most: int) -> int:
    """Frames of the largest of as few even parts as `most` allows."""
    return math.ceil(frames / math.ceil(frames / most)) if frames > 0 else 0
