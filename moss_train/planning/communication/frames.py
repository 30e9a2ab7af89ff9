"""Frames on their way: pixels to the ranks that encode, features to those that attend, their gradients back.

The plan of the step itself (`moss_train.frames.plan`) says what goes where, so nothing is estimated here.
"""

from __future__ import annotations

from moss_train.frames.plan import FramePlan, Transfers, plan_frames
from moss_train.frames.settings import GIB
from moss_train.frames.windows import WindowBound
from moss_train.parallel.layout import place_of
from moss_train.planning.communication.calls import Calls, Traffic
from moss_train.planning.communication.rank import Rank

LABEL = 8
"""Bytes of a patch's label."""


def frame_plan(rank: Rank) -> FramePlan:
    """The step's plan as this rank makes it."""
    vision, sizes = rank.model.vision, rank.config.parallel
    places = [place_of(number, sizes, rank.replicas) for number in range(rank.ranks)]
    attending = [stage.crosses > 0 for stage in rank.stages]
    bound = None
    if rank.decodes:
        bound = WindowBound(
            limit=rank.config.vision.window_gib * GIB,
            pixels=vision.num_channels * vision.image_size**2,
            features=vision.tokens_per_frame * rank.width * rank.element,
            replica_ranks=rank.ranks // rank.replicas,
            context=rank.context,
            stages=sizes.pipeline,
        )
    return plan_frames(rank.shape.counts, places, [attending[place.pipeline] for place in places], bound, rank.number)


def add_frames(rank: Rank, traffic: Traffic) -> None:
    """All windows of a step."""
    vision = rank.model.vision
    pixels = vision.num_channels * vision.image_size**2 + 1  # the aspect ratio's number behind them
    features = vision.tokens_per_frame * rank.width * rank.element
    for window in frame_plan(rank).windows:
        if not sum(window.frames):
            continue
        _exchange(rank, traffic, "pixels", window.pixels, pixels)
        if not rank.decodes:
            _exchange(rank, traffic, "labels", window.pixels, LABEL * vision.grid_size**2)
            continue
        _exchange(rank, traffic, "features", window.features, features)
        if rank.gradients.features:
            _exchange(rank, traffic, "features", window.gradients, features)


def _exchange(rank: Rank, traffic: Traffic, purpose: str, transfers: Transfers, row: int) -> None:
    """One collective of the world, if any row leaves its rank."""
    if not transfers.crosses:
        return
    own = rank.number
    gives = sum(t.span.size for t in transfers if t.source == own != t.target)
    gets = sum(t.span.size for t in transfers if t.target == own != t.source)
    traffic.add(purpose, "exchange", "world", rank.ranks, Calls(1, gives * row, gets * row))
