"""Run on a GPU: `python -m tests.moss_train.platform.measure_adam [ELEMENTS]` prints what an update costs.

bf16 weights with remainders, moments in bf16, gradients in bf16 and in fp32; 1,000 tensors, 2e9 elements.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch

from moss_train.platform.fused_adam_tables import GradientNorm, TableAdam, drives
from moss_train.platform.remainders import whole

TENSORS, CLIP = 1000, 0.37


def timed(name: str, bytes_moved: float, call: Callable[[], object]) -> None:
    """Print the mean of five calls behind two."""
    for _ in range(2):
        call()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(5):
        call()
    end.record()
    end.synchronize()
    ms = begin.elapsed_time(end) / 5
    print(f"{name:28} {ms:8.2f} ms {bytes_moved / ms / 1e6:8.0f} GB/s", flush=True)


def optimizer_of(size: int, gradient: torch.dtype) -> Any:
    """Transformer Engine's, its states made."""
    from transformer_engine.pytorch.optimizers import FusedAdam

    torch.manual_seed(0)
    weights = torch.randn(TENSORS, size, device="cuda", dtype=torch.bfloat16)  # [tensors, size]
    slopes = torch.empty(TENSORS, size, device="cuda", dtype=gradient).normal_(0.0, 1e-2)  # [tensors, size]
    parameters = [torch.nn.Parameter(row) for row in weights]
    for parameter, slope in zip(parameters, slopes, strict=True):
        parameter.decoupled_grad = slope  # type: ignore[attr-defined]
    made = FusedAdam(
        parameters, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01, master_weights=True, use_decoupled_grad=True,
        store_param_remainders=True, exp_avg_dtype=torch.bfloat16, exp_avg_sq_dtype=torch.bfloat16,
    )  # fmt: skip
    for parameter in parameters:
        made.initialize_state(parameter, True)
    return made


def agreement(gradient: torch.dtype) -> float:
    """Largest difference of an fp32 weight after five updates of 1e-3, over a million elements."""
    theirs, ours = optimizer_of(1000, gradient), optimizer_of(1000, gradient)
    assert drives(ours)
    adam = TableAdam(ours)
    for _ in range(5):
        theirs.step()
        adam.step()
    found = []
    for a, b in zip(theirs.param_groups[0]["params"], ours.param_groups[0]["params"], strict=True):
        left = whole(a.detach(), theirs.state[a]["master_param"])
        right = whole(b.detach(), ours.state[b]["master_param"])
        found.append((left - right).abs().max())
    return float(torch.stack(found).max())


def times(elements: int, gradient: torch.dtype) -> None:
    """Norm, clip and update, each by Transformer Engine and by ours."""
    from transformer_engine.pytorch.optimizers import multi_tensor_applier, multi_tensor_l2norm, multi_tensor_scale

    optimizer = optimizer_of(elements // TENSORS // 8 * 8, gradient)
    slopes = [parameter.decoupled_grad for parameter in optimizer.param_groups[0]["params"]]
    count, width = sum(slope.numel() for slope in slopes), gradient.itemsize
    none = torch.zeros(1, dtype=torch.int, device="cuda")
    norm, adam = GradientNorm(), TableAdam(optimizer)

    def their_norm() -> torch.Tensor:
        found: torch.Tensor = multi_tensor_applier(multi_tensor_l2norm, none, [slopes], False)[0]
        return found

    def update() -> None:
        adam.clip = CLIP
        adam.step()

    print(f"norms: theirs {float(their_norm()):.7g}, ours {float(norm(slopes)):.7g}")
    timed("norm, Transformer Engine", count * width, their_norm)
    timed("norm, torch._foreach_norm", count * width, lambda: torch._foreach_norm(slopes))
    timed("norm, ours", count * width, lambda: norm(slopes))
    timed("clip", 2 * count * width, lambda: multi_tensor_applier(multi_tensor_scale, none, [slopes, slopes], 1.0))
    timed("Adam, Transformer Engine", count * (16 + width), optimizer.step)
    timed("Adam with clip, ours", count * (16 + width), update)


def main(elements: int) -> None:
    """Both types of gradients."""
    for gradient in (torch.bfloat16, torch.float32):
        print(f"gradients in {gradient}: weights differ by at most {agreement(gradient):.3g} after 5 updates of 1e-3")
        times(elements, gradient)
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main(int(float(sys.argv[1])) if len(sys.argv) > 1 else 2_000_000_000)
