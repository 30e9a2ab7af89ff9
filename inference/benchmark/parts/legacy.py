"""The reference's protocol on this engine."""

from __future__ import annotations

from typing import Any

from inference.benchmark.bench import Bench
from inference.benchmark.generation import answer
from inference.benchmark.legacy import EQUAL_LENGTH, PUBLISHED, PUBLISHED_PEER, decompose, latency_at, legacy_runs
from inference.benchmark.workload import prompt


def measure(bench: Bench) -> dict[str, Any]:
    """Frames are on the device before the clock starts, as the reference's pixels are; no token ends an answer."""
    work, meter = bench.workload, bench.meter
    engine = bench.engine(rows=work.frames + work.text_rows + work.legacy_tokens, frames=work.frames)
    frames = bench.clip(work.frames).to(bench.device)
    rows = prompt(bench.config, work.frames, work.text_rows)

    def generate(tokens: int) -> int:
        return len(answer(engine, rows, tokens, meter, frames).tokens)

    found = legacy_runs(generate, meter, work.legacy_tokens, work.legacy_runs)
    figures = {"this engine": found, "published reference": PUBLISHED, "published Qwen2.5-VL-7B": PUBLISHED_PEER}
    implied = {
        name: {
            **decompose(one["ttft_s"], one["tokens_per_second"], one["total_s"]),
            f"latency_at_{EQUAL_LENGTH}_tokens_s": latency_at(one["ttft_s"], one["tokens_per_second"], EQUAL_LENGTH),
        }
        for name, one in figures.items()
        if one["tokens_per_second"] > 0
    }
    published = {"reference": PUBLISHED, "Qwen2.5-VL-7B": PUBLISHED_PEER}
    return {**found, "frames": work.frames, "published": published, "implied": implied}
