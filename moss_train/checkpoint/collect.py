"""All that a checkpoint takes of a live run on this rank, as pieces whose values are still where they live."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from moss_train.checkpoint.description import CheckpointDescription
from moss_train.checkpoint.loader_state import loader_file
from moss_train.checkpoint.optimizer_state import optimizer_pieces
from moss_train.checkpoint.random_state import random_state
from moss_train.checkpoint.rank_files import RankFiles, random_file
from moss_train.checkpoint.saved import SavedOptimization
from moss_train.checkpoint.state import ModelPlaces, places_of
from moss_train.parallel.layout import ParallelLayout


def collect_training(
    chunks: Sequence[torch.nn.Module],
    vision: torch.nn.Module,
    optimization: SavedOptimization,
    layout: ParallelLayout,
    loader_state: Any,
) -> RankFiles:
    """Weights, optimizer states, random states and, on one rank of each replica, the place in the data."""
    places = places_of(optimization, chunks, vision)
    pieces = [*places.weights(), *optimizer_pieces(optimization.optimizer.chained_optimizers, places)]
    small = {random_file(layout.rank): random_state()}
    if layout.writes_for_replica:
        small[loader_file(layout.place.data)] = loader_state
    return RankFiles(layout.rank, [piece for piece in pieces if piece.writes], places.objects(), small)


def collect_weights(chunks: Sequence[torch.nn.Module], vision: torch.nn.Module, rank: int) -> RankFiles:
    """Weights alone."""
    places = ModelPlaces(chunks, vision)
    return RankFiles(rank, [piece for piece in places.weights() if piece.writes], places.objects())


def described(
    description: CheckpointDescription, optimization: SavedOptimization, layout: ParallelLayout
) -> CheckpointDescription:
    """A description with what the optimizer and the layout know."""
    return dataclasses.replace(
        description, updates=optimization.updates, data_size=layout.data_size, world_size=layout.world_size
    )
