"""Where a step's time goes, kernel by kernel: torch's profiler over one step, read from the trace that it writes.

A kernel belongs to the phase in which the host launched it, whichever of its threads did. On a CPU operators take the place of
kernels, each with the time that it did not spend in others.
"""

from __future__ import annotations

import bisect
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from moss_train.bench.train.rates import PHASES
from moss_train.phases import MARKING

TOP = 40
NAME = 120  # characters of a kernel's name
KINDS: tuple[tuple[str, str], ...] = (
    ("communication", r"nccl|all_?reduce|reduce_scatter|all_?gather|c10d"),
    ("loss", r"cross_?entropy|nll_loss|log_?softmax|logsumexp|_loss|loss_|head_?loss|row_statistics|softmax_gradient"),
    ("attention", r"attention|attn|flash|fmha|sdpa|softmax"),
    ("optimizer", r"adam|multi_tensor|l2norm"),
    ("product", r"gemm|nvjet|cutlass|xmma|cublas|matmul|conv|splitk|wgmma|::(mm|addmm|bmm|baddbmm|linear|_scaled_mm)\b"),
    ("norm", r"norm|ln_fwd|ln_bwd|rms"),
    ("copy", r"\b_turn\b|memcpy|memset|copy|fill|zero_|::cat\b|catarray|transpose|index|gather|scatter|embedding"),
    (
        "element-wise",
        r"element_?wise|vectorized|gelu|silu|swiglu|act|rope|rotary|add|mul|sub|div|tanh|cast|quant|round|amax|scale|sum|reduce|"
        r"triton",
    ),
)  # fmt: skip
"""Kinds of kernels and what their names hold; the first that fits counts, and all of the optimizer's phase is its own."""
_LAUNCHES = ("cuda_runtime", "cuda_driver")
_ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")


@dataclass(frozen=True)
class Span:
    """One kernel, or one operator on a CPU."""

    name: str
    begin: float
    """Microseconds."""
    length: float
    """Microseconds of its own."""
    phase: str
    """In which it was launched."""

    @property
    def kind(self) -> str:
        return "optimizer" if self.phase == "optimizer" else kind_of(self.name)


def kind_of(name: str) -> str:
    """What a kernel of this name does."""
    low = name.lower()
    return next((kind for kind, pattern in KINDS if re.search(pattern, low)), "other")


def profile_step(step: Callable[[], object], device: torch.device) -> dict[str, Any]:
    """Run one step under torch's profiler.

    Returns:
        `summary` of its kernels. The profiler itself makes the host slower: `idle_seconds` of a GPU is an upper bound.
    """
    return summary(record_step(step, device), cuda=device.type == "cuda")


def record_step(step: Callable[[], object], device: torch.device) -> list[Span]:
    """Run one step under torch's profiler; its kernels, or a CPU's operators."""
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    MARKING.record = True
    try:
        with profile(activities=activities) as recorded:
            step()
    finally:
        MARKING.record = False
    with tempfile.TemporaryDirectory(prefix="moss-trace-") as folder:
        path = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8", errors="replace"))["traceEvents"]
    return spans_of(events, cuda=device.type == "cuda")


def spans_of(events: Sequence[dict[str, Any]], cuda: bool) -> list[Span]:
    """Kernels (or a CPU's operators) of a trace in Chrome's format, each with the phase that launched it."""
    timed = [event for event in events if event.get("ph") == "X"]
    phases = _Phases(timed)
    if not cuda:
        return [Span(name, begin, own, phases.at(begin)) for name, begin, own in _own_times(timed)]
    launched: dict[int, float] = {}
    for event in timed:
        if event.get("cat") in _LAUNCHES and "correlation" in event.get("args", {}):
            launched[event["args"]["correlation"]] = float(event["ts"])
    return [
        Span(
            event["name"], float(event["ts"]), float(event["dur"]),
            phases.at(launched.get(event.get("args", {}).get("correlation", -1), float(event["ts"]))),
        )
        for event in timed
        if event.get("cat") in _ON_DEVICE
    ]  # fmt: skip


