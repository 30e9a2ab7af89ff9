"""Products whose last step is what follows them, the sum with the state or gelu: a kernel of quack-kernels writes that alone.

Beside a product and a row kernel they spare, of a layer of width D in 16 bits, 4 D bytes a row where the output is summed,
2 D behind attention, and 16 D where gelu follows and its entry is not kept. They round once where separate operations round
after each step, so a layer's numbers differ by rounding from those without them.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

TAKEN: tuple[str, ...] = ()
"""Which of `sum` and `gelu` are used where they work. None: whether they are faster depends on the card's products, and is
measured by `tests.model.vision.fused.measure_joined`."""

_TYPES = (torch.bfloat16, torch.float16)
_TRIAL_ERROR = 0.02

Joined = Callable[..., Tensor]


def formula_sum(x: Tensor, weight: Tensor, total: Tensor, bias: Tensor | None) -> Tensor:
    """total + x weight^T + bias, rounded once: x [rows, in], weight [out, in], total and result [rows, out], bias [out]."""
    product = x.float() @ weight.float().t() + total.float()
    return (product if bias is None else product + bias.float()).to(x.dtype)


def formula_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """gelu(x weight^T + bias), rounded once; shapes as above."""
    return F.gelu(x.float() @ weight.float().t() + bias.float()).to(x.dtype)


def quack_sum(x: Tensor, weight: Tensor, total: Tensor, bias: Tensor | None, tuned: bool = False) -> Tensor:
    """As `formula_sum`."""
    from quack.gemm_interface import gemm_add  # type: ignore[import-not-found, unused-ignore]

    result: Tensor = gemm_add(x, weight.t(), total, bias=bias, tuned=tuned)
    return result


def quack_gelu(x: Tensor, weight: Tensor, bias: Tensor, tuned: bool = False) -> Tensor:
    """As `formula_gelu`."""
    from quack.gemm_interface import gemm_act  # type: ignore[import-not-found, unused-ignore]

    result: Tensor = gemm_act(x, weight.t(), bias=bias, activation="gelu_erf", store_preact=False, tuned=tuned)[1]
    return result


FORMS: dict[str, tuple[Joined, Joined]] = {"sum": (quack_sum, formula_sum), "gelu": (quack_gelu, formula_gelu)}


def trial(name: str, device: torch.device, dtype: torch.dtype) -> str:
    """What is wrong with a kernel here, on a small problem; '' where it comes out right."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device="cpu").to(device, dtype)

    x, weight, total, bias = drawn(200, 256), drawn(384, 256) / 16, drawn(200, 384), drawn(384)
    form, formula = FORMS[name]
    arguments: tuple[Any, ...] = (x, weight, bias) if name == "gelu" else (x, weight, total, bias)
    try:
        found, expected = form(*arguments).float(), formula(*arguments).float()
        apart = float((found - expected).abs().max() / expected.abs().max())
    except Exception as error:  # another version may have other arguments
        return f"{type(error).__name__}: {(str(error) or '?').splitlines()[0]}"
    return "" if apart <= _TRIAL_ERROR else f"its numbers are off by {apart:.3g} of the largest"


@cache
def _works(name: str, device: torch.device, dtype: torch.dtype) -> bool:
    if importlib.util.find_spec("quack") is None:
        return False
    wrong = trial(name, device, dtype)
    if wrong:
        warnings.warn(f"joined product {name} of the tower does not work here ({wrong}); separate kernels run", stacklevel=2)
    return not wrong


def choose(name: str, x: Tensor) -> Joined | None:
    """The kernel for rows like x, if one is to be used."""
    if name not in TAKEN or not x.is_cuda or x.dtype not in _TYPES or torch.cuda.get_device_capability(x.device)[0] != 9:
        return None
    return FORMS[name][0] if _works(name, x.device, x.dtype) else None
