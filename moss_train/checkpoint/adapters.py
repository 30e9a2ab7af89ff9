"""The adapters inside a checkpoint, read whole whatever layout wrote them; no process group is needed."""

from __future__ import annotations

from pathlib import Path

from model.conversion.stream import whole_parameter
from model.lora.merge import Factors
from model.lora.names import adapter_keys
from moss_train.checkpoint.tensors import CheckpointTensors


def read_adapters(checkpoint: Path) -> dict[str, Factors]:
    """All adapters by the checkpoint's name of the matrix that they adapt; empty where there are none.

    Raises:
        InputError: the checkpoint cannot be read.
    """
    tensors = CheckpointTensors(checkpoint)
    found = {
        name: Factors(whole_parameter(tensors, f"{stem}.a"), whole_parameter(tensors, f"{stem}.b"))
        for name, stem in adapter_keys(tensors.keys()).items()
    }
    tensors.close()
    return found
