"""Attention inside a frame for the fused layer: forward, and backward from what the forward pass gave.

Queries, keys and values stay where their product wrote them, [F, T, 3, heads, d], and their gradients are written the same way
where the library takes strides. Which library is chosen once for a device, by speed where it was measured and by a small
problem that it must get right.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module

import torch
from torch import Tensor

from model.errors import InputError

State = tuple[Tensor, ...]
"""What a library's backward pass takes beside operands and output; the logsumexp first."""

BACKENDS = ("flash_4", "cudnn", "flash_2", "flash", "efficient", "cpu", "formula")
FASTEST: dict[int, tuple[str, ...]] = {9: ("flash_4", "cudnn", "flash_2", "flash", "efficient")}
"""Major compute capability -> libraries, fastest first. Hopper, a layer of 32 frames at 11B, forward and backward: cuDNN 1.17 and
3.34 ms, flash-attn 2 1.62 and 5.47 ms, torch's flash 1.78 and 5.61 ms."""
_OTHERS = ("flash_2", "flash", "efficient")

CHANGING = ("cudnn", "efficient")
"""Libraries whose backward pass adds in another order each time, and has no other form."""

_TYPES = (torch.bfloat16, torch.float16)
_TRIAL_FRAMES, _TRIAL_TOKENS, _TRIAL_ERROR = 2, 200, 0.06


@dataclass(frozen=True)
class Attention:
    """One library's attention."""

    name: str
    forward: Callable[[Tensor], tuple[Tensor, State]]
    """qkv [F, T, 3, heads, d] -> mixed [F, T, heads, d] without gaps, state."""
    backward: Callable[[Tensor, Tensor, Tensor, State], Tensor]
    """dmixed, qkv, mixed, state -> dqkv, in the shapes above."""


def of(name: str) -> Attention:
    """A library by its name.

    Raises:
        InputError: an unknown name.
    """
    if name not in BACKENDS:
        raise InputError(f"attention {name!r} of the fused layer is not known; use one of {', '.join(BACKENDS)}")
    module = import_module(f"model.vision.fused.libraries.{name}")
    return Attention(name, module.forward, module.backward)


def problem(name: str, device: torch.device) -> str | None:
    """Why a library cannot be tried on a device; None if it can."""
    found: str | None = import_module(f"model.vision.fused.libraries.{name}").problem(device)
    return found


def trial(name: str, device: torch.device, dtype: torch.dtype, heads: int, width: int) -> str:
    """What is wrong with a library here, on a small problem; '' where output and gradients are those of the formula.

    Args:
        heads: number of them.
        width: of a head.
    """
    from model.vision.fused.libraries import formula

    shape = (_TRIAL_FRAMES, _TRIAL_TOKENS, 3, heads, width)
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(shape, generator=generator, device="cpu").to(device, dtype)
    dmixed = torch.randn(shape[0], shape[1], heads, width, generator=generator, device="cpu").to(device, dtype)
    try:
        library = of(name)
        mixed, state = library.forward(qkv)
        found = (mixed, library.backward(dmixed, qkv, mixed, state))
        exact, logs = formula.forward(qkv.float())
        expected = (exact, formula.backward(dmixed.float(), qkv.float(), exact, logs))
        apart = max(float((a.float() - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=True))
    except Exception as error:  # libraries refuse sizes in many ways
        return f"{type(error).__name__}: {(str(error) or '?').splitlines()[0]}"
    return "" if apart <= _TRIAL_ERROR else f"its numbers are off by {apart:.3g} of the largest"


def choose(device: torch.device, dtype: torch.dtype, heads: int, width: int) -> Attention:
    """The fastest library that works for heads of a width in a dtype on a device; the formula where none does.

    Under torch's deterministic algorithms one whose gradients are the same each time.
    """
    return _choose(device, dtype, heads, width, torch.are_deterministic_algorithms_enabled())


@cache
def _choose(device: torch.device, dtype: torch.dtype, heads: int, width: int, deterministic: bool) -> Attention:
    if device.type != "cuda":
        wanted: tuple[str, ...] = ("cpu",) if device.type == "cpu" else ()
    elif dtype in _TYPES:
        wanted = FASTEST.get(torch.cuda.get_device_capability(device)[0], _OTHERS)
    else:
        wanted = ("efficient",)
    for name in wanted:
        if problem(name, device) is not None or (deterministic and name in CHANGING):
            continue
        wrong = trial(name, device, dtype, heads, width)
        if not wrong:
            return of(name)
        warnings.warn(f"attention {name} of the tower does not work here ({wrong}); the next one is taken", stacklevel=2)
    return of("formula")
