"""Which modules the decoder's layers are made of. The one place to plug in fused implementations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
from torch import Tensor

from model.attention.cores import CrossCore, SelfCore
from model.errors import InputError
from model.fp8 import fp8_problem, transformer_engine_problem
from model.text.cross_layer import GatedCrossLayer
from model.text.norm import RMSNorm

MODULES = ("auto", "torch", "transformer_engine")
HEAD_MULTIPLE, MOST_HEAD = 8, 256
"""Widths of heads that its fused attention takes over packed rows."""


@dataclass(frozen=True)
class ModuleProvider:
    """Classes with the constructor signatures that megatron-core's specs expect."""

    norm: type[Any]
    column_linear: type[Any]
    row_linear: type[Any]
    self_core: type[Any]
    """Rotates and attends over packed rows."""
    cross_core: type[Any]
    """Attends from packed rows to frames."""
    norm_column_linear: type[Any] | None = None
    """A norm and the column-parallel product behind it; None: two modules. Its norm is named as in `fused_norms`."""
    frame_linear: type[Any] | None = None
    """Column-parallel product over the frames' tokens; None takes `column_linear`."""
    swiglu: Callable[[Tensor], Tensor] | None = None
    """[..., 2 I] -> [..., I] in one kernel; None: torch's functions."""
    cross_layer: type[Any] = GatedCrossLayer
    """`GatedCrossLayer`, or one that computes it in another precision."""


def torch_provider() -> ModuleProvider:
    """Plain torch kernels inside megatron-core's parallel linear layers: runs on CPU and on any GPU."""
    return ModuleProvider(RMSNorm, ColumnParallelLinear, RowParallelLinear, SelfCore, CrossCore)


def transformer_engine_provider(*, fuse_norms: bool = True, fp8_cross_layers: bool = False) -> ModuleProvider:
    """Transformer Engine's modules: fused norms, fused self-attention over packed rows, products that fp8 can take over.

    The cross layers' attention, their norms of queries and keys, the final norm, embedding and head stay as they are.

    Args:
        fuse_norms: False leaves norms outside the linear layers, for adapters that have to see a layer's input.
        fp8_cross_layers: under fp8, the cross layers' products too, with current scaling; else they keep the parameters' dtype.

    Raises:
        InputError: Transformer Engine does not import.
    """
    try:
        from model.text.transformer_engine import modules as te
    except ImportError as error:
        raise InputError(
            f"modules is 'transformer_engine', but Transformer Engine does not import ({error}); install it or use modules=torch"
        ) from None
    return ModuleProvider(
        norm=RMSNorm,
        column_linear=te.EngineColumnLinear,
        row_linear=te.EngineRowLinear,
        self_core=te.EngineSelfCore,
        cross_core=CrossCore,
        norm_column_linear=te.EngineNormColumnLinear if fuse_norms else None,
        frame_linear=te.EngineFrameLinear,
        swiglu=te.swiglu,
        cross_layer=te.CurrentScalingCrossLayer if fp8_cross_layers else te.FullPrecisionCrossLayer,
    )


def _obstacle(dtype: str, head_dim: int) -> str | None:
    """Why a decoder cannot be made of Transformer Engine's modules here; None if it can."""
    problem = transformer_engine_problem()
    if problem is not None:
        return problem
    if dtype != "bf16":
        return f"precision.dtype is {dtype}, and its attention computes in bf16; use precision.dtype=bf16"
    if head_dim % HEAD_MULTIPLE or head_dim > MOST_HEAD:
        return f"the decoder's heads are {head_dim} wide, and its attention takes multiples of {HEAD_MULTIPLE} up to {MOST_HEAD}"
    return None


def choose_provider(
    modules: str, *, dtype: str = "bf16", fp8: str = "none", fp8_cross_layers: bool = False, fuse_norms: bool = True,
    head_dim: int = HEAD_MULTIPLE,
) -> ModuleProvider:  # fmt: skip
    """The provider that a run's config asks for.

    Args:
        modules: auto | torch | transformer_engine; auto takes Transformer Engine where it imports, on CUDA, in bf16, for heads
            that its attention takes.
        dtype: fp32 | bf16, of the parameters.
        fp8: none | delayed | current.
        fp8_cross_layers, fuse_norms: see `transformer_engine_provider`.
        head_dim: width of the decoder's heads.

    Raises:
        InputError: modules or fp8 that this machine does not have, with the remedy.
    """
    if modules not in MODULES:
        raise InputError(f"modules is {modules!r}; use one of {', '.join(MODULES)}")
    if fp8 != "none":
        if modules == "torch":
            raise InputError(f"precision.fp8 is {fp8} with modules=torch, which has no fp8; use modules=transformer_engine")
        problem = fp8_problem()
        if problem is not None:
            raise InputError(f"precision.fp8 is {fp8}, but {problem}; use precision.fp8=none or a machine with fp8")
    if modules == "torch":
        return torch_provider()
    obstacle = _obstacle(dtype, head_dim)
    if obstacle is not None and modules == "auto" and fp8 == "none":
        return torch_provider()
    if obstacle is not None:
        raise InputError(f"Transformer Engine's modules cannot be used: {obstacle}; or use modules=torch with precision.fp8=none")
    return transformer_engine_provider(fuse_norms=fuse_norms, fp8_cross_layers=fp8_cross_layers)
