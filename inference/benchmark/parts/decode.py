"""Tokens a second of one session with the clip's frames cached, and how even the tokens come."""

from __future__ import annotations

from typing import Any

from inference.benchmark import roofline
from inference.benchmark.bench import Bench
from inference.benchmark.generation import Generated, fixed_length, session
from inference.benchmark.statistics import describe, differences
from inference.benchmark.workload import prompt
from inference.model.linear import set_products
from model.kernels.select import Form


def measure(bench: Bench, recipe: str = "bf16", fp8_frames: bool = False, products: Form | None = None) -> dict[str, Any]:
    """Decode a fixed number of tokens several times; the first run is not counted.

    Args:
        recipe: how the decoder's weights are kept.
        fp8_frames: keys and values of frames in fp8 too.
        products: form of products with dense weights; None: by device, which on a GPU streams them by kernels of ours.

    Returns:
        `tokens_per_second` (mean of the runs), statistics of the gaps between tokens in seconds, every gap of every run.
    """
    work, meter = bench.workload, bench.meter
    engine = bench.engine(
        recipe, rows=work.frames + work.text_rows + work.decode_tokens, frames=work.frames, fp8_frames=fp8_frames
    )
    set_products(engine.model.matrices(), products)
    rows = prompt(bench.config, work.frames, work.text_rows)
    features = engine.encode(bench.clip(work.frames))
    runs: list[Generated] = []
    for _ in range(1 + work.runs):
        with session(engine) as cache:
            runs.append(engine.drive([fixed_length(cache, rows, work.decode_tokens, meter, features=features)])[0])
    set_products(engine.model.matrices(), None)
    gaps = [differences(run.times) for run in runs[1:]]
    speed = sum(run.tokens_per_second for run in runs[1:]) / work.runs
    context = len(rows) + work.decode_tokens / 2
    floor = roofline.decode_floor(bench.config, bench.chip, work.frames, context, recipe=recipe, fp8_cross=fp8_frames)
    return {
        "tokens_per_second": speed,
        "runs": gaps,
        "statistics": {"gap_s": describe([gap for run in gaps for gap in run])},
        "same_tokens_every_run": all(run.tokens == runs[0].tokens for run in runs),
        "tokens": work.decode_tokens,
        "frames": work.frames,
        "context_rows": context,
        "roofline": {"decode": {"floor_s": floor, "measured_s": 1 / speed, "percent": 100 * floor * speed}},
    }
