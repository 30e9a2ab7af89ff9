"""FlashAttention 4 over block lists made from the rows' bounds, where the package flash-attn-4 is installed.

The same lists as for FlexAttention, with kernels that keep a Hopper GPU's matrix units busier. The kernels are compiled on
first use (some seconds) for a number of heads, not for a number of rows or keys. Lists must come in multiples of the kernels'
own tiles, which differ by width of a head and by generation of GPU: what was not run is not taken.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import warnings
from typing import Any

import torch
from torch import Tensor

from model.attention.cross.block_lists import TileLists, key_bounds, tile_lists
from model.attention.cross.plan import CrossPlan
from model.errors import InputError

WIDTH = 128
"""Width of a head for which the tiles below are multiples of the kernels' own."""
CAPABILITY = 9
"""Major compute capability, likewise: Hopper."""
FORWARD_TILE = (128, 128)
BACKWARD_TILE = (64, 128)
"""Rows and keys of the tiles in the lists, chosen by measurement."""


@functools.cache
def available(device: torch.device) -> bool:
    """Whether the package is installed and the device is one for which the tiles are right."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device)[0] != CAPABILITY:
        return False
    try:
        importlib.metadata.distribution("flash-attn-4")
    except importlib.metadata.PackageNotFoundError:
        return False
    # flash-attn 2 has a module of the first name, with fewer arguments.
    missing = next((name for name in ("flash_attn.cute", "cutlass.cute") if not _found(name)), None)
    if missing is not None:
        warnings.warn(
            f"flash-attn-4 is installed, but its module {missing} is not found; attention runs without it, and slower: "
            "install nvidia-cutlass-dsl with the extra of your CUDA, or uninstall flash-attn-4",
            stacklevel=2,
        )
    return missing is None


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # of a package above it
        return False


def check(device: torch.device, dtype: torch.dtype, width: int) -> None:
    """Refuses queries that these kernels are not used for.

    Args:
        device, dtype: of the queries.
        width: of a head.

    Raises:
        InputError: flash-attn-4 or a GPU that it is used on is missing, or another dtype or width.
    """
    if not available(device):
        raise InputError(
            "attention.cross is flash, which needs the package flash-attn-4 and a Hopper GPU (compute capability 9); "
            "install it, or use auto"
        )
    if width != WIDTH or dtype not in (torch.bfloat16, torch.float16):
        raise InputError(f"attention.cross is flash, which is for heads of {WIDTH} in bf16, not of {width} in {dtype}; use auto")


@functools.cache
def _sees() -> Any:
    """The mask as a function of one row and one key, in the kernels' language."""
    import cutlass  # type: ignore[import-not-found, unused-ignore]
    from cutlass import cute
    from flash_attn.cute import utils

    # Without annotations: the kernels' compiler would read them as its own types.
    @cute.jit
    def sees(batch, head, row, key, lengths, bounds):  # type: ignore[no-untyped-def]
        begin = utils.scalar_to_ssa(bounds[0][row[0]], cutlass.Int32)
        end = utils.scalar_to_ssa(bounds[1][row[0]], cutlass.Int32)
        return (key >= begin) & (key < end)

    return sees


def _sparse(lists: TileLists, tile: tuple[int, int]) -> Any:
    from flash_attn.cute.block_sparsity import BlockSparseTensorsTorch

    return BlockSparseTensorsTorch(
        lists.partial_count, lists.partial_index, lists.full_count, lists.full_index, block_size=tile
    )  # fmt: skip


def flash_cross_attention(q: Tensor, k: Tensor, v: Tensor, plan: CrossPlan) -> tuple[Tensor, Tensor]:
    """Shapes and results as `model.attention.cross.attention.cross_attention` with the log-sums; both are differentiable.

    Raises:
        InputError: as `check`.
    """
    check(q.device, q.dtype, q.shape[-1])
    from flash_attn.cute import flash_attn_func

    forward = plan.derive("flash forward", lambda p: _sparse(tile_lists(p, *FORWARD_TILE)[0], FORWARD_TILE))
    backward = plan.derive("flash backward", lambda p: _sparse(tile_lists(p, *BACKWARD_TILE)[1], BACKWARD_TILE))
    out, lse = flash_attn_func(
        q[None], k.flatten(0, 1)[None], v.flatten(0, 1)[None], softmax_scale=q.shape[-1] ** -0.5, pack_gqa=False,
        mask_mod=_sees(), aux_tensors=list(key_bounds(plan)),
        block_sparse_tensors=forward, block_sparse_tensors_bwd=backward, return_lse=True,
    )  # fmt: skip
    return out[0].flatten(1), lse[0].transpose(0, 1)
