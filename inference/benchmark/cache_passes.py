"""`python -m inference.benchmark.cache_passes --out FILE`: what forgetting costs, pass by pass, at the shapes of the 11B model.

Renumbering, pooling, putting away and fetching frames, and forks, on pages with random content; no weights are needed.
`--model tiny --device cpu` runs the same on a CPU, as a trial of the program and not of its speed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from inference.benchmark.models import MODELS
from inference.benchmark.roofline import H200
from inference.cache.patch_grid import pooled_tokens
from inference.cache.policies.offload import Offload
from inference.cache.policies.policy import CachePolicy
from inference.cache.policies.runner import PolicyRunner
from inference.cache.pooling import keep_class_tokens, pool_batch
from inference.cache.rekey import KeyMaker, renumber
from inference.cache.session_cache import SessionCache
from inference.cache.store import KVStore
from inference.checkpoint import check_device
from inference.commands import exit_code
from model.errors import InputError

REPEATS = 7
KEPT_ROWS, KEPT_FRAMES, RECALLED = 2048, 60, 16


@dataclass(frozen=True)
class Pass:
    """One thing that a policy does.

    Attributes:
        prepare: makes the session that it is done to; not timed.
        run: does it.
        num_bytes: read and written at the least.
    """

    name: str
    prepare: Callable[[], SessionCache]
    run: Callable[[SessionCache], Any]
    num_bytes: int


class Passes:
    """All passes on one store.

    Args:
        model: a name of `MODELS`.
        device: where the pages are.
    """

    def __init__(self, model: str, device: torch.device) -> None:
        config = MODELS[model]
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.tokens = config.vision.tokens_per_frame
        frames = 2 * (KEPT_FRAMES + self.tokens + RECALLED)
        on_gpu = device.type == "cuda"
        self.store = KVStore(
            config, device, dtype, positions=2 * KEPT_ROWS + 512, frames=frames, growable=not on_gpu, raw_keys=True
        )
        norm = torch.ones(config.text.head_dim, device=device, dtype=dtype)
        self.maker = KeyMaker(config, [norm for _ in config.text.cross_attention_layers])
        self.offload = PolicyRunner(CachePolicy(cross=Offload(KEPT_FRAMES, RECALLED)), self.store, self.maker)
        self._fill()

    def all(self) -> list[Pass]:
        """In the order in which they are measured."""
        row_page, frame_page = (pool.page_bytes for pool in (self.store.self_pool, self.store.cross_pool))
        # A page is keys, values and unrotated keys, each a third of its bytes.
        key_pass = 2 * (KEPT_ROWS // self.store.self_pool.page_rows * row_page + KEPT_FRAMES * frame_page) // 3
        small = pooled_tokens(self.tokens)
        return [
            Pass("renumber", lambda: self._session(KEPT_FRAMES, gap=True), lambda cache: renumber(cache, self.maker), key_pass),
            Pass(
                "pool a batch",
                lambda: self._session(self.tokens),
                lambda cache: pool_batch(cache, self.maker, 0),
                2 * self.tokens * frame_page // 3 + small * frame_page,
            ),
            Pass("keep class tokens", self._pooled, lambda cache: keep_class_tokens(cache, self.maker, 0), 2 * frame_page),
            Pass("put a frame away", lambda: self._session(KEPT_FRAMES + 1), self.offload.settle, frame_page),
            Pass("fetch for a prompt", self._archived, self.offload.prompt_boundary, RECALLED * frame_page),
            Pass("fork and write", lambda: self._session(KEPT_FRAMES, rows=KEPT_ROWS + 7), self._fork, 2 * row_page),
        ]

    def _session(self, frames: int, *, rows: int = KEPT_ROWS, gap: bool = False) -> SessionCache:
        cache = self.store.new_cache()
        if gap:
            cache.reserve(64, 1)
            cache.advance(64, [0])
        cache.reserve(rows, frames)
        begin = cache.next_position
        cache.advance(rows, [begin + i * (rows // frames or 1) for i in range(frames)])
        if gap:
            cache.drop_rows(0, 64 // self.store.self_pool.page_rows)
            cache.drop_frames(0, 1)
        return cache

    def _pooled(self) -> SessionCache:
        cache = self._session(self.tokens)
        pool_batch(cache, self.maker, 0)
        return cache

    def _archived(self) -> SessionCache:
        cache = self._session(KEPT_FRAMES + RECALLED)
        self.offload.settle(cache)
        return cache

    def _fork(self, cache: SessionCache) -> None:
        other = cache.fork()
        other.reserve(1, 0)
        other.release()

    def _fill(self) -> None:
        generator = torch.Generator(self.store.self_pool.device).manual_seed(0)
        for pool in (self.store.self_pool, self.store.cross_pool):
            for layer in range(pool.shape.layers):
                for pages in (pool.keys(layer), pool.values(layer), pool.raw_keys(layer)):
                    pages.normal_(generator=generator)


def measure(one: Pass, device: torch.device) -> dict[str, float]:
    """Median milliseconds, host and device: `wall_ms` to the end of the work, `host_ms` until the host is free again."""
    walls, hosts = [], []
    for repeat in range(REPEATS + 1):
        cache = one.prepare()
        _wait(device)
        begin = time.perf_counter()
        one.run(cache)
        host = time.perf_counter() - begin
        _wait(device)
        if repeat:  # the first one warms up
            walls.append(time.perf_counter() - begin)
            hosts.append(host)
        cache.release()
    wall = statistics.median(walls)
    return {
        "wall_ms": 1e3 * wall,
        "host_ms": 1e3 * statistics.median(hosts),
        "gigabytes": one.num_bytes / 1e9,
        "gigabytes_per_second": one.num_bytes / 1e9 / wall,
        "floor_ms": 1e3 * one.num_bytes / H200.bytes_per_second,
    }


def run(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure and write; returns what was written."""
    parser = argparse.ArgumentParser(prog="cache_passes", description="What forgetting costs, pass by pass.")
    parser.add_argument("--model", choices=sorted(MODELS), default="11b", help="whose shapes (default 11b)")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto (default)")
    parser.add_argument("--out", default=None, help="JSON file to write")
    args = parser.parse_args(argv)
    device = torch.device(check_device(args.device))
    if args.model == "11b" and device.type != "cuda":
        raise InputError("--model is 11b but there is no GPU, and its pages take 2 GB; use --model tiny for a trial")
    passes = Passes(args.model, device)
    found: dict[str, Any] = {}
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    result = {"device": name, "model": args.model, "rows": KEPT_ROWS, "frames": KEPT_FRAMES, "passes": found}
    for one in passes.all():
        try:
            numbers = found[one.name] = measure(one, device)
        except RuntimeError as error:  # of the device: the other passes are measured all the same
            found[one.name] = {"error": f"{type(error).__name__}: {error}"[:400]}
            print(f"{one.name:20} {found[one.name]['error']}", flush=True)
        else:
            host, floor = numbers["host_ms"], numbers["floor_ms"]
            print(f"{one.name:20} {numbers['wall_ms']:9.3f} ms, host {host:8.3f} ms, floor {floor:7.3f} ms", flush=True)
        if args.out:
            Path(args.out).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 2 for input that a user can put right."""
    return exit_code("cache_passes", lambda: run(argv))


if __name__ == "__main__":
    sys.exit(main())
