"""Writes whole sets of the world: shards for training, scenarios for evaluation, texts for the tokenizer."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from data_pipeline.world.scenarios import build_scenarios
from data_pipeline.world.seeds import TASK_SPAN, first_seed
from data_pipeline.world.tasks.sample import SAMPLE_TASKS, SEEDS_PER_SAMPLE, build_samples
from model.errors import InputError

SCENARIO_TASKS = ("stream", "ask")
CHUNK = 32
"""Samples that a worker process makes at a time."""

Progress = Callable[[str, int, int], None]
"""Called with (task, finished, wanted)."""


def write_world(
    out_dir: str | os.PathLike[str],
    split: str,
    counts: Mapping[str, int],
    seed: int = 0,
    workers: int = 1,
    samples_per_shard: int = 500,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write `OUT/<split>/<task>/` shards and, for `stream` and `ask`, `OUT/<split>/scenarios.jsonl` with its videos.

    Args:
        split: train | validation | test; their clips never coincide.
        counts: samples by task: dense, text, cap, trk, qa, rt, stream, ask. A task with count 0 is left out.
        seed: which of ten worlds; every clip is a function of split, task, seed and index alone.
        workers: processes; the files do not depend on their number.

    Returns:
        The summary of every task.

    Raises:
        InputError: unknown task or split, a count that is negative or too large, or a folder that exists already.
    """
    from data_pipeline.shards import write_samples  # here, because worker processes do without Energon

    _check(split, counts, seed)
    root = Path(out_dir) / split
    summary: dict[str, Any] = {}
    with _pool(workers) as mapper:
        for task in SAMPLE_TASKS:
            if count := counts.get(task, 0):
                work = partial(build_samples, task, first_seed(split, task, seed), count, CHUNK)
                made = _counted(mapper(work, range(0, count, CHUNK)), task, count, progress)
                summary[task] = write_samples(root / task, made, samples_per_shard=samples_per_shard, overwrite=overwrite)
        if any(counts.get(task, 0) for task in SCENARIO_TASKS):
            summary["scenarios"] = _write_scenarios(root, split, counts, seed, mapper, overwrite, progress)
    return summary


def _check(split: str, counts: Mapping[str, int], seed: int) -> None:
    for task, count in counts.items():
        first_seed(split, task, seed)
        most = TASK_SPAN // SEEDS_PER_SAMPLE.get(task, 1)
        if not 0 <= count <= most:
            raise InputError(f"count of {task} is {count}; it must lie within 0..{most}")
    if not any(counts.values()):
        raise InputError("nothing to make: give a count above 0 for at least one task, such as --qa 100")


Mapper = Callable[[Callable[[int], list[Any]], range], Iterator[list[Any]]]


class _pool:
    """A map over processes, in order; with one worker everything happens in this process."""

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise InputError(f"workers is {workers}; it must be at least 1")
        # spawn: the parent may hold threads of an imported library, which a forked child would not survive
        self._pool = multiprocessing.get_context("spawn").Pool(workers) if workers > 1 else None

    def __enter__(self) -> Mapper:
        if self._pool is None:
            return lambda work, starts: map(work, starts)
        return self._pool.imap

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._pool is None:
            return
        if kind is None:
            self._pool.close()
        else:
            self._pool.terminate()
        self._pool.join()


def _counted(chunks: Iterator[list[Any]], task: str, count: int, progress: Progress | None) -> Iterator[Any]:
    done = 0
    for chunk in chunks:
        yield from chunk
        done += len(chunk)
        if progress is not None:
            progress(task, done, count)


def _write_scenarios(
    root: Path, split: str, counts: Mapping[str, int], seed: int, mapper: Mapper, overwrite: bool, progress: Progress | None
) -> dict[str, Any]:
    target, videos = root / "scenarios.jsonl", root / "videos"
    if target.exists() and not overwrite:
        raise InputError(f"{target} exists already; choose another folder or pass --overwrite")
    shutil.rmtree(videos, ignore_errors=True)
    videos.mkdir(parents=True)
    lines = []
    for task in SCENARIO_TASKS:
        if count := counts.get(task, 0):
            work = partial(build_scenarios, task, first_seed(split, task, seed), count, CHUNK)
            for values, content in _counted(mapper(work, range(0, count, CHUNK)), task, count, progress):
                (root / values["video"]).write_bytes(content)
                lines.append(json.dumps(values, ensure_ascii=False))
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    os.replace(temporary, target)
    return {"scenarios": len(lines), "file": str(target)}
