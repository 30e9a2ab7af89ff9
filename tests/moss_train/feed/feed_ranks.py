"""Run by torchrun: who reads and who encodes in a layout, and how all ranks end when one cannot read.

Usage: feed_ranks DATA OUT LAYOUT... with a layout as `dp2`, `tp2`, `tp2.pp2`; data parallel takes the rest of the world. Where
a trial takes more than 60 s, because a rank waits for the others, all of them end.
"""

# ruff: noqa: E402 - the platform comes before everything of megatron-core
from __future__ import annotations

import faulthandler
import json
import shutil
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moss_train import platform

platform.install()

import torch
import torch.distributed as dist

from data_pipeline.packing.batch import PackedMicroBatch
from model.errors import InputError
from model.vision.encoder import normalise_pixels
from moss_train.config.schema import RunConfig
from moss_train.feed.agreement import CommonError
from moss_train.feed.wire import pack_rows
from moss_train.parallel.layout import stop_layout
from moss_train.parallel.world import start_world, stop_world
from moss_train.platform.device import resolve_device
from moss_train.setup import start_session
from moss_train.trainer import train
from tests.moss_train.frames.adversarial_ranks import parse_layout
from tests.moss_train.runs import run_config

WATCHDOG = 60  # seconds
BATCH = 4  # micro-batches in a step
FAILING = ("dp2", "tp2.pp2")
"""Where ranks fail too: between replicas, and beside ranks of the same replica that read nothing, of both kinds at once."""


def config_of(data: Path, run_dir: Path, layout: str, steps: int = 2, **changes: Any) -> RunConfig:
    """A run in a layout that reads in the training process, so that what it opens can be seen."""
    sizes = parse_layout(layout)
    place = {f"parallel__{name}": getattr(sizes, name) for name in ("tensor", "pipeline", "context")}
    reading = {"data__worker_processes": 0, "data__global_data_workers": 2, "data__log_samples": True}
    return run_config(data, run_dir, "pt2", steps, train__global_batch_size=BATCH, **place, **reading, **changes)


def gather(value: Any) -> list[Any]:
    """The value of every rank."""
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, value)
    return everyone


def shards_opened() -> list[str]:
    """A list that grows by the path of each shard that this process opens."""
    opened: list[str] = []

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and str(arguments[0]).endswith(".tar"):
            opened.append(str(arguments[0]))

    sys.addaudithook(note)
    return opened


def prints(frames: torch.Tensor) -> list[int]:
    """A fingerprint of each normalised frame."""
    return [zlib.crc32(frame.float().cpu().contiguous().numpy().tobytes()) for frame in frames]


def reading(config: RunConfig, opened: list[str]) -> dict[str, Any]:
    """One step: by rank what it opened and holds, the frames that towers took, and those that were read."""
    opened.clear()
    session = start_session(config)
    encoded: list[int] = []
    session.models.vision.vision_model.register_forward_pre_hook(lambda module, given: encoded.extend(prints(given[0].detach())))
    data = session.feed.read(session.micro_batches, 1, session.step.check)
    statistics = session.step.accumulate(data.batches)
    has_loader = session.feed.loader is not None
    read = [p for b in data.batches for p in prints(normalise_pixels(b.frames, torch.float32))] if has_loader else []
    report = {
        "replica": gather(session.layout.place.data),
        "reads": gather(session.layout.writes_for_replica),
        "loader": gather(has_loader),
        "opened": gather(len(opened)),
        "rows": gather(zlib.crc32(pack_rows(data.batches))),
        "pixel_bytes": gather(sum(b.frames.untyped_storage().nbytes() for b in data.batches)),
        "encoded": sorted(p for rank in gather(encoded) for p in rank),
        "read": sorted(p for rank in gather(read) for p in rank),
        "planned": statistics.encoded_by_rank,
    }
    session.feed.close()
    stop_layout()
    return report


def ending(work: Callable[[], Any]) -> list[str]:
    """The sentence with which every rank ended; "" where one did not."""
    faulthandler.dump_traceback_later(WATCHDOG, exit=True)
    message = ""
    try:
        work()
    except CommonError as error:
        message = str(error)
    sentences = gather(message)
    stop_layout()
    return sentences


def failing(config: Callable[..., RunConfig], damaged: Path) -> dict[str, list[str]]:
    """Ends of runs in which one rank alone meets the cause."""

    def refuse(rank: int, error: Exception) -> Callable[[PackedMicroBatch], None]:
        def check(batch: PackedMicroBatch) -> None:
            if dist.get_rank() == rank:
                raise error

        return check

    def read(rank: int, error: Exception) -> None:
        session = start_session(config())
        try:
            session.feed.read(session.micro_batches, 1, refuse(session.agreement.readers[rank], error))
        finally:
            session.feed.close()

    missing = [{"name": "absent", "path": "absent", "modality": "text"}]
    return {
        "sentence": ending(lambda: read(-1, InputError("the last replica's sample is bad"))),
        "mistake": ending(lambda: read(0, ZeroDivisionError("of ours"))),
        "no folder": ending(lambda: train(config(data__datasets=missing, data__mixture={}))),
        "held out": ending(lambda: train(config(data__validation=missing))),
        "no budget": ending(lambda: train(config(data__root=str(damaged), data__max_bad_samples=0, steps=500))),
    }


def end_of_data(config: Callable[..., RunConfig], data: Path) -> dict[str, Any]:
    """A run whose datasets are passed over once, and the run continued."""
    once = [{"name": kind, "path": kind, "modality": kind, "repeats": 1} for kind in ("text", "video")]
    faulthandler.dump_traceback_later(WATCHDOG, exit=True)
    outcomes = []
    for _ in range(2):
        outcome = train(config(data__datasets=once, data__mixture={"text": 1.0, "video": 1.0}, steps=500))
        outcomes.append((outcome.step, outcome.finished, outcome.data_ended, outcome.checkpoint and outcome.checkpoint.name))
        stop_layout()
    return {"first": gather(outcomes[0]), "second": gather(outcomes[1])}


def main(data: Path, out: Path, names: list[str]) -> None:
    """Every layout; the report is the last line of rank 0."""
    torch.set_num_threads(1)
    faulthandler.dump_traceback_later(WATCHDOG, exit=True)
    start_world(resolve_device("auto"))
    opened, found = shards_opened(), {}
    for name in names:

        def config(run: str = "run", steps: int = 2, name: str = name, **changes: Any) -> RunConfig:
            return config_of(data, out / name / run, name, steps, **changes)

        faulthandler.dump_traceback_later(WATCHDOG, exit=True)
        report: dict[str, Any] = {"reading": reading(config("reading"), opened)}
        if name in FAILING:
            report["failing"] = failing(config, out / "damaged")
            if dist.get_rank() == 0:
                shutil.rmtree(out / name / "run", ignore_errors=True)
            dist.barrier()
        found[name] = report | {"ended": end_of_data(config, data)}
    if dist.get_rank() == 0:
        print("REPORT " + json.dumps(found), flush=True)
    dist.barrier()
    stop_world()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