class _Phases:
    """Which phase the host was in at a time."""

    def __init__(self, events: Iterable[dict[str, Any]]) -> None:
        known = [e for e in events if e.get("cat") == "user_annotation" and e["name"] in PHASES]
        self._spans = sorted((float(e["ts"]), float(e["ts"]) + float(e["dur"]), str(e["name"])) for e in known)
        self._begins = [begin for begin, _, _ in self._spans]

    def at(self, time: float) -> str:
        place = bisect.bisect_right(self._begins, time) - 1
        if place >= 0 and time <= self._spans[place][1]:
            return self._spans[place][2]
        return "other"


def _own_times(events: Iterable[dict[str, Any]]) -> list[tuple[str, float, float]]:
    """Name, begin and own microseconds of every operator: what those within it took is theirs."""
    found: list[tuple[str, float, float]] = []
    threads: dict[Any, list[dict[str, Any]]] = {}
    for event in events:
        if event.get("cat") == "cpu_op":
            threads.setdefault(event.get("tid"), []).append(event)
    for operators in threads.values():
        open_: list[list[Any]] = []  # name, begin, end, own
        for event in sorted(operators, key=lambda e: (float(e["ts"]), -float(e["dur"]))):
            begin, length = float(event["ts"]), float(event["dur"])
            while open_ and open_[-1][2] <= begin:
                name, since, _, own = open_.pop()
                found.append((name, since, own))
            if open_:
                open_[-1][3] -= length
            open_.append([event["name"], begin, begin + length, length])
        found += [(name, since, own) for name, since, _, own in open_]
    return [(name, begin, max(own, 0.0)) for name, begin, own in found]


def summary(spans: Sequence[Span], cuda: bool) -> dict[str, Any]:
    """Sums over kernels.

    Returns:
        `busy_seconds` in which the device computed and `idle_seconds` between its first and last kernel in which it did not;
        `kinds`: seconds and calls by kind; `phases`: seconds by phase and kind; `top`: the kernels that took longest.
    """
    kinds: dict[str, dict[str, float]] = {}
    phases: dict[str, dict[str, float]] = {}
    names: dict[tuple[str, str], list[float]] = {}
    for span in spans:
        seconds = span.length / 1e6
        kind = kinds.setdefault(span.kind, {"seconds": 0.0, "calls": 0})
        kind["seconds"] += seconds
        kind["calls"] += 1
        by_kind = phases.setdefault(span.phase, {})
        by_kind[span.kind] = by_kind.get(span.kind, 0.0) + seconds
        entry = names.setdefault((span.name, span.kind), [0.0, 0])
        entry[0] += seconds
        entry[1] += 1
    top = sorted(names.items(), key=lambda item: -item[1][0])[:TOP]
    busy, whole = _union(spans) if cuda else (sum(span.length for span in spans) / 1e6, None)
    return {
        "of": "kernels" if cuda else "operators",
        "busy_seconds": busy,
        "idle_seconds": None if whole is None else whole - busy,
        "kinds": dict(sorted(kinds.items(), key=lambda item: -item[1]["seconds"])),
        "phases": phases,
        "top": [
            {"name": short(name), "kind": kind, "seconds": seconds, "calls": int(calls)} for (name, kind), (seconds, calls) in top
        ],
    }


def _union(spans: Sequence[Span]) -> tuple[float, float]:
    """Seconds in which at least one ran, and from the first's begin to the last's end: streams may overlap."""
    busy, end, first = 0.0, float("-inf"), min((span.begin for span in spans), default=0.0)
    for span in sorted(spans, key=lambda span: span.begin):
        until = span.begin + span.length
        busy += max(0.0, until - max(end, span.begin))
        end = max(end, until)
    return busy / 1e6, (end - first) / 1e6 if spans else 0.0


def short(name: str) -> str:
    """A kernel's name without return type and the ends of long ones."""
    name = name.removeprefix("void ")
    return name if len(name) <= NAME else name[: NAME - 1] + "…"
