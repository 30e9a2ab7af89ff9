"""Times, memory and errors of cross-attention's backends, and of the ways to do it that they replace."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from model.attention.cross.attention import cross_attention
from model.attention.cross.dense import mask_of
from model.attention.cross.plan import CrossPlan
from model.attention.cross.reference import torch_cross_attention_with_lse
from model.errors import InputError
from moss_train.bench.workloads import Workload

DENSE, NO_MASK = "dense mask", "no mask"
BASELINES = (DENSE, NO_MASK)
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Shape:
    """Dimensions of one layer's attention."""

    heads: int = 32
    groups: int = 8
    width: int = 128
    tokens_per_frame: int = 101


@dataclass
class Result:
    """One backend on one workload; times are medians in milliseconds."""

    workload: str
    backend: str
    rows: int
    keys: int
    seen_share: float
    """Pairs that a row sees, of all pairs."""
    forward_ms: float
    both_ms: float
    """Forward and backward."""
    tflops: float
    """3.5 * 4 * seen pairs * heads * width operations a second, forward and backward."""
    extra_gib: float
    """Highest memory in use beyond the inputs, the result and the gradients."""
    first_call_s: float
    """Compilation and preparation included, of the first forward and backward."""
    plan_ms: float
    """Host and transfers, once a micro-batch: the first call's preparation is in it, not in the times above."""
    errors: dict[str, float]
    """Norm of the difference to fp32 over the norm, of the result and each gradient."""


