"""Which attention the tower uses: a name, or `auto` by what was measured."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from inference.vision.attention.keys import Keys
from model.errors import InputError

BACKENDS = ("plain", "sdpa", "flash", "cudnn", "efficient", "flex", "flash_attn", "flash_attn_4", "transformer_engine", "triton")

FASTEST: dict[int, tuple[str, ...]] = {9: ("flash_attn_4", "triton", "cudnn", "flash")}
"""Major compute capability -> backends, fastest first. Hopper: a layer at 32 frames took flash-attn-4 0.97 ms, our kernel 1.07,
cuDNN 1.26, torch's flash 1.78."""

_OTHERS = ("flash",)
"""On devices that nobody measured."""

TRIAL_TOKENS, TRIAL_ERROR = 200, 0.05
"""Of the small problem that says whether a backend works; the error is many roundings to bf16."""


@dataclass(frozen=True)
class Backend:
    """A way to compute attention."""

    name: str
    attend: Callable[..., Tensor]
    """q [F, heads, T, d], k and v [F, heads, S, d] -> [F, T, heads * d]; where it takes counts, fp32 [S] of their log2 follow."""
    traceable: bool
    """Whether torch.compile can take it into the graph of a layer."""
    takes_counts: bool = False
    """Whether it weighs keys that count several times. To others they are given several times."""

    def attend_counted(self, q: Tensor, k: Tensor, v: Tensor, keys: Keys | None) -> Tensor:
        """As `attend`, with tokens that count as often as `keys` says; None: each once."""
        if keys is None:
            return self.attend(q, k, v)
        if self.takes_counts:
            return self.attend(q, k, v, keys.log2_counts)
        return self.attend(q, k[:, :, keys.repeated], v[:, :, keys.repeated])


def backend_problem(name: str, device_type: str) -> str | None:
    """Why a backend cannot be used on a kind of device; None if it can."""
    module = importlib.import_module(f"inference.vision.attention.{name}")
    found: str | None = module.problem(device_type)
    return found


def trial_problem(
    attend: Callable[[Tensor, Tensor, Tensor], Tensor], device: torch.device, dtype: torch.dtype, width: int
) -> str:
    """What is wrong with a backend on this device with these libraries; '' where it gives the formula's numbers.

    Args:
        width: of a head.
    """
    from inference.vision.attention.plain import attend as formula
    from inference.vision.blocks import split_heads

    heads = 2
    numbers = 1.5 * torch.randn(1, TRIAL_TOKENS, 3 * heads * width, generator=torch.Generator().manual_seed(0))
    q, k, v = split_heads(numbers.to(device, dtype), heads)
    try:
        apart = float((attend(q, k, v).float() - formula(q.float(), k.float(), v.float())).abs().max())
    except Exception as error:  # libraries refuse sizes in many ways
        return f"{type(error).__name__}: {(str(error) or '?').splitlines()[0]}"
    return "" if apart <= TRIAL_ERROR else f"its numbers are off by {apart:.3g}"


def choose_backend(name: str, device: torch.device, dtype: torch.dtype, width: int = 80) -> Backend:
    """The backend of a name.

    Args:
        name: one of `BACKENDS`, or `auto`: on CUDA the fastest that works in 16 bits, elsewhere torch's own choice.
        width: of a head.

    Raises:
        InputError: an unknown name, or a backend that cannot be used here.
    """
    if name == "auto":
        name = _fastest(device, dtype, width)
    if name not in BACKENDS:
        raise InputError(f"vision attention {name!r} is not known; use auto or one of {', '.join(BACKENDS)}")
    problem = backend_problem(name, device.type)
    if problem is not None:
        raise InputError(f"vision attention {name} cannot be used: {problem}; use auto")
    module = importlib.import_module(f"inference.vision.attention.{name}")
    return Backend(name, module.attend, module.TRACEABLE, getattr(module, "TAKES_COUNTS", False))


@cache
def _fastest(device: torch.device, dtype: torch.dtype, width: int) -> str:
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return "sdpa"
    for name in FASTEST.get(torch.cuda.get_device_capability(device)[0], _OTHERS):
        if backend_problem(name, device.type) is not None:
            continue
        problem = trial_problem(importlib.import_module(f"inference.vision.attention.{name}").attend, device, dtype, width)
        if not problem:
            return name
        warnings.warn(f"vision attention {name} does not work here ({problem}); the next one is taken", stacklevel=2)
    return "sdpa"
