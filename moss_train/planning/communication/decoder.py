"""Calls inside the decoder's layers, and around them: embedding, head and loss under tensor parallelism, attention under context
parallelism. Per layer and pack of R rows of width H on a context-parallel rank, e bytes a number:

    tensor parallel    sums of [R, H] behind attention and MLP; backward before them. A cross layer also sums the gradient of the
                       features [frames, P, H]
    sequence parallel  the same as a gather before and a scatter behind; the gather is repeated backward where the weights train
    context parallel   self layers gather keys and values, cross layers gather queries and return partial results and log-sums

Full recomputation makes the forward calls once more. Where gradients end, the layers below have no backward calls.
"""

from __future__ import annotations

from moss_train.planning.communication.calls import Calls, Kind, Traffic
from moss_train.planning.communication.rank import Rank
from moss_train.planning.communication.reach import Reach
from moss_train.planning.communication.shape import Pack
from moss_train.planning.parameters import layers_again

LOG_SUM = 4
"""Bytes of a log-sum, and of each of the three numbers by row that a loss over a split vocabulary reduces."""


class _Layers:
    """Adds up the calls of one rank."""

    def __init__(self, rank: Rank, traffic: Traffic) -> None:
        self.rank, self.traffic = rank, traffic
        self.whole = rank.own_rows * rank.width * rank.element
        """Bytes of [R, H]."""

    def sum(self, size: float, times: int = 1) -> None:
        calls = Calls(times, times * size, times * size)
        self.traffic.add("activations", "all-reduce", "tensor", self.rank.tensor, calls)

    def gather(self, whole: float, times: int = 1, group: str = "tensor") -> None:
        self._part("all-gather", whole, times, group)

    def scatter(self, whole: float, times: int = 1, group: str = "tensor") -> None:
        self._part("reduce-scatter", whole, times, group)

    def _part(self, kind: Kind, whole: float, times: int, group: str) -> None:
        size = self.rank.tensor if group == "tensor" else self.rank.context
        small, large = times * whole / size, times * whole
        calls = Calls(times, small, large) if kind == "all-gather" else Calls(times, large, small)
        self.traffic.add("context" if group == "context" else "activations", kind, group, size, calls)

    def into_columns(self, times: int = 1) -> None:
        """Forward, before a product whose columns are split."""
        if self.rank.scattered:
            self.gather(self.whole, times)

    def out_of_rows(self, times: int = 1) -> None:
        """Forward, behind a product whose rows are split."""
        if self.rank.scattered:
            self.scatter(self.whole, times)
        else:
            self.sum(self.whole, times)

    def back_out_of_columns(self, trains: bool) -> None:
        """Backward of the former.

        Args:
            trains: whether its weights do: their gradient needs all rows once more.
        """
        if not self.rank.scattered:
            self.sum(self.whole)
            return
        if trains:
            self.gather(self.whole)
        self.scatter(self.whole)

    def back_into_rows(self) -> None:
        """Backward of the latter: nothing without sequence parallelism."""
        if self.rank.scattered:
            self.gather(self.whole)

    def adapter(self, name: str, forward: int) -> None:
        """A row-parallel layer's adapter sums in the forward pass, a column-parallel one's in the backward pass.

        Args:
            name: of the layer.
            forward: forward passes.
        """
        size = self.rank.own_rows * self.rank.config.lora.rank * self.rank.element
        row = name in ("linear_proj", "linear_fc2")
        if not self.rank.scattered:
            self.sum(size, forward if row else 1)
            return
        self.gather(size, 1 if row else forward)
        self.scatter(size, forward if row else 1)


def add_decoder(rank: Rank, traffic: Traffic) -> None:
    """The calls of all packs of a step."""
    if not rank.decodes:
        return
    calls, again = _Layers(rank, traffic), layers_again(rank.model, rank.config.parallel)
    for chunk in rank.chunks():
        for pack in rank.packs:
            needed = chunk.always
            for layer in chunk.layers:
                needed = _layer(calls, pack, layer in rank.model.text.cross_attention_layers, needed, layer in again)
            if chunk.first:
                _embedding(calls)
            if chunk.last:
                _head(calls, pack, needed or rank.trains_also("norms", "text"))


def _layer(calls: _Layers, pack: Pack, cross: bool, needed: bool, again: bool) -> bool:
    """Whether the rows that leave the layer ask for a gradient.

    Args:
        needed: whether those that come into it do.
        again: whether the layer is computed again.
    """
    rank = calls.rank
    if cross and not pack.frames:
        return needed  # rows pass through as they are
    forward = 2 if again else 1
    for _ in range(forward):
        calls.into_columns(2)
        calls.out_of_rows(2)
    reach = Reach.of(rank, cross, needed)
    _backward(calls, cross, reach)
    adapted = rank.adapted("cross_layers" if cross else "text")
    for name in adapted - {"linear_kv"}:
        calls.adapter(name, forward)
    if cross:
        _frames(calls, rank.own_frames(pack), "linear_kv" in adapted)
    if rank.context > 1:
        _context(calls, cross, forward, reach)
    return reach.output


def _backward(calls: _Layers, cross: bool, reach: Reach) -> None:
    trains = ("cross_layers" if cross else "text") in calls.rank.gradients.parts
    if reach.mlp_inner:
        calls.back_into_rows()
    if reach.mlp_rows:
        calls.back_out_of_columns(trains)
    if reach.mixed:
        calls.back_into_rows()
    if reach.rows:
        calls.back_out_of_columns(trains)


def _frames(calls: _Layers, frames: int, adapted: bool) -> None:
    """Gradients of the features that a cross layer's keys and values are made of."""
    rank = calls.rank
    rows = frames * rank.model.vision.tokens_per_frame * rank.element
    if frames and (rank.gradients.features or "cross_layers" in rank.gradients.parts):
        calls.sum(rows * rank.width)
    if frames and adapted:
        calls.sum(rows * rank.config.lora.rank)


def _context(calls: _Layers, cross: bool, forward: int, reach: Reach) -> None:
    rank, text = calls.rank, calls.rank.model.text
    heads, groups = text.num_attention_heads // rank.tensor, text.num_key_value_heads // rank.tensor
    if not cross:
        keys = rank.rows * 2 * groups * text.head_dim * rank.element
        calls.gather(keys, forward, "context")
        if reach.queries:
            calls.scatter(keys, 1, "context")
        return
    queries = rank.rows * heads * text.head_dim * rank.element
    passes = forward + reach.mixed
    results = (queries + rank.rows * heads * LOG_SUM) * passes
    calls.gather(queries, forward, "context")
    calls.traffic.add("context", "all-to-all", "context", rank.context, Calls(2 * passes, results, results))
    if reach.queries:
        calls.scatter(queries, 1, "context")


def _embedding(calls: _Layers) -> None:
    calls.out_of_rows()
    if "text" in calls.rank.gradients.parts:
        calls.back_into_rows()


def _head(calls: _Layers, pack: Pack, needed: bool) -> None:
    """What enters the product that makes logits, and the losses over a split vocabulary: the largest logit of every row with a
    target, then two sums by row at once."""
    rank = calls.rank
    size = 3 * LOG_SUM * pack.targets[rank.place.context]
    calls.into_columns()
    calls.traffic.add("loss", "all-reduce", "tensor", rank.tensor, Calls(2, size, size))
    if needed:
        calls.back_out_of_columns(False)  # the rows that entered are kept
