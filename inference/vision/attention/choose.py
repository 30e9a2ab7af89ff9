"""Which attention the tower uses: a name, or `auto` by what was measured."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from model.errors import InputError

BACKENDS = ("plain", "sdpa", "flash", "cudnn", "efficient", "flex", "flash_attn", "transformer_engine")

FASTEST: dict[int, tuple[str, ...]] = {9: ("cudnn", "flash")}
"""Major compute capability -> backends, fastest first. Hopper: a layer at 32 frames took cuDNN 1.16 ms, torch's flash 1.73 ms."""

_OTHERS = ("flash",)
"""On devices that nobody measured."""


@dataclass(frozen=True)
class Backend:
    """A way to compute attention."""

    name: str
    attend: Callable[[Tensor, Tensor, Tensor], Tensor]
    """q [F, heads, T, d], k and v [F, heads, S, d] -> [F, T, heads * d]."""
    traceable: bool
    """Whether torch.compile can take it into the graph of a layer."""


def backend_problem(name: str, device_type: str) -> str | None:
    """Why a backend cannot be used on a kind of device; None if it can."""
    module = importlib.import_module(f"inference.vision.attention.{name}")
    found: str | None = module.problem(device_type)
    return found


def choose_backend(name: str, device: torch.device, dtype: torch.dtype) -> Backend:
    """The backend of a name.

    Args:
        name: one of `BACKENDS`, or `auto`: on CUDA the fastest that works in 16 bits, elsewhere torch's own choice.

    Raises:
        InputError: an unknown name, or a backend that cannot be used here.
    """
    if name == "auto":
        name = _fastest(device, dtype)
    if name not in BACKENDS:
        raise InputError(f"vision attention {name!r} is not known; use auto or one of {', '.join(BACKENDS)}")
    problem = backend_problem(name, device.type)
    if problem is not None:
        raise InputError(f"vision attention {name} cannot be used: {problem}; use auto")
    module = importlib.import_module(f"inference.vision.attention.{name}")
    return Backend(name, module.attend, module.TRACEABLE)


def _fastest(device: torch.device, dtype: torch.dtype) -> str:
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return "sdpa"
    order = FASTEST.get(torch.cuda.get_device_capability(device)[0], _OTHERS)
    return next((name for name in order if backend_problem(name, device.type) is None), "sdpa")
