"""All checks in a row, their bounds, and the file of their numbers."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import torch

from model.errors import InputError
from model.fp8 import fp8_problem
from moss_train.checkpoint.description import write_atomically
from moss_train.config.schema import ParallelConfig
from moss_train.parallel.layout import ParallelLayout, start_layout, stop_layout
from moss_train.parallel.world import start_world, stop_world
from moss_train.platform.device import resolve_device
from moss_train.verify.engine import curves, distances, repeats, rotary, speed
from moss_train.verify.engine.subject import ALL_FP8, CURRENT, DELAYED, ENGINE, TORCH, Variant

YARDSTICK = 1.5
"""bf16 with Transformer Engine may be this many times as far from fp32 as bf16 with torch's modules."""
ORDER = 1e-2
"""Gradients in bf16 that differ only in the order in which attention's backward kernels add up."""
READ = 1e-3
"""Losses of a model read from its checkpoint: kernels may be chosen by where tensors lie. A lost history moves them by 1e-2."""
_REPEATS = {"gradients": ORDER, "checkpoint": READ}
FP8 = 0.1
"""Distance from fp32 of what one layer in fp8 adds."""
IN_FP8 = 0.8
"""bf16's distance is at most this share of a layer's that computes in fp8; 1 would be a layer that does not."""
CURVE = 0.1
"""Mean difference of an fp8 loss curve from the bf16 one, as a share of how far the bf16 loss fell."""


@dataclass(frozen=True)
class Verdict:
    """One bound and what was found."""

    name: str
    value: float
    bound: float

    @property
    def kept(self) -> bool:
        return self.value <= self.bound


def _ratios(pairs: Iterable[dict[str, float]]) -> list[float]:
    return [pair[ENGINE.name] / pair[TORCH.name] for pair in pairs]


def _distance_verdicts(found: dict[str, Any]) -> list[Verdict]:
    layers = found["layers"]
    return [
        Verdict("worst layer's output, times torch's own distance", max(_ratios(x["output"] for x in layers)), YARDSTICK),
        Verdict("worst layer alone, times torch's own distance", max(_ratios(x["alone"] for x in layers)), YARDSTICK),
        Verdict("losses, times torch's own distance", _ratios([found["losses"]])[0], YARDSTICK),
        Verdict("all gradients, times torch's own distance", _ratios([found["all gradients"]])[0], YARDSTICK),
        Verdict("median gradient, times torch's own distance", median(_ratios(found["gradients"].values())), YARDSTICK),
        *(verdict for variant in (DELAYED, CURRENT, ALL_FP8) for verdict in _fp8_verdicts(layers, variant)),
    ]


def _fp8_verdicts(layers: list[dict[str, Any]], variant: Variant) -> list[Verdict]:
    """Layers in fp8 must be as far from fp32 as 3 bits of fraction make them, and all others as near as in bf16."""
    verdicts = []
    for kind in ("self", "cross"):
        pairs = [(x["alone"][variant.name], x["alone"][ENGINE.name]) for x in layers if x["kind"] == kind]
        if kind == "self" or variant.fp8_cross_layers:
            verdicts.append(Verdict(f"{kind} layers of {variant.name}: distance", max(fp8 for fp8, _ in pairs), FP8))
            inverse = max(bf16 / fp8 for fp8, bf16 in pairs)
            verdicts.append(Verdict(f"{kind} layers of {variant.name}: bf16's distance, times theirs", inverse, IN_FP8))
        else:
            worst = max(fp8 / bf16 for fp8, bf16 in pairs)
            verdicts.append(Verdict(f"{kind} layers of {variant.name}: times bf16's distance", worst, 1 + 1e-6))
    return verdicts


def _rotary_verdicts(found: dict[str, float]) -> list[Verdict]:
    bounds = {"fp32": 1e-6, "exact": 4e-3, "separate": 5e-3}
    return [
        Verdict(f"rotary: {name}", value, next(b for key, b in bounds.items() if key in name)) for name, value in found.items()
    ]


def _repeat_verdicts(found: dict[str, Any]) -> list[Verdict]:
    return [
        Verdict(f"{what}: {name}", value, next((bound for part, bound in _REPEATS.items() if part in what + name), 0.0))
        for what, values in found.items()
        for name, value in values.items()
    ]


def _curve_verdicts(found: dict[str, Any]) -> list[Verdict]:
    base = found[ENGINE.name]
    fall = base["losses"][0] - base["last"]
    verdicts = [Verdict("bf16 loss at the end, as a share of the start", base["last"] / base["losses"][0], 0.5)]
    others = {name: curve for name, curve in found.items() if name != ENGINE.name}
    verdicts += [Verdict(f"curve of {name}: mean difference", c["mean_difference"] / fall, CURVE) for name, c in others.items()]
    return verdicts


JUDGES: dict[str, Callable[[Any], list[Verdict]]] = {
    "distances": _distance_verdicts,
    "rotary": _rotary_verdicts,
    "repeats": _repeat_verdicts,
    "speed": lambda found: [],
    "curves": _curve_verdicts,
}
"""By check: its numbers to the bounds that they keep or break."""


def run(out: Path | None, steps: int = 200) -> int:
    """Run every check on this machine's GPU and print a line for each bound.

    Args:
        out: where the numbers go as JSON; None writes none.
        steps: of the loss curves.

    Returns:
        0 if every bound is kept, else 1.

    Raises:
        InputError: no device with fp8, or no Transformer Engine.
    """
    problem = fp8_problem()
    if problem is not None:
        raise InputError(f"moss verify engine compares Transformer Engine and fp8 with torch, but {problem}")
    device = resolve_device("cuda")
    start_world(device)
    try:
        return _run(start_layout(ParallelConfig(), device, seed=1), out, steps)
    finally:
        stop_layout()
        stop_world()


def _run(layout: ParallelLayout, out: Path | None, steps: int) -> int:
    checks: dict[str, Callable[[], Any]] = {
        "distances": lambda: distances.measure(layout),
        "rotary": lambda: rotary.measure(layout),
        "repeats": lambda: repeats.measure(layout),
        "speed": lambda: speed.measure(layout),
        "curves": lambda: curves.measure(layout, steps),
    }
    found: dict[str, Any] = {"machine": machine(), "steps": steps}
    verdicts: list[Verdict] = []
    for name, ask in checks.items():
        found[name] = ask()
        judged = JUDGES[name](found[name])
        verdicts += judged
        if out is not None:
            write_atomically(out, json.dumps(found, indent=1) + "\n")
        for verdict in judged:
            print(f"{verdict.name:<86} {verdict.value:.3e}  {'ok' if verdict.kept else f'ABOVE {verdict.bound:g}'}", flush=True)
    for what, rows in found["speed"].items():
        for name, row in rows.items():
            print(f"{what}, {name:<30} {row['milliseconds']:.2f} ms, {row['tflops']:.0f} TFLOP/s, {row['peak_gib']:.2f} GiB")
    bad = [verdict for verdict in verdicts if not verdict.kept]
    print(f"{len(verdicts) - len(bad)} of {len(verdicts)} bounds kept")
    return 1 if bad else 0


def machine() -> dict[str, str]:
    """What the numbers were measured with."""
    packages = ("torch", "transformer-engine", "megatron-core", "flash-attn")
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "absent"
    return {
        "device": torch.cuda.get_device_name(),
        "cuda": str(torch.version.cuda),
        "python": platform.python_version(),
        **versions,
    }
