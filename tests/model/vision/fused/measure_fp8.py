"""Times the tower's products, its fp8 row kernels and a whole layer on a GPU, in bf16 and in fp8: `python -m ... OUT.json`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.config import VisionConfig
from model.vision.fused import fp8_products, rows, rows_fp8
from model.vision.fused.fp8_accumulate import add_scaled_product, scaled_product
from model.vision.fused.fp8_products import Fp8Products
from model.vision.fused.kernels.turn import Launch
from model.vision.fused.kernels.turn import turn as launch_turn
from model.vision.fused.layer import fused_layer
from model.vision.fused.turn import Turned, turn
from model.vision.layers import VisionLayer
from tests.model.vision.fused.measure_joined import mean_milliseconds

FRAMES = (16, 32)
TOKENS, WIDTH, INNER = 1608, 1280, 5120
MATRICES = {"qkv": (WIDTH, 3 * WIDTH), "o": (WIDTH, WIDTH), "fc1": (WIDTH, INNER), "fc2": (INNER, WIDTH)}
"""[in, out]"""
TURNS = [Launch(128, 128, 4), Launch(128, 128, 8), Launch(64, 128, 4), Launch(128, 64, 4), Launch(256, 64, 4)]
REPEATS = 10


def milliseconds(call: Callable[[], Any], repeats: int = REPEATS) -> float | str:
    """Of one call, of many in a row; a sentence where it fails."""
    try:
        for _ in range(2):
            call()
        return mean_milliseconds(call, repeats)
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]


def _numbers(*size: int) -> Tensor:
    return torch.randn(size, device="cuda", dtype=torch.bfloat16)


def _product(a: Tensor, b: Tensor, dtype: torch.dtype) -> dict[str, Any]:
    """a [m, k] b [n, k]^T in every form, fp8 operands from their rows."""
    (m, k), n = a.shape, b.shape[0]
    left, right = rows_fp8.round_rows(a), rows_fp8.round_rows(b)
    one = torch.ones(1, device="cuda")
    plain = {"bf16": lambda: torch.mm(a, b.t()) if dtype == a.dtype else torch.mm(a, b.t(), out_dtype=dtype)}
    forms: dict[str, Callable[[], Any]] = {}
    for fast in (True, False):
        word = "fast" if fast else "exact"
        forms[f"fp8 tensor {word}"] = lambda fast=fast: scaled_product(left.rows, one, right.rows, one, dtype, fast)
        forms[f"fp8 rows {word}"] = lambda fast=fast: scaled_product(
            left.rows, left.scale, right.rows, right.scale.view(1, -1), dtype, fast
        )
    if dtype == torch.float32:
        main = torch.zeros((m, n), device="cuda")
        forms["fp8 added to fp32"] = lambda: add_scaled_product(Turned(left.rows, one), Turned(right.rows, one), main, False)
    found: dict[str, Any] = {}
    for name, call in (plain | forms).items():
        took = milliseconds(call)
        found[name] = {"ms": took} if isinstance(took, str) else {"ms": took, "tflops": 2.0 * m * n * k / took / 1e9}
    return found


def products(frames: int) -> dict[str, Any]:
    """Forward, input gradient and weight gradient of every matrix."""
    count = frames * TOKENS
    found: dict[str, Any] = {}
    for name, (width, out) in MATRICES.items():
        x, dy, weight = _numbers(count, width), _numbers(count, out), _numbers(out, width)
        found[f"{name} forward"] = _product(x, weight, torch.bfloat16)
        found[f"{name} input gradient"] = _product(dy, weight.t().contiguous(), torch.bfloat16)
        found[f"{name} weight gradient"] = _product(dy.t().contiguous(), x.t().contiguous(), torch.float32)
    return found


def kernels(frames: int) -> dict[str, Any]:
    """Every kernel that rounds or turns, with the bytes that it has to move, beside a copy."""
    count = frames * TOKENS
    thin, joint, wide = _numbers(count, WIDTH), _numbers(count, 3 * WIDTH), _numbers(count, INNER)
    weight, shift, bias = _numbers(WIDTH), _numbers(WIDTH), _numbers(INNER)
    _, mean, rstd = rows.norm(thin, weight, shift, 1e-5)
    small, same = thin.numel(), torch.empty_like(wide)
    other = _numbers(INNER, WIDTH)
    calls: dict[str, tuple[Callable[[], Any], float]] = {
        "copy [R, 5120]": (lambda: same.copy_(wide), 4.0 * wide.numel()),
        "norm": (lambda: rows_fp8.norm(thin, weight, shift, 1e-5), 3.0 * small),
        "norm_again": (lambda: rows_fp8.norm_again(thin, mean, rstd, weight, shift), 3.0 * small),
        "add_norm": (lambda: rows_fp8.add_norm(thin, thin, None, None, weight, shift, 1e-5), 7.0 * small),
        "gelu": (lambda: rows_fp8.gelu(wide, bias), 3.0 * wide.numel()),
        "gelu_backward": (lambda: rows_fp8.gelu_backward(wide, wide, bias), 6.0 * wide.numel()),
        "gelu_backward bf16": (lambda: rows.gelu_backward(wide, wide, bias), 8.0 * wide.numel()),
        "round_rows [R, 1280]": (lambda: rows_fp8.round_rows(thin), 3.0 * small),
        "round_rows [R, 3840]": (lambda: rows_fp8.round_rows(joint), 9.0 * small),
        "round_rows_summed [R, 1280]": (lambda: rows_fp8.round_rows_summed(thin), 3.0 * small),
        "turn of the matrix fc1": (lambda: turn(*Fp8Products().matrix(other)), 5.0 * other.numel()),
        "matrix fc1": (lambda: Fp8Products().matrix(other), 3.0 * other.numel()),
    }
    for name, x in (("1280", thin), ("3840", joint), ("5120", wide)):
        rounded = rows_fp8.round_rows(x)
        common = rounded.scale.amax().view(1)
        calls[f"turn [R, {name}]"] = (lambda r=rounded: turn(r.rows, r.scale), 2.0 * x.numel())
        for shape in TURNS:
            calls[f"turn [R, {name}] {tuple(shape)}"] = (
                lambda r=rounded, c=common, s=shape: launch_turn(r.rows, r.scale, c, count, s), 2.0 * x.numel()
            )  # fmt: skip
    found: dict[str, Any] = {}
    for name, (call, moved) in calls.items():
        took = milliseconds(call)
        found[name] = {"ms": took} if isinstance(took, str) else {"ms": took, "tb_per_s": moved / took / 1e9}
    copy = found["copy [R, 5120]"].get("tb_per_s")
    for told in found.values():
        if copy and "tb_per_s" in told:
            told["share_of_copy"] = told["tb_per_s"] / copy
    return found


def _layer(kind: Any) -> VisionLayer:
    torch.manual_seed(0)
    config = VisionConfig()
    layer = VisionLayer(config, gated=False).to("cuda", torch.bfloat16)
    layer.products = None if kind is None else Fp8Products(kind)
    for parameter in layer.parameters():
        parameter.main_grad = torch.zeros_like(parameter, dtype=torch.float32)  # type: ignore[attr-defined]
    return layer


def layers(frames: int) -> dict[str, Any]:
    """A layer forward, and forward and backward with all kept and with its input kept."""
    found: dict[str, Any] = {}
    x = _numbers(frames, TOKENS, WIDTH).requires_grad_()
    gradient = _numbers(frames, TOKENS, WIDTH)
    flops = frames * TOKENS * (2.0 * (4 * WIDTH**2 + 2 * WIDTH * INNER) + 4.0 * WIDTH * TOKENS)
    for name, kind in (("bf16", None), ("fp8", "fp8"), ("fp8, weight gradients bf16", "bf16")):
        layer = _layer(kind)

        def forward(layer: VisionLayer = layer) -> None:
            with torch.no_grad():
                fused_layer(layer, x)

        def both(level: str, layer: VisionLayer = layer) -> None:
            x.grad = None
            fused_layer(layer, x, level).backward(gradient)

        for told, call, passes in (
            ("forward", forward, 1), ("both, all kept", lambda: both("all"), 3), ("both, input kept", lambda: both("input"), 4),
        ):  # fmt: skip
            took = milliseconds(call, 8)
            found[f"{name}: {told}"] = (
                {"ms": took} if isinstance(took, str) else {"ms": took, "tflops": passes * flops / took / 1e9}
            )
    return found


def agreement() -> dict[str, Any]:
    """Distances from fp32 on one frame, and whether bits depend on the frames beside it."""
    found: dict[str, Any] = {}
    frames = _numbers(4, TOKENS, WIDTH)
    gradient = _numbers(1, TOKENS, WIDTH) * 1e-4
    gradients: dict[str, dict[str, Tensor]] = {}
    for name, kind in (("fp32", None), ("bf16", None), ("fp8", "fp8")):
        layer = _layer(kind).to(torch.float32 if name == "fp32" else torch.bfloat16)
        for parameter in layer.parameters():
            parameter.main_grad = torch.zeros_like(parameter, dtype=torch.float32)  # type: ignore[attr-defined]
        x = frames[:1].to(layer.self_attn.q_proj.weight.dtype, copy=True).requires_grad_()
        y = fused_layer(layer, x)
        y.backward(gradient.to(y.dtype))
        assert x.grad is not None
        gradients[name] = {"y": (y - x).detach().float(), "dx": x.grad.float() - gradient.float()}
        gradients[name] |= {n: p.main_grad for n, p in layer.named_parameters()}
        if name != "fp32":
            with torch.no_grad():
                found[f"{name} same twice"] = torch.equal(fused_layer(layer, x), y)
                found[f"{name} same beside three frames"] = torch.equal(fused_layer(layer, frames)[:1], y)
    for name in ("bf16", "fp8"):
        found[name] = {
            n: float((g - gradients["fp32"][n]).norm() / gradients["fp32"][n].norm()) for n, g in gradients[name].items()
        }
    return found


def main(path: str) -> None:
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name(), "torch": torch.__version__,
        "fast": [fp8_products.FAST_FORWARD, fp8_products.FAST_INPUT_GRADIENT, fp8_products.FAST_WEIGHT_GRADIENT],
    }  # fmt: skip
    for name, part in (("agreement", lambda _: agreement()), ("layers", layers), ("kernels", kernels), ("products", products)):
        for frames in FRAMES if name != "agreement" else (1,):
            try:
                result[f"{name} {frames}"] = part(frames)
            except Exception as error:  # the rest is still worth having
                result[f"{name} {frames}"] = f"{type(error).__name__}: {error}"[:500]
            torch.cuda.empty_cache()
            Path(path).write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main(sys.argv[1])
