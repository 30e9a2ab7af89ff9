"""What is fed, and which errors a user may be told."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.formats.importing import ImportOptions
from data_pipeline.formats.registry import import_registry
from data_pipeline.formats.report import ImportReport
from data_pipeline.formats.source import import_source, source_of
from data_pipeline.formats.subtitles import read_subtitles
from data_pipeline.loader import build_loader
from data_pipeline.loader.skip_list import SkipList
from data_pipeline.media.decode import load_frames
from data_pipeline.media.image import load_image
from data_pipeline.packing.plan import DoesNotFit, PlanRules, plan_sample
from data_pipeline.shards import write_samples
from data_pipeline.shards.annotations import parse_annotation
from data_pipeline.shards.info import read_summary
from data_pipeline.shards.schema import sample_from_dict
from model.errors import InputError
from tests.data_pipeline.helpers import (
    data_config,
    grey_levels,
    image_sample,
    make_image,
    make_video,
    model_config,
    stage_config,
    tokenizer,
    video_sample,
)
from tests.fuzz import seeds
from tests.fuzz.mutate import mutate_bytes, mutate_json

TOLD = (InputError, DoesNotFit)
"""What may be raised: sentences for users, and the note that a sample has no place in a stage."""

_RULES = PlanRules(
    template=None, sequence_length=160, max_frames=40, fps=8.0, video_min_frames=1, video_max_frames=40, jitter=0.5,
    label_eot_realtime=False,
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A reader, sound inputs for it, and how to damage them."""

    seeds: list[bytes]
    run: Callable[[bytes], Any]
    """Reads an input; raises one of TOLD, or nothing."""
    mutate: Callable[[bytes, random.Random], bytes] = mutate_bytes
    share: int = 1
    """Of all inputs; slow readers have less."""


def all_targets(folder: Path) -> dict[str, Target]:
    """Targets by name.

    Args:
        folder: where they may write.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "sample": Target(seeds.samples(), _sample(), mutate_json, 12),
        "annotation": Target(seeds.annotations(), lambda data: parse_annotation(data, "line 1", folder), mutate_json, 12),
        "rows": Target(seeds.rows(), lambda data: _rows(data, folder), mutate_json, 12),
        "registry": Target(seeds.registries(), lambda data: _registry(data, folder), mutate_json, 6),
        "subtitles": Target(seeds.subtitles(), lambda data: read_subtitles(_file(folder / "s.srt", data)), share=6),
        "ledger": Target(seeds.ledgers(), lambda data: SkipList.read(str(_file(folder / "l.jsonl", data))), mutate_json, 6),
        "summary": Target([b'{"samples": 1, "shards": {}}'], lambda data: _summary(data, folder), mutate_json, 3),
        "image": Target([make_image(), make_image(form="JPEG")], lambda data: load_image(data, 32), share=6),
        "video": Target([make_video(grey_levels(6)), make_video(grey_levels(6), container="avi")], _video, share=3),
        "shard": _shard(folder / "shard"),
        "index": _index(folder / "index"),
    }


def _file(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _sample() -> Callable[[bytes], Any]:
    words = tokenizer()

    def run(data: bytes) -> Any:
        try:
            values = json.loads(data)
        except (ValueError, RecursionError):
            return None
        return plan_sample(sample_from_dict(values), words, _RULES, random.Random(1))

    return run


def _rows(data: bytes, folder: Path) -> Any:
    path = _file(folder / "rows.json", data)
    return list(import_source(source_of(path), ImportOptions(keep_missing=True, workers=1), ImportReport()))


def _registry(data: bytes, folder: Path) -> Any:
    place = folder / "registry"
    place.mkdir(exist_ok=True)
    _file(place / "rows.json", seeds.rows()[0])
    shutil.rmtree(place / "out", ignore_errors=True)
    return import_registry(_file(place / "dataset_info.json", data), place / "out", ImportOptions(workers=1))


def _summary(data: bytes, folder: Path) -> Any:
    place = folder / "summary"
    place.mkdir(exist_ok=True)
    _file(place / "summary.json", data)
    return read_summary(place)


def _video(data: bytes) -> Any:
    return load_frames(data, [0, 2, 5], 32, times=[0.0, 0.25, 0.625])


def _dataset(folder: Path) -> Path:
    """A folder of one shard as other tools write it: without a summary that knows its digest."""
    shutil.rmtree(folder, ignore_errors=True)
    pairs = [video_sample(i) if i % 2 else image_sample(i) for i in range(6)]
    write_samples(folder / "video", pairs, samples_per_shard=6)
    (folder / "video" / "summary.json").unlink()
    return folder / "video"


def _read(root: Path) -> None:
    """Two micro-batches; what cannot be read is left out."""
    ledger = root / "quarantine.jsonl"
    ledger.unlink(missing_ok=True)
    loader = build_loader(
        data_config(root, ("video",), shuffle_buffer=0, packing_buffer=3),
        stage_config(),
        model_config(),
        tokenizer(),
        ledger=ledger,
    )
    try:
        for _ in range(2):
            next(loader)
    except StopIteration:
        return
    finally:
        loader.close()


def _shard(root: Path) -> Target:
    tar = _dataset(root) / "shard-000000.tar"

    def run(data: bytes) -> None:
        tar.write_bytes(data)
        _read(root)

    return Target([tar.read_bytes()], run)


def _index(root: Path) -> Target:
    """The first byte of an input says which file of the index the rest replaces."""
    meta = _dataset(root) / ".nv-meta"
    names = sorted(path.name for path in meta.iterdir() if path.is_file())
    sound = {name: (meta / name).read_bytes() for name in names}

    def run(data: bytes) -> None:
        name = names[(data[0] if data else 0) % len(names)]
        (meta / name).write_bytes(data[1:])
        try:
            _read(root)
        finally:
            (meta / name).write_bytes(sound[name])

    def mutate(data: bytes, rng: random.Random) -> bytes:
        return data[:1] + mutate_bytes(data[1:], rng)

    return Target([bytes([i]) + sound[name] for i, name in enumerate(names)], run, mutate)
