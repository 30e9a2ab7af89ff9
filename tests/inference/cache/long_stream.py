"""A stream of hours in virtual time: what a session holds and reads must not grow.

`python -m tests.inference.cache.long_stream --hours 3` runs three hours of one frame a second through a tiny model and
prints a line for every ten minutes. On a GPU, with a real checkpoint: `--checkpoint DIR --device cuda`.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from data_pipeline.text.tokenizer import Tokenizer
from inference.cache.policies import CachePolicy, policy_from
from inference.cache.store import store_for
from inference.engine import StepEngine, StepRequest
from inference.model.load import load_model
from inference.sampling import SamplingConfig
from inference.session import Arrival, Inbox, RealtimeSession, SessionSettings, VirtualClock
from tests.inference.checkpoints import tiny_config, tiny_tokenizer, write_checkpoint

PROMPT_SECONDS = 180


@dataclass
class Sample:
    """The stream at one moment."""

    minute: float
    frames_seen: int
    steps: int
    row_pages: int
    frame_pages: int
    kept_bytes: int
    most_keys_read: int
    """By one row in one layer of each kind, since the last sample."""
    most_position: int
    renumberings: int
    python_bytes: int
    resident_bytes: int
    gpu_bytes: int
    slowest_step_ms: float


class MeasuredEngine(StepEngine):
    """A step engine that counts what its steps read."""

    keys_read = position = steps = 0
    slowest = 0.0

    def serve(self, requests: Sequence[StepRequest]) -> list[Any]:
        """As `StepEngine.serve`, for one session."""
        (request,) = requests
        cache, tokens = request.cache, self.model.config.vision.tokens_per_frame
        rows = cache.length + len(request.tokens) + (cache.frames + request.new_frames) * tokens
        self.keys_read, self.position = max(self.keys_read, rows), max(self.position, cache.next_position + len(request.tokens))
        begin = time.perf_counter()
        answers = super().serve(requests)
        self.slowest = max(self.slowest, time.perf_counter() - begin)
        self.steps += 1
        return answers


def stream(hours: float, side: int, fps: float) -> Iterator[Arrival]:
    """Moving frames, and a prompt every three minutes."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randint(0, 256, (3, side, side), dtype=torch.uint8, generator=generator)
    for i in range(int(hours * 3600 * fps)):
        t = i / fps
        if i and t % PROMPT_SECONDS == 0:
            yield Arrival(t=t, prompt="what colour is the ball ?")
        yield Arrival(t=t, frame=torch.roll(base, i, dims=2) ^ (i // side % 256))


def run_stream(
    model: Any, tokenizer: Tokenizer, settings: SessionSettings, hours: float, *, minutes: float, fps: float
) -> tuple[list[Sample], MeasuredEngine]:
    """Samples every `minutes` of stream time."""
    engine = MeasuredEngine(model, store_for(model, settings.policy or CachePolicy()))
    inbox = Inbox(stream(hours, model.config.vision.image_size, fps))
    session = RealtimeSession(engine, tokenizer, inbox, VirtualClock(), settings)
    samples: list[Sample] = []
    gpu = torch.cuda.memory_allocated if model.device.type == "cuda" else lambda: 0
    moment = 0.0
    while moment < hours * 60:
        moment = min(moment + minutes, hours * 60)
        session.run(until=hours * 3600 + 60, pause_at=moment * 60)  # paused, it still holds its cache
        gc.collect()
        cache = session.cache
        pools = (engine.store.self_pool, engine.store.cross_pool)
        python = tracemalloc.get_traced_memory()[0] if tracemalloc.is_tracing() else 0
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
        samples.append(
            Sample(
                minute=moment,
                frames_seen=cache.frames_seen,
                steps=engine.steps,
                row_pages=pools[0].allocator.used_pages,
                frame_pages=pools[1].allocator.used_pages,
                kept_bytes=engine.store.num_bytes,
                most_keys_read=engine.keys_read,
                most_position=engine.position,
                renumberings=cache.renumberings,
                python_bytes=python,
                resident_bytes=resident,
                gpu_bytes=gpu(),
                slowest_step_ms=1e3 * engine.slowest,
            )
        )
        engine.keys_read = engine.position = 0
        engine.slowest = 0.0
    return samples, engine


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--hours", type=float, default=3.0)
    parser.add_argument("--fps", type=float, default=1.0)
    parser.add_argument("--tokens_per_second", type=float, default=2.0)
    parser.add_argument("--checkpoint", default=None, help="a real-time checkpoint; default: a tiny random one")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cross_policy", default="sink_window:4:60")
    parser.add_argument("--text_window", default="64:512")
    parser.add_argument("--position_limit", type=int, default=2048)
    parser.add_argument("--trace_python", action="store_true", help="count Python's own allocations too (slower)")
    parser.add_argument("--out", default=None, help="write the samples as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(args.checkpoint or write_checkpoint(Path(scratch) / "tiny", tiny_config(), tokenizer=tiny_tokenizer()))
        dtype = torch.bfloat16 if args.device.startswith("cuda") else torch.float32
        model, tokenizer = load_model(folder, args.device, dtype), Tokenizer.from_file(folder)
    policy = policy_from(args)
    settings = SessionSettings(
        sampling=SamplingConfig(do_sample=True, seed=1),
        tokens_per_second=args.tokens_per_second,
        keep_events=False,
        max_new_tokens=10**9,
        max_frames=10**9,
        policy=policy,
    )
    if args.trace_python:
        tracemalloc.start()
    begin = time.perf_counter()
    samples, _ = run_stream(model, tokenizer, settings, args.hours, minutes=10, fps=args.fps)
    names = ("minute", "frames_seen", "steps", "row_pages", "frame_pages", "most_keys_read", "most_position", "renumberings")
    print(" ".join(f"{name:>14}" for name in names), "     kept MB  resident MB    python MB       gpu MB slowest ms")
    for sample in samples:
        numbers = " ".join(f"{getattr(sample, name):>14}" for name in names)
        sizes = (sample.kept_bytes, sample.resident_bytes, sample.python_bytes, sample.gpu_bytes)
        print(numbers, " ".join(f"{size / 1e6:>12.2f}" for size in sizes), f"{sample.slowest_step_ms:>10.1f}")
    print(f"{time.perf_counter() - begin:.0f} s for {args.hours:g} h of stream")
    if args.out:
        Path(args.out).write_text(json.dumps({"arguments": vars(args), "samples": [asdict(s) for s in samples]}, indent=1))


if __name__ == "__main__":
    main()
