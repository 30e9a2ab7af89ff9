"""From pixels in the host's memory to the last token of an answer of fixed length, and the memory that it takes."""

from __future__ import annotations

from typing import Any

from inference.benchmark import roofline
from inference.benchmark.bench import Bench
from inference.benchmark.generation import answer
from inference.benchmark.statistics import describe
from inference.benchmark.workload import prompt


def measure(bench: Bench) -> dict[str, Any]:
    """Whole answers after one that is not counted; `seconds` is their mean, `memory_gib` the high-water mark over them."""
    work, meter = bench.workload, bench.meter
    engine = bench.engine(rows=work.frames + work.text_rows + work.new_tokens, frames=work.frames)
    frames = bench.clip(work.frames)
    rows = prompt(bench.config, work.frames, work.text_rows)
    answer(engine, rows, work.new_tokens, meter, frames)
    meter.sync()
    meter.reset_peak()
    seconds, firsts = [], []
    for _ in range(work.runs):
        meter.sync()
        begin = meter.now()
        found = answer(engine, rows, work.new_tokens, meter, frames)
        firsts.append(found.times[0] - begin)
        seconds.append(found.times[-1] - begin)
    mean = sum(seconds) / len(seconds)
    floor = roofline.end_to_end_floor(bench.config, bench.chip, len(rows), work.frames, work.new_tokens)
    return {
        "seconds": mean,
        "runs": {"total_s": seconds, "first_token_s": firsts},
        "statistics": {"total_s": describe(seconds), "first_token_s": describe(firsts)},
        "tokens": work.new_tokens,
        "frames": work.frames,
        "memory_gib": meter.memory(),
        "roofline": {"end to end": {"floor_s": floor, "measured_s": mean, "percent": 100 * floor / mean}},
    }
