"""A folder of random weights of any size, written in blocks: conversions can be tried and measured without real weights."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from model.config import VideoMllamaConfig
from model.conversion.folder import write_hf_folder
from model.conversion.folder_reader import read_json
from model.conversion.stream import cut
from model.conversion.table import hf_shapes
from model.conversion.tensor_file import StreamedTensor, TensorInfo
from model.errors import InputError
from moss_train.convert.progress import ByteProgress
from moss_train.convert.termination import termination_cleans_up

_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
_BITS: dict[torch.dtype, tuple[Any, int, int, Any]] = {
    torch.bfloat16: (np.uint16, 16, 0x807F, np.int16),
    torch.float32: (np.uint32, 32, 0x807FFFFF, np.int32),
}
"""Dtype -> unsigned integer of the same width, its bits, the bits of sign and mantissa, signed integer of the same width."""

_BLOCK_BYTES = 16 << 20


@termination_cleans_up()
def write_random_folder(
    config: VideoMllamaConfig, out: Path, *, dtype: str = "bf16", seed: int = 0, max_file_bytes: int = 5 * 10**9
) -> Path:
    """Writes weights in which nothing is neutral: gates are open, norms differ from 1, biases from 0.

    Args:
        config: the model.
        out: the folder.
        dtype: bf16 | fp32.
        seed: with the tensor's name it fixes the values.
        max_file_bytes: bytes in one safetensors file at most, unless a single tensor is larger.

    Raises:
        InputError: the folder cannot be written, or there is too little room.
    """
    infos = {name: TensorInfo(shape, _DTYPES[dtype]) for name, shape in hf_shapes(config).items()}
    with ByteProgress("random", sum(info.num_bytes for info in infos.values())) as progress:

        def blocks(name: str, info: TensorInfo) -> Iterator[Tensor]:
            for block in _random_blocks(name, info, seed):
                progress.advance(block.numel() * block.element_size())
                yield block

        tensors = {name: StreamedTensor(info, partial(blocks, name, info)) for name, info in infos.items()}
        return write_hf_folder(out, tensors, config, max_file_bytes=max_file_bytes)


def _random_blocks(name: str, info: TensorInfo, seed: int) -> Iterator[Tensor]:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = np.random.Generator(np.random.SFC64(int.from_bytes(digest[:8], "little")))
    if len(info.shape) == 1:
        mean = 1.0 if "norm" in name and name.endswith("weight") else 0.5 if "gate" in name else 0.0
        yield torch.from_numpy(generator.normal(mean, 0.1, info.shape)).to(info.dtype)
        return
    deviation = math.prod(info.shape[1:]) ** -0.5
    if "embed" in name and "patch" not in name:
        deviation = 1.0 if name.startswith("language_model.") else 0.1
    for _, rows in cut(0, info.shape[0], info.row_bytes, _BLOCK_BYTES):
        yield _random_matrix((rows, *info.shape[1:]), info.dtype, deviation, generator)


def _random_matrix(shape: tuple[int, ...], dtype: torch.dtype, deviation: float, generator: np.random.Generator) -> Tensor:
    """Random signs and mantissas under one exponent: some ten times faster than a normal distribution, and as good here."""
    # Magnitudes are uniform in [e, 2 e), whose root mean square is 1.53 e.
    exponent = 127 + round(math.log2(deviation / 1.53))
    kind, width, kept, signed = _BITS[dtype]
    count = math.prod(shape)
    bits = generator.bit_generator.random_raw(-(-count * width // 64)).view(kind)[:count]
    np.bitwise_and(bits, kind(kept), out=bits)
    np.bitwise_or(bits, kind(exponent << (width - 9)), out=bits)
    return torch.from_numpy(bits.view(signed)).view(dtype).view(shape)


def model_named(name: str) -> VideoMllamaConfig:
    """The model of a shipped group (`11b`) or of a config.json.

    Raises:
        InputError: neither of them.
    """
    if name.endswith(".json"):
        return VideoMllamaConfig.from_hf(read_json(Path(name)))
    from moss_train.config.compose import conf_dir

    groups = {path.stem: path for path in sorted((conf_dir() / "model").glob("*.yaml"))}
    if name not in groups:
        raise InputError(f"MODEL is {name!r}; use one of {', '.join(groups)}, or the path of a config.json")
    return VideoMllamaConfig.from_dict(yaml.safe_load(groups[name].read_text()))
