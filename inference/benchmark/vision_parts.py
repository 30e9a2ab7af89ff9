"""What one layer of the tower spends its time on: upload, matrix products, attention by backend, norms and gelu."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inference.benchmark.meter import DeviceMeter, timed
from inference.kernels import vision_rows
from inference.kernels.gelu_product import gelu_product
from inference.kernels.torch_forms import vision_rows as torch_rows
from inference.vision.attention.choose import BACKENDS, Backend, backend_problem, choose_backend
from inference.vision.blocks import split_heads
from inference.vision.device import EncoderStreams
from inference.vision.padding import MergedTokens, merge_padding
from inference.vision.products import E4M3_MAX, Matrix, fp8_matrix, product, quantise_rows
from inference.vision.region import Region
from model.config import VideoMllamaConfig


@dataclass
class LayerBench:
    """One layer's sizes at a number of frames."""

    config: VideoMllamaConfig
    device: torch.device
    dtype: torch.dtype
    chunk: int
    repeats: int
    peak_flops: float
    """Of the device, for percentages."""

    @property
    def meter(self) -> DeviceMeter:
        return DeviceMeter(self.device)

    def seconds(self, action: Callable[[], object]) -> float:
        """Of one call among `repeats` that follow each other."""
        action()
        return timed(self.meter, lambda: [action() for _ in range(self.repeats)]) / self.repeats

    def rate(self, seconds: float, flops: float) -> dict[str, float]:
        """Milliseconds, TFLOP/s and the share of what the device was seen to reach."""
        rate = flops / seconds
        return {"ms": seconds * 1e3, "tflops": rate / 1e12, "percent": 100 * rate / self.peak_flops}

    def tokens(self, region: Region) -> int:
        """Rows of one frame in the tower, those that stand for padding included."""
        return len(self.merged(region).keys.log2_counts)

    def merged(self, region: Region) -> MergedTokens:
        """How a region's tokens are attended to; each once where the region is whole."""
        vision = self.config.vision
        pad = vision.num_padded_positions - vision.num_positions if self.config.switches.vit_keep_pad_tokens else 0
        return merge_padding(region, vision, torch.zeros(vision.num_positions, 1, device=self.device), pad)

    def random(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.device, dtype=self.dtype)


def measure_upload(bench: LayerBench) -> dict[str, float]:
    """From pageable host memory through pinned memory, and from memory that is pinned already."""
    vision = bench.config.vision
    frames = torch.zeros(bench.chunk, vision.num_channels, vision.image_size, vision.image_size, dtype=torch.uint8)
    streams = EncoderStreams(bench.device)
    found = {"bytes": float(frames.numel()), "pageable_ms": 1e3 * bench.seconds(lambda: streams.upload(frames, bench.chunk))}
    if bench.device.type == "cuda":
        pinned = frames.pin_memory()
        found["pinned_ms"] = 1e3 * bench.seconds(lambda: streams.upload(pinned, bench.chunk))
    return found


def measure_products(bench: LayerBench, region: Region) -> dict[str, Any]:
    """The four products of a layer in the model's dtype and in fp8; fp8 with its inputs rounded before, and in the call."""
    vision = bench.config.vision
    d, f, rows = vision.hidden_size, vision.intermediate_size, bench.chunk * bench.tokens(region)
    found: dict[str, Any] = {"rows": rows}
    for name, (inside, outside) in {"qkv": (d, 3 * d), "out": (d, d), "up": (d, f), "down": (f, d)}.items():
        x, weight, flops = bench.random(rows, inside), bench.random(outside, inside), 2.0 * rows * inside * outside
        dense, rounded = Matrix(weight), fp8_matrix(weight)
        entry: dict[str, Any] = {"dense": bench.rate(bench.seconds(lambda x=x, m=dense: product(x, m)), flops)}  # type: ignore[misc]
        if bench.device.type == "cuda":
            entry["fp8_rounding_in_the_call"] = bench.rate(
                bench.seconds(lambda x=x, m=rounded: product(x, m)),  # type: ignore[misc]
                flops,
            )
            entry |= _scaled(bench, x, rounded, flops)
        found[name] = entry
    found |= _up_with_gelu(bench, rows)
    for form in ("dense", "fp8_row_scales", "fp8_tensor_scales"):
        if form in found["qkv"]:
            found[f"{form}_ms"] = sum(found[name][form]["ms"] for name in ("qkv", "out", "up", "down"))
    return found


