"""Stock transformers' Qwen2.5-VL-7B with random weights, beside this engine in the same run."""

from __future__ import annotations

import inspect
from importlib.util import find_spec
from typing import Any

from inference.benchmark.bench import Bench
from inference.benchmark.legacy import legacy_runs
from inference.benchmark.peer_model import SEVEN_B, TINY, Peer


def measure(bench: Bench) -> dict[str, Any]:
    """The reference's protocol on it, at a fixed output length; this engine's weights are let go first."""
    bench.release()
    work = bench.workload
    sizes = SEVEN_B if bench.setup.model == "11b" else TINY
    flash = bench.device.type == "cuda" and find_spec("flash_attn") is not None
    attention = "flash_attention_2" if flash else "sdpa"
    try:
        peer = Peer(sizes, work.peer_grid, work.text_rows, bench.device, bench.dtype, attention)
    except (ImportError, ValueError) as error:
        if not flash:
            raise
        # transformers takes some builds of flash-attn only.
        bench.say(f"peer: no flash attention: {error}")
        attention = "sdpa"
        peer = Peer(sizes, work.peer_grid, work.text_rows, bench.device, bench.dtype, attention)
    accepted = inspect.signature(peer.model.forward).parameters
    peer.inputs = {name: value for name, value in peer.inputs.items() if name in accepted}
    bench.meter.reset_peak()
    found = legacy_runs(peer.generate, bench.meter, work.peer_tokens, work.peer_runs)
    memory = bench.meter.memory()
    del peer
    bench.release()
    return {
        **found,
        "latency_s": found["total_s"] - found["ttft_s"],
        "visual_tokens": work.peer_grid[0] * work.peer_grid[1] * work.peer_grid[2] // 4,
        "tokens": work.peer_tokens,
        "memory_gib": memory,
        "attention": attention,
        "model": "Qwen2.5-VL-7B" if sizes is SEVEN_B else "Qwen2.5-VL, tiny",
    }
