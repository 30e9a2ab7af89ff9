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
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

TAKEN: tuple[str, ...] = ("gelu",)
"""Which of `sum` and `gelu` are used where they work. H200, 32 frames: fc1 with gelu 0.90 ms, apart 1.12 ms; the sum was not
measured yet (`tests.model.vision.fused.measure_joined`)."""


class Tile(NamedTuple):
    """How a product is cut for a Hopper GPU."""

    rows: int
    columns: int
    pingpong: bool
    """Whether two groups of warps take turns with tiles of their own."""


TILES = {"gelu": Tile(128, 192, True), "sum": Tile(128, 160, True)}

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


@cache
def _configured(tile: Tile) -> Any:
    from quack.gemm_config import GemmConfig  # type: ignore[import-not-found, unused-ignore]

    return GemmConfig(
        tile_m=tile.rows, tile_n=tile.columns, pingpong=tile.pingpong, cluster_m=2, cluster_n=1, is_dynamic_persistent=False,
        device_capacity=9,
    )  # fmt: skip


def _quack(
    x: Tensor, weight: Tensor, total: Tensor | None, bias: Tensor | None, activation: str | None, tile: Tile
) -> Tensor:  # fmt: skip
    from quack.gemm_interface import gemm_act  # type: ignore[import-not-found, unused-ignore]

    result: Tensor = gemm_act(
        x, weight.t(), C=total, bias=bias, activation=activation, store_preact=False, tuned=False, config=_configured(tile)
    )[1]
    return result


def quack_sum(x: Tensor, weight: Tensor, total: Tensor, bias: Tensor | None, tile: Tile = TILES["sum"]) -> Tensor:
    """As `formula_sum`."""
    return _quack(x, weight, total, bias, None, tile)


def quack_gelu(x: Tensor, weight: Tensor, bias: Tensor, tile: Tile = TILES["gelu"]) -> Tensor:
    """As `formula_gelu`."""
    return _quack(x, weight, None, bias, "gelu_erf", tile)


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