def _up_with_gelu(bench: LayerBench, rows: int) -> dict[str, dict[str, float]]:
    """The MLP's first half with gelu behind its product, and inside it."""
    vision = bench.config.vision
    d, f = vision.hidden_size, vision.intermediate_size
    x, weight, bias = bench.random(rows, d), bench.random(f, d), bench.random(f)
    flops = 2.0 * rows * d * f
    behind = bench.seconds(lambda: gelu_product(x, weight, bias, form="torch"))
    return {
        "up_gelu_behind": bench.rate(behind, flops),
        "up_gelu_inside": bench.rate(bench.seconds(lambda: gelu_product(x, weight, bias)), flops),
    }


def _scaled(bench: LayerBench, x: Tensor, matrix: Matrix, flops: float) -> dict[str, Any]:
    """The bare 8-bit product: with a scale for each row, and with one for each tensor."""
    rows, scale = quantise_rows(x)
    assert matrix.scale is not None
    one = torch.ones((), device=bench.device)
    tensor = (x.float() * (E4M3_MAX / x.abs().amax().float())).to(torch.float8_e4m3fn)

    def multiply(a: Tensor, scale_a: Tensor, scale_b: Tensor) -> Tensor:
        return torch._scaled_mm(a, matrix.weight.t(), scale_a, scale_b, out_dtype=torch.bfloat16, use_fast_accum=True)

    row_scales, column_scales = scale, matrix.scale
    return {
        "fp8_row_scales": bench.rate(bench.seconds(lambda: multiply(rows, row_scales, column_scales)), flops),
        "fp8_tensor_scales": bench.rate(bench.seconds(lambda: multiply(tensor, one, one)), flops),
    }


def measure_attention(bench: LayerBench, region: Region) -> dict[str, Any]:
    """Every backend that can be used here, on views of a joint projection, as the tower calls it: repeating the keys of tokens
    that stand for padding is part of the time. Rates are of the products that the formula needs: repeated keys are not counted.
    """
    vision = bench.config.vision
    heads, width, tokens = vision.num_attention_heads, vision.hidden_size, bench.tokens(region)
    q, k, v = split_heads(bench.random(bench.chunk, tokens, 3 * width), heads)
    keys = bench.merged(region).keys
    once = len(keys.repeated) == tokens
    flops = 4.0 * bench.chunk * tokens * tokens * width
    found: dict[str, Any] = {"tokens": tokens, "keys": len(keys.repeated)}
    for name in BACKENDS:
        problem = backend_problem(name, bench.device.type)
        if name == "plain" and bench.device.type == "cuda":
            problem = "the formula itself, not a kernel"
        if problem is not None:
            found[name] = {"problem": problem}
            continue
        backend = choose_backend(name, bench.device, bench.dtype)

        def call(backend: Backend = backend) -> Tensor:
            return backend.attend_counted(q, k, v, None if once else keys)

        try:
            found[name] = bench.rate(bench.seconds(call), flops)
        except Exception as error:  # a kernel that refuses these sizes is a result, and the next one is measured all the same
            found[name] = {"problem": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
    return found


def measure_elementwise(bench: LayerBench, region: Region, *, compiled: bool) -> dict[str, float]:
    """Residual with norm, gelu, and rounding, a call each: torch's operations, compiled or not, and kernels of ours where the
    device has them. Milliseconds.
    """
    vision = bench.config.vision
    tokens, d, f = bench.tokens(region), vision.hidden_size, vision.intermediate_size
    x, y, inner = (bench.random(bench.chunk, tokens, width) for width in (d, d, f))
    weight, shift, bias, wide, gate = (bench.random(width) for width in (d, d, d, f, 1))

    def measure(name: str, separate: Callable[..., object], own: Callable[..., object], *arguments: object) -> dict[str, float]:
        call = torch.compile(separate, dynamic=False) if compiled else separate
        forms = {f"{name}_ms": call, f"{name}_own_ms": own}
        return {key: 1e3 * bench.seconds(functools.partial(form, *arguments)) for key, form in forms.items()}

    found: dict[str, float] = {}
    for ending, fp8 in (("", False), ("_fp8", True)):  # an fp8 product leaves its bias
        norm = (x, y, bias if fp8 else None, gate, weight, shift, vision.norm_eps, fp8)
        found |= measure(f"residual_norm{ending}", torch_rows.add_norm, vision_rows.add_norm, *norm)
        found |= measure(f"gelu{ending}", torch_rows.gelu_rows, vision_rows.gelu_rows, inner, wide if fp8 else None, fp8)
    return found | measure("rounding", torch_rows.round_rows, vision_rows.round_rows, x)
