"""Time to first token of a question about a clip: from pixels in the host's memory, from pixels on the device, and by stages."""

from __future__ import annotations

from typing import Any

import torch

from inference.benchmark import roofline
from inference.benchmark.bench import Bench
from inference.benchmark.generation import answer, fixed_length, session
from inference.benchmark.meter import repeat
from inference.benchmark.models import valid_patch_rows
from inference.benchmark.statistics import describe
from inference.benchmark.workload import prompt
from inference.engine import StepEngine
from inference.vision.effects import measure_effects
from inference.vision.mode import vision_mode

EFFECT_TOKENS = 32
"""Of the reply that a fast mode is held against."""


def measure(bench: Bench, vision: str = "exact") -> dict[str, Any]:
    """Times in seconds of each run.

    Args:
        vision: the tower's mode; of another one than exact, what it changes is measured too.

    Returns:
        `ttft_s` (mean, uint8 frames uploaded, encoded, prompt fed, token read), single times and floors.
    """
    work, meter = bench.workload, bench.meter
    rows = prompt(bench.config, work.frames, work.text_rows)
    engine = bench.engine(vision=vision, rows=len(rows) + EFFECT_TOKENS, frames=work.frames)
    frames = bench.clip(work.frames)
    # The first stage that is timed warms up for all.
    times = {"from_host_pixels_s": repeat(meter, lambda: answer(engine, rows, 1, meter, frames), work.runs)}
    if vision == "exact":
        # A mode that looks for padding does so in the host's memory.
        resident = frames.to(bench.device)
        times["from_device_pixels_s"] = repeat(meter, lambda: answer(engine, rows, 1, meter, resident), work.runs, 0)
        del resident
    times["encode_s"] = repeat(meter, lambda: engine.encode(frames), work.runs, 0)
    features = engine.encode(frames)

    def prefill() -> None:
        with session(engine) as cache:
            engine.drive([fixed_length(cache, rows, 1, meter, features=features)])

    times["prefill_s"] = repeat(meter, prefill, work.runs, 0)
    found = {
        "ttft_s": sum(times["from_host_pixels_s"]) / work.runs,
        "vision": vision,
        "runs": times,
        "statistics": {name: describe(values) for name, values in times.items()},
        "rows": len(rows),
        "frames": work.frames,
        "visual_tokens": work.frames * bench.config.vision.tokens_per_frame,
        "roofline": _roofline(bench, vision, len(rows), {name: min(values) for name, values in times.items()}),
    }
    return found if vision == "exact" else {**found, "effect": effect(engine, frames, rows, vision)}


def effect(engine: StepEngine, frames: torch.Tensor, rows: list[int], vision: str) -> dict[str, Any]:
    """What a mode of the tower changes in features and tokens, on this clip with these weights."""
    found = next(measure_effects(engine, frames, rows, [vision_mode(vision)], tokens=EFFECT_TOKENS))
    return {**found.row(), "cosine": found.cosine, "kl": found.kl}


def _roofline(bench: Bench, vision: str, rows: int, best: dict[str, float]) -> dict[str, dict[str, float]]:
    """Floor of each stage and how much of the fastest run it is."""
    config, chip, frames = bench.config, bench.chip, bench.workload.frames
    stages = roofline.stages(config, chip, rows, frames)
    feed = stages["cross keys and values"]["floor_s"] + stages["prefill"]["floor_s"]
    whole = roofline.first_token_floor(config, chip, rows, frames)
    if vision != "exact":
        whole = roofline.fast_floor(config, chip, rows, frames, valid_patch_rows(config))
    floors = {"encode_s": whole - feed, "prefill_s": feed}
    return {
        name: {"floor_s": floors.get(name, whole), "measured_s": seconds, "percent": 100 * floors.get(name, whole) / seconds}
        for name, seconds in best.items()
    }
