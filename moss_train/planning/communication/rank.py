"""One rank of a layout: where it is, which layers it has, and the sizes that its calls are made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from model.config import VideoMllamaConfig
from model.rows import frame_share
from moss_train.config.schema import RunConfig
from moss_train.engines.adapters import lora_spec
from moss_train.parallel.layout import RankPlace, place_of
from moss_train.parallel.sizes import check_sizes
from moss_train.planning.communication.shape import Pack, StepShape, rows_of
from moss_train.planning.flops import Gradients
from moss_train.planning.parameters import Stage, pipeline_stages
from moss_train.planning.tower import ELEMENT


@dataclass(frozen=True)
class Chunk:
    """A virtual stage on this rank."""

    layers: tuple[int, ...]
    """Indices over the whole decoder."""
    first: bool
    """Whether it embeds."""
    last: bool
    """Whether it has the head."""
    always: bool
    """Whether what comes into it asks for a gradient, whatever a pack holds: hidden states of another stage do, embeddings that
    train, and those in front of layers that are computed again."""


@dataclass(frozen=True)
class Rank:
    """A rank, the run that it is part of, and what its replica reads in a step."""

    config: RunConfig
    model: VideoMllamaConfig
    ranks: int
    """Of the world."""
    replicas: int
    place: RankPlace
    shape: StepShape

    @classmethod
    def of(cls, config: RunConfig, ranks: int, shape: StepShape, rank: int) -> Rank:
        """Of a configuration.

        Raises:
            InputError: a layout that does not fit the ranks.
        """
        replicas = check_sizes(config.parallel, ranks)
        place = place_of(rank, config.parallel, replicas)
        return cls(config, VideoMllamaConfig.from_dict(config.model), ranks, replicas, place, shape)

    @property
    def number(self) -> int:
        """Of the rank in the world."""
        sizes, place = self.config.parallel, self.place
        return place.tensor + sizes.tensor * (place.context + sizes.context * (place.data + self.replicas * place.pipeline))

    @property
    def packs(self) -> tuple[Pack, ...]:
        """Of its replica."""
        return self.shape.packs[self.place.data]

    @property
    def element(self) -> int:
        """Bytes of an activation."""
        return ELEMENT[self.config.precision.dtype]

    @property
    def tensor(self) -> int:
        return self.config.parallel.tensor

    @property
    def scattered(self) -> bool:
        """Whether rows are shared out between the layers' products."""
        return self.config.parallel.sequence_parallel and self.tensor > 1

    @property
    def context(self) -> int:
        return self.config.parallel.context

    @property
    def width(self) -> int:
        return self.model.text.hidden_size

    @property
    def rows(self) -> int:
        """Of a pack over all context-parallel ranks."""
        return rows_of(self.config, self.packs)

    @property
    def own_rows(self) -> int:
        """Of a pack on this context-parallel rank."""
        return self.rows // self.context

    @property
    def gradients(self) -> Gradients:
        return Gradients.of(self.model, self.config.stage, self.config.lora)

    def adapted(self, part: str) -> frozenset[str]:
        """Linear layers with adapters in every layer of a part (text, cross_layers, vision_tower), by their last name."""
        spec = lora_spec(self.config.lora, self.config.stage)
        return frozenset() if spec is None else frozenset(path.rpartition(".")[2] for path in spec.modules(part))

    def trains_also(self, group: str, part: str) -> bool:
        """Whether norms or gates of a part train beside adapters."""
        spec = lora_spec(self.config.lora, self.config.stage)
        return spec is not None and group in spec.train_also and part in spec.parts

    @property
    def decodes(self) -> bool:
        """Whether the decoder takes part in the step."""
        return self.config.stage.objective != "dense_labels"

    @property
    def stages(self) -> list[Stage]:
        return pipeline_stages(self.model, self.config.parallel)

    def own_frames(self, pack: Pack) -> int:
        """Frames whose features this rank holds."""
        begin, end = frame_share(pack.frames, self.context, self.place.context)
        return end - begin

    def chunks(self) -> Iterator[Chunk]:
        """This rank's virtual stages."""
        stage = self.stages[self.place.pipeline]
        asks = self.config.parallel.recompute == "full" or "text" in self.gradients.parts
        for number, layers in enumerate(stage.layers):
            first, last = stage.first and number == 0, stage.last and number == len(stage.layers) - 1
            yield Chunk(layers, first, last, asks or not first)
