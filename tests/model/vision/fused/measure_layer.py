"""Times the tower's layer on a GPU at the widths of 11B, operator by operator, compiled and fused, and attention by library.

    python -m tests.model.vision.fused.measure_layer layer.json [--fp8]

Six plain and two gated layers; milliseconds are those of one layer, medians of five runs. TFLOP/s count a forward pass once and a
backward pass twice, whatever is computed again.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from model.config import VisionConfig
from model.vision.fused.attention import BACKENDS, choose, of, problem, trial
from model.vision.fused.layer import fused_layer
from model.vision.fused.levels import KEPT
from model.vision.layers import VisionLayer
from moss_train.frames.cost import layer_flops

PLAIN_LAYERS, GATED_LAYERS = 6, 2
FRAMES = (16, 32)
RUNS, WARM = 5, 2

Apply = Callable[[VisionLayer, Tensor], Tensor]


def _layers(config: VisionConfig) -> list[VisionLayer]:
    torch.manual_seed(0)
    layers = []
    for index in range(PLAIN_LAYERS + GATED_LAYERS):
        layer = VisionLayer(config, gated=index >= PLAIN_LAYERS).to("cuda", torch.bfloat16)
        for parameter in layer.parameters():
            parameter.main_grad = torch.zeros_like(parameter, dtype=torch.float32)  # type: ignore[attr-defined]
        layers.append(layer)
    return layers


def milliseconds(call: Callable[[], Any], runs: int = RUNS) -> float:
    """Median of a call's milliseconds on the device."""
    for _ in range(WARM):
        call()
    found = []
    for _ in range(runs):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        found.append(begin.elapsed_time(end))
    return float(statistics.median(found))


def _add_gradients(layers: list[VisionLayer]) -> None:
    """What the DDP's hook does where autograd has a gradient."""
    for parameter in nn.ModuleList(layers).parameters():
        if parameter.grad is not None:
            parameter.main_grad.add_(parameter.grad)  # type: ignore[attr-defined]
            parameter.grad = None


def _times(layers: list[VisionLayer], apply: Apply, x: Tensor, flops: float) -> dict[str, float]:
    """Of one layer: forward alone, and with a backward pass whose gradients end in fp32 buffers."""
    gradient = torch.randn_like(x)

    def forward() -> Tensor:
        y = x
        for layer in layers:
            y = apply(layer, y)
        return y

    def alone() -> None:
        with torch.no_grad():
            forward()

    def both() -> None:
        forward().backward(gradient)
        _add_gradients(layers)

    count = len(layers)
    one = milliseconds(alone) / count
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    two = milliseconds(both) / count
    return {
        "forward_ms": one, "forward_tflops": flops / one / 1e9,
        "both_ms": two, "both_tflops": 3 * flops / two / 1e9, "backward_ms": two - one,
        "peak_gib": (torch.cuda.max_memory_allocated() - before) / 2**30,
    }  # fmt: skip


def measure_attention(frames: int, config: VisionConfig) -> dict[str, Any]:
    """Milliseconds of every library that works, and TFLOP/s (a backward pass counts 2.5 forward ones)."""
    heads, rows = config.num_attention_heads, config.num_padded_positions
    width = config.hidden_size // heads
    qkv = torch.randn(frames, rows, 3, heads, width, device="cuda", dtype=torch.bfloat16)
    dmixed = torch.randn(frames, rows, heads, width, device="cuda", dtype=torch.bfloat16)
    flops = 4.0 * frames * rows**2 * config.hidden_size
    found: dict[str, Any] = {"chosen": choose(qkv.device, qkv.dtype, heads, width).name}
    for name in (n for n in BACKENDS if n != "formula"):
        wrong = problem(name, qkv.device) or trial(name, qkv.device, qkv.dtype, heads, width)
        if wrong:
            found[name] = wrong
            continue
        library = of(name)
        mixed, state = library.forward(qkv)
        one = milliseconds(lambda: library.forward(qkv))  # noqa: B023  # called before the next one
        two = milliseconds(lambda: library.backward(dmixed, qkv, mixed, state))  # noqa: B023
        found[name] = {
            "forward_ms": one, "forward_tflops": flops / one / 1e9, "backward_ms": two, "backward_tflops": 2.5 * flops / two / 1e9
        }  # fmt: skip
    return found


def _kernels(layer: VisionLayer, x: Tensor) -> str:
    """The longest kernels of one layer's forward and backward pass."""
    gradient = torch.randn_like(x)
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        fused_layer(layer, x, "all").backward(gradient)
        torch.cuda.synchronize()
    return str(found.key_averages().table(sort_by="cuda_time_total", row_limit=15, max_name_column_width=70))


def _use_fp8(layers: list[VisionLayer]) -> None:
    from model.vision.fused.fp8_products import Fp8Products

    for layer in layers:
        layer.products = Fp8Products()


def main(path: str, fp8: bool) -> None:
    """Measures everything and writes it down."""
    started = time.perf_counter()
    config = VisionConfig()
    layers = _layers(config)
    compiled: dict[int, Any] = {id(layer): torch.compile(layer) for layer in layers}
    found: dict[str, Any] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "frames": {}}
    for frames in FRAMES:
        x = torch.randn(frames, config.num_padded_positions, config.hidden_size, device="cuda", dtype=torch.bfloat16)
        x.requires_grad_()
        flops = frames * sum(layer_flops(config).values())
        ways: dict[str, Apply] = {"torch": lambda layer, y: layer(y)}
        if frames == FRAMES[-1]:
            ways["compiled"] = lambda layer, y: compiled[id(layer)](y)
        for level in reversed(KEPT):
            ways[f"fused {level}"] = lambda layer, y, level=level: fused_layer(layer, y, level)  # type: ignore[misc]
        rows: dict[str, Any] = {}
        found["frames"][str(frames)] = {"layer": rows, "attention": measure_attention(frames, config)}
        for name, apply in ways.items():
            if fp8 and name.startswith("fused"):
                _use_fp8(layers)
            rows[name] = _times(layers, apply, x, flops)
            print(f"{frames} frames, {name}: " + ", ".join(f"{k} {v:.3g}" for k, v in rows[name].items()), flush=True)
            x.grad = None
            for layer in layers:
                layer.products = None
        print(json.dumps(found["frames"][str(frames)]["attention"], indent=1), flush=True)
    if fp8:
        _use_fp8(layers)
    found["kernels"] = {"plain": _kernels(layers[0], x), "gated": _kernels(layers[-1], x)}
    print(found["kernels"]["plain"], found["kernels"]["gated"], sep="\n")
    found["seconds"] = time.perf_counter() - started
    with open(path, "w") as file:
        json.dump(found, file, indent=1)
    print(f"{found['seconds']:.0f} s, written to {path}")


if __name__ == "__main__":
    main(sys.argv[1], "--fp8" in sys.argv)
