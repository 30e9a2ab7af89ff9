"""Reads what a rank wants of a checkpoint into its memory, whatever layout wrote it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from model.conversion.stream import cut
from model.conversion.tensor_file import scratch
from model.errors import InputError
from moss_train.checkpoint.optimizer_state import MASTER, initialise_states, key_of, optimizer_states, take_over_states
from moss_train.checkpoint.piece import Piece, common_box
from moss_train.checkpoint.state import ModelPlaces
from moss_train.checkpoint.tensors import CheckpointTensors

READERS = 4
"""Threads of a rank that read; each holds one block of a piece in host memory."""
_BLOCK_BYTES = 64 << 20


def fill(pieces: Sequence[Piece], tensors: CheckpointTensors) -> None:
    """Read the values of pieces; a dtype that differs is converted.

    Raises:
        InputError: the checkpoint lacks something, or stores it in another shape.
    """
    readers = min(READERS, max(1, sum(piece.num_bytes for piece in pieces) >> 26))
    if readers == 1:
        for piece in pieces:
            _read(piece, tensors)
        return
    with ThreadPoolExecutor(readers, thread_name_prefix="checkpoint") as pool:
        for _ in pool.map(lambda piece: _read(piece, tensors), pieces):
            pass


def fill_optimizers(optimizers: list[Any], places: ModelPlaces, tensors: CheckpointTensors) -> None:
    """Read the states of optimizers; the weights themselves are in place already.

    Raises:
        InputError: the checkpoint has no such state, as after training with another optimizer or another choice of what trains.
    """
    initialise_states(optimizers)
    states = list(optimizer_states(optimizers))
    wanted: list[Piece] = []
    for state in states:
        for place in places.of(state.parameter):
            for name, values in state.tensors.items():
                key = key_of(name, place.key)
                if key not in tensors and name == MASTER and tensors.info(place.key).dtype == torch.float32:
                    key = place.key  # saved in fp32, where weights are their own masters; not where their lower halves were
                if key not in tensors:
                    raise InputError(
                        f"{tensors.folder} lacks {key_of(name, place.key)}: it was saved with another optimizer, other dtypes of "
                        "its states or another stage.trainable; use the same ones, or another run_dir with train.init_from"
                    )
                wanted += place.parts(key, values.reshape(-1), state.begin, writes=False)
    fill(wanted, tensors)
    for state in states:
        if state.put is not None:
            for name, values in state.tensors.items():
                state.put(name, values)
    take_over_states(optimizers)


def _read(piece: Piece, tensors: CheckpointTensors) -> None:
    info = tensors.info(piece.key)
    box = (piece.offsets, piece.sizes)
    if info.shape != piece.shape:
        if not piece.padded or info.shape[1:] != piece.shape[1:]:
            raise InputError(
                f"{tensors.folder} has {piece.key} with the shape {list(info.shape)}, this run {list(piece.shape)}; "
                "use the config of the checkpoint"
            )
        piece.values.zero_()  # rows of padding that the checkpoint does not have
        shared = common_box(box, ((0,) * len(info.shape), info.shape))
        if shared is None:
            return
        count = shared[1][0] * (piece.values.numel() // piece.sizes[0])
        piece, box = dataclasses.replace(piece, sizes=shared[1], values=piece.values[:count]), shared
    if piece.values.device.type == "cpu" and piece.values.dtype == info.dtype and piece.values.is_contiguous():
        tensors.read_box(piece.key, box, piece.values.view(piece.sizes))
        return
    rows = box[1][0] if box[1] else 1
    row_elements = piece.values.numel() // max(rows, 1)
    for first, count in cut(0, rows, row_elements * info.dtype.itemsize, _BLOCK_BYTES):
        part = box if not box[1] else ((box[0][0] + first, *box[0][1:]), (count, *box[1][1:]))
        buffer = scratch(part[1], info.dtype)
        tensors.read_box(piece.key, part, buffer)
        with torch.no_grad():
            piece.values[first * row_elements : (first + count) * row_elements].copy_(buffer.view(-1))
