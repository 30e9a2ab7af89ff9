"""The running averages of weights (EMA) in a checkpoint, read in place of the weights. Imports nothing of megatron-core."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from model.conversion.tensor_file import TensorInfo, scratch
from model.errors import InputError
from moss_train.checkpoint.piece import Box
from moss_train.checkpoint.tensors import CheckpointTensors

PREFIX = "optimizer.ema."
"""Before the weight's name, as of every state of an optimizer."""


class AveragedTensors(CheckpointTensors):
    """A checkpoint in which every trained weight is its average, in the weight's dtype; frozen weights are themselves.

    Raises:
        InputError: the checkpoint has no averages.
    """

    def __init__(self, folder: Path, *, verify: bool = True) -> None:
        super().__init__(folder, verify=verify)
        self.averaged = {key.removeprefix(PREFIX) for key in self.keys() if key.startswith(PREFIX)}
        if not self.averaged:
            raise InputError(
                f"{folder} holds no average of weights: its run had optimizer.ema_decay 0 or it was written without optimizer "
                "state; take its weights, without train.init_ema or --ema"
            )

    def read_rows(self, key: str, first: int, count: int) -> Tensor:
        """As of any tensor; of a trained weight the average."""
        if key not in self.averaged:
            return super().read_rows(key, first, count)
        return super().read_rows(PREFIX + key, first, count).to(self.info(key).dtype)

    def read_box(self, key: str, box: Box, target: Tensor) -> None:
        """As of any tensor; of a trained weight the average."""
        if key not in self.averaged:
            super().read_box(key, box, target)
            return
        average: TensorInfo = self.info(PREFIX + key)
        buffer = scratch(box[1], average.dtype)
        super().read_box(PREFIX + key, box, buffer)
        target.copy_(buffer)
