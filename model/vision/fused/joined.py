"""Products whose last step is what follows them, the sum with the state or gelu: a kernel of quack-kernels writes that alone.

Beside a product and a row kernel they spare, of a layer of width D in 16 bits, 4 D bytes a row where the output is summed,
2 D behind attention, 16 D where gelu follows and its entry is not kept, and 16 D in front of gelu on the way back. They round
once where separate operations round after each step, so a layer's numbers differ by rounding from those without them.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

TAKEN: tuple[str, ...] = ("sum", "gelu", "gradient")
"""Which are used where they work. H200, 32 frames without a pause: fc1 with gelu 1.06 ms, apart 1.29; fc2 with the sum 1.03,
apart 1.10; o with sum and norm 0.34, apart 0.38; the gradient 1.35, apart 1.57 (`tests.model.vision.fused.measure_joined`)."""


class Tile(NamedTuple):
    """How a product is cut for a Hopper GPU."""

    rows: int
    columns: int
    pingpong: bool
    """Whether two groups of warps take turns with tiles of their own."""


TILES = {"gelu": Tile(128, 192, True), "sum": Tile(128, 160, True), "gradient": Tile(128, 256, False)}

_TYPES = (torch.bfloat16, torch.float16)
_TRIAL_ERROR = 0.02
_ROWS = 16_384
"""Rows from which on they are taken: a call costs the host more time than two kernels' calls, and a GPU with 8 frames waited."""
_MULTIPLE = 64
"""Widths of which kernels were tried; of a layer they are all such if its own is."""

Joined = Callable[..., Any]
"""Gives a tensor, or a tuple of them."""


def formula_sum(x: Tensor, weight: Tensor, total: Tensor, bias: Tensor | None) -> Tensor:
    """total + x weight^T + bias, rounded once: x [rows, in], weight [out, in], total and result [rows, out], bias [out]."""
    product = x.float() @ weight.float().t() + total.float()
    return (product if bias is None else product + bias.float()).to(x.dtype)


def formula_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """gelu(x weight^T + bias), rounded once; shapes as above."""
    return F.gelu(x.float() @ weight.float().t() + bias.float()).to(x.dtype)


def formula_gradient(dy: Tensor, weight: Tensor, pre: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of a = gelu(pre + bias) and y = a weight^T: gradient of pre, a again, gradient of the bias in fp32.

    Args:
        dy: gradient of y [rows, D].
        weight: [D, I].
        pre: [rows, I].
        bias: [I].
    """
    da = dy.float() @ weight.float()  # [rows, I]
    x = pre.float() + bias.float()
    share = 0.5 * (1 + torch.erf(x * math.sqrt(0.5)))
    dpre = da * (share + x * torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi))
    return dpre.to(dy.dtype), (x * share).to(dy.dtype), dpre.sum(0)


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


@cache
def _gradient_epilogue() -> Any:
    """What the kernel of `quack_gradient` does with an element of the product."""
    from quack.activation import dgelu_erf  # type: ignore[import-not-found, unused-ignore]
    from quack.epilogue.frontend import gemm_epilogue  # type: ignore[import-not-found, unused-ignore]
    from quack.epilogue.ops import RowVecLoad, RowVecReduce  # type: ignore[import-not-found, unused-ignore]

    # Without annotations: the kernels' compiler would read them as its own types.
    def gelu_gradient(acc, c, bias):  # type: ignore[no-untyped-def]
        dpre, activated = dgelu_erf(c + bias, acc)
        return {"D": dpre, "activated": activated, "dbias": dpre}

    loads, sums = {"bias": RowVecLoad("bias")}, {"dbias": RowVecReduce("dbias")}
    return gemm_epilogue(outputs=("activated",), ops=loads, reduces=sums)(gelu_gradient)


def quack_gradient(
    dy: Tensor, weight: Tensor, pre: Tensor, bias: Tensor, tile: Tile = TILES["gradient"]
) -> tuple[Tensor, Tensor, Tensor]:
    """As `formula_gradient`."""
    out = {"D": torch.empty_like(pre), "activated": torch.empty_like(pre)}
    found = _gradient_epilogue()(
        dy, weight, pre, out=out, bias=bias[None], config=_configured(tile), tuned=False, dynamic_scheduler=False
    )
    return out["D"], out["activated"], found["dbias"].view(-1).float()


FORMS: dict[str, tuple[Joined, Joined]] = {
    "sum": (quack_sum, formula_sum), "gelu": (quack_gelu, formula_gelu), "gradient": (quack_gradient, formula_gradient),
}  # fmt: skip


def _several(result: Any) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def trial(name: str, device: torch.device, dtype: torch.dtype) -> str:
    """What is wrong with a kernel here, on a small problem; '' where it comes out right."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device="cpu").to(device, dtype)

    x, weight, total, bias = drawn(200, 256), drawn(384, 256) / 16, drawn(200, 384), drawn(384)
    form, formula = FORMS[name]
    operands = {"sum": (x, weight, total, bias), "gelu": (x, weight, bias), "gradient": (x, weight.t().contiguous(), total, bias)}
    try:
        pairs = zip(_several(form(*operands[name])), _several(formula(*operands[name])), strict=True)
        apart = max(float((found.float() - exact.float()).abs().max() / exact.float().abs().max()) for found, exact in pairs)
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
    if x.shape[0] < _ROWS or x.shape[1] % _MULTIPLE:
        return None
    return FORMS[name][0] if _works(name, x.device, x.dtype) else None
