"""The reference's own protocol: what it calls time to first token, tokens a second and total latency.

Its preprocessing is outside all timing, `total` holds a separate run for one token, and the first token of the second run is
taken to cost what the separate run cost. Kept to the letter, so that published figures can be compared; `decompose` says
what they hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from inference.benchmark.meter import Meter
from inference.benchmark.statistics import percentile

WARM_UP_TOKENS = 10
EQUAL_LENGTH = 256
"""Output tokens at which latencies are compared."""

PUBLISHED = {"frames": 256, "ttft_s": 1.9537, "ttft_p95_s": 1.9573, "tokens_per_second": 38.41, "total_s": 28.5104}
"""The reference on one H200, as its authors published it (torch 2.4, bf16, flash attention 2)."""
PUBLISHED_PEER = {"ttft_s": 9.9402, "ttft_p95_s": 9.9564, "tokens_per_second": 14.26, "total_s": 52.7624}
"""Qwen2.5-VL-7B in the same table."""

Generate = Callable[[int], int]
"""generate(max_new_tokens) -> how many tokens came; from preprocessed inputs, caches included."""


@dataclass(frozen=True)
class LegacyRun:
    """One run; seconds."""

    ttft_s: float
    tokens: int
    total_s: float
    tokens_per_second: float
    """(tokens - 1) / (second generation - ttft)."""


def legacy_run(generate: Generate, meter: Meter, tokens: int) -> LegacyRun:
    """Time one run as the reference does."""
    meter.sync()
    t0 = meter.now()
    generate(1)
    meter.sync()
    ttft = meter.now() - t0
    t1 = meter.now()
    count = generate(tokens)
    meter.sync()
    t2 = meter.now()
    decoding = (t2 - t1) - ttft
    return LegacyRun(ttft, count, t2 - t0, (count - 1) / decoding if decoding > 0 else 0.0)


def legacy_runs(generate: Generate, meter: Meter, tokens: int, runs: int) -> dict[str, Any]:
    """The protocol: a warm-up of ten tokens, then `runs` runs.

    Returns:
        `runs` one by one and, in the reference's terms, `ttft_s`, `ttft_p95_s`, `tokens_per_second`, `total_s`.
    """
    generate(WARM_UP_TOKENS)
    found = [legacy_run(generate, meter, tokens) for _ in range(runs)]
    return {
        "runs": [asdict(run) for run in found],
        "ttft_s": sum(run.ttft_s for run in found) / runs,
        "ttft_p95_s": percentile([run.ttft_s for run in found], 95),
        "tokens_per_second": sum(run.tokens_per_second for run in found) / runs,
        "total_s": sum(run.total_s for run in found) / runs,
    }


def decompose(ttft_s: float, tokens_per_second: float, total_s: float) -> dict[str, float]:
    """What three figures of the protocol imply: total = 2 ttft + (tokens - 1) / tokens a second.

    Returns:
        `tokens` generated, `latency_s` of one whole generation, the separate run for one token left out.
    """
    return {"tokens": 1 + tokens_per_second * (total_s - 2 * ttft_s), "latency_s": total_s - ttft_s}


def latency_at(ttft_s: float, tokens_per_second: float, tokens: int) -> float:
    """Seconds of one generation of `tokens` tokens at the figures' rates."""
    return ttft_s + (tokens - 1) / tokens_per_second