def _sync(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _median_ms(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    for _ in range(3 if device.type == "cuda" else 1):
        run()
    times: list[float] = []
    for _ in range(repeats):
        _sync(device)
        if device.type == "cuda":
            first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            first.record()
            run()
            last.record()
            _sync(device)
            times.append(first.elapsed_time(last))
        else:
            begun = time.perf_counter()
            run()
            times.append((time.perf_counter() - begun) * 1e3)
    return statistics.median(times)


def _no_mask(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Every row sees every key, by cuDNN on CUDA: not the same result, but what a kernel without masks takes for all pairs."""
    query, key, value = (t.transpose(0, 1)[None] for t in (q, k.flatten(0, 1), v.flatten(0, 1)))
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION if q.is_cuda else SDPBackend.MATH):
        mixed = F.scaled_dot_product_attention(query, key, value, enable_gqa=q.shape[1] != k.shape[2])
    return mixed[0].transpose(0, 1).flatten(1)


def _attention(backend: str, plan: CrossPlan, dtype: torch.dtype) -> Attention:
    if backend == NO_MASK:
        return _no_mask
    if backend == DENSE:
        mask_of(plan, dtype)
    name = "dense" if backend == DENSE else backend
    return lambda q, k, v: cross_attention(q, k, v, plan, backend=name)


def plan_of(workload: Workload, shape: Shape, device: torch.device) -> CrossPlan:
    """A plan with nothing derived yet."""
    return CrossPlan(workload.begin, workload.end, workload.bounds, workload.frames, shape.tokens_per_frame, device)


def inputs_of(workload: Workload, shape: Shape, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """Normal q, k, v and the cotangent of the result, always the same."""
    generator = torch.Generator(device=device).manual_seed(0)
    keys = (workload.frames, shape.tokens_per_frame, shape.groups, shape.width)
    sizes = [(workload.rows, shape.heads, shape.width), keys, keys, (workload.rows, shape.heads * shape.width)]
    return [torch.randn(size, device=device, dtype=dtype, generator=generator) for size in sizes]


def reference(inputs: list[Tensor], plan: CrossPlan) -> dict[str, Tensor]:
    """Result and gradients in fp32 from the same inputs."""
    q, k, v = (t.float().requires_grad_() for t in inputs[:3])
    out, _ = torch_cross_attention_with_lse(q, k, v, plan)
    found = [out.detach(), *torch.autograd.grad(out, [q, k, v], inputs[3].float())]
    return dict(zip(("out", "dq", "dk", "dv"), found, strict=True))


def _check_runs(backend: str, device: torch.device) -> None:
    """Refuses what has no backward pass on the device.

    Raises:
        InputError: FlexAttention on the CPU.
    """
    if backend == "flex" and device.type == "cpu":
        raise InputError("FlexAttention has no backward pass on the CPU; measure it with --device cuda")


def measure(
    workload: Workload, backend: str, shape: Shape, inputs: list[Tensor], exact: dict[str, Tensor], repeats: int
) -> Result:
    """Runs one backend on one workload.

    Raises:
        InputError: a backend that does not run here.
    """
    device = inputs[0].device
    _check_runs(backend, device)
    leaves = [t.detach().requires_grad_() for t in inputs[:3]]
    plan = plan_of(workload, shape, device)
    attention = _attention(backend, plan, inputs[0].dtype)

    def both() -> list[Tensor]:
        out = attention(*leaves)
        return [out, *torch.autograd.grad(out, leaves, inputs[3])]

    begun = time.perf_counter()
    found = both()
    _sync(device)
    first_call = time.perf_counter() - begun
    pairs = zip(exact.items(), found, strict=True)
    errors = {} if backend == NO_MASK else {name: _relative(mine, wanted) for (name, wanted), mine in pairs}
    kept = sum(t.numel() * t.element_size() for t in found)
    del found
    extra = _extra_memory(both, device, kept)
    if backend == DENSE:
        extra += mask_of(plan, inputs[0].dtype).bias.untyped_storage().nbytes()
    forward_ms = _median_ms(lambda: attention(*leaves), device, repeats)
    both_ms = _median_ms(both, device, repeats)
    begun = time.perf_counter()
    _attention(backend, plan_of(workload, shape, device), inputs[0].dtype)(*inputs[:3])
    _sync(device)
    fresh_plan_ms = (time.perf_counter() - begun) * 1e3
    operations = 3.5 * 4 * workload.seen * shape.tokens_per_frame * shape.heads * shape.width
    return Result(
        workload=workload.name, backend=backend, rows=workload.rows, keys=plan.num_keys,
        seen_share=round(workload.seen / (workload.rows * workload.frames), 4),
        forward_ms=round(forward_ms, 3), both_ms=round(both_ms, 3), tflops=round(operations / both_ms / 1e9, 1),
        extra_gib=round(extra / 2**30, 3), first_call_s=round(first_call, 2),
        plan_ms=round(max(0.0, fresh_plan_ms - forward_ms), 2), errors=errors,
    )  # fmt: skip


def _relative(found: Tensor, wanted: Tensor) -> float:
    """Norm of the difference over the norm, to three digits."""
    return float(f"{float((found.detach().float() - wanted).norm() / wanted.norm()):.2e}")


def _extra_memory(both: Callable[[], list[Tensor]], device: torch.device, kept: int) -> int:
    if device.type != "cuda":
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    both()
    _sync(device)
    return max(0, torch.cuda.max_memory_allocated(device) - before - kept)


def run(
    workloads: list[Workload], backends: list[str], shape: Shape, device: torch.device, dtype: torch.dtype, repeats: int,
    report: Callable[[Result], None],
) -> tuple[list[dict[str, object]], dict[str, str]]:  # fmt: skip
    """Every backend on every workload, reported as they come.

    Returns:
        The results, and the backends that do not run here with the reason.
    """
    results: list[dict[str, object]] = []
    missing: dict[str, str] = {}
    for workload in workloads:
        inputs = inputs_of(workload, shape, device, dtype)
        exact = reference(inputs, plan_of(workload, shape, device))
        for backend in backends:
            if backend in missing:
                continue
            try:
                result = measure(workload, backend, shape, inputs, exact, repeats)
            except InputError as error:
                missing[backend] = str(error)
                continue
            report(result)
            results.append(asdict(result))
    return results, missing
