"""The parameters of a checkpoint as a conversion sees them: adapters, where it has some, are merged on the way."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from model.conversion.stream import ParameterRows, whole_parameter
from model.conversion.tensor_file import TensorInfo
from model.lora.merge import merge
from model.lora.names import adapter_keys
from model.lora.spec import LoraSpec
from moss_train.checkpoint.averages import AveragedTensors
from moss_train.checkpoint.description import CheckpointDescription
from moss_train.checkpoint.tensors import CheckpointTensors


class _Merged:
    """`ParameterRows` in which adapted matrices are W + scale * B A; a row of the result needs one row of B only."""

    def __init__(self, tensors: CheckpointTensors, stems: dict[str, str], scale: float) -> None:
        self._tensors, self._stems, self._scale = tensors, stems, scale
        self._a: tuple[str, Tensor] | None = None

    def info(self, key: str) -> TensorInfo:
        return self._tensors.info(key)

    def read_rows(self, key: str, first: int, count: int) -> Tensor:
        base = self._tensors.read_rows(key, first, count)
        stem = self._stems.get(key)
        if stem is None:
            return base
        if self._a is None or self._a[0] != stem:
            self._a = stem, whole_parameter(self._tensors, f"{stem}.a")
        return merge(base, self._a[1], self._tensors.read_rows(f"{stem}.b", first, count), self._scale)


def open_parameters(checkpoint: Path, description: CheckpointDescription, *, average: bool = False) -> ParameterRows:
    """The weights of a checkpoint, readable by rows; its optimizer state is left alone.

    Args:
        checkpoint: its folder.
        description: what it says about itself.
        average: take the averages of the trained weights.

    Raises:
        InputError: the checkpoint cannot be read, or holds no averages.
    """
    tensors = AveragedTensors(checkpoint) if average else CheckpointTensors(checkpoint)
    if description.lora is None:
        return tensors
    return _Merged(tensors, adapter_keys(tensors.keys()), LoraSpec.from_dict(description.lora).scale)
