"""A corpus at another rate of speech: the same dialogues laid out anew, without asking anybody anything."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from data_pipeline.generator.build.config import BuildConfig
from data_pipeline.generator.build.folder import PART, BuildFolder, settings_of, write_json
from data_pipeline.generator.build.part import PartWriter
from data_pipeline.generator.build.rows import Row, RowWriter
from data_pipeline.generator.build.run import Measured, finish
from data_pipeline.generator.build.sources import Clip
from data_pipeline.generator.build.tokens import open_tokenizer, token_counter
from data_pipeline.generator.plan import Rejection
from data_pipeline.generator.templates import TemplateAuthor
from data_pipeline.realtime.emission import RateConfig
from data_pipeline.realtime.layout import lay_out
from data_pipeline.realtime.values import read_dialogues
from data_pipeline.timeline.values import read_timelines
from data_pipeline.world.seeds import SPLITS
from model.errors import InputError

Progress = Callable[[str, int, int], None]


def reslice(
    config: BuildConfig,
    old: Path,
    out_dir: Path,
    tokens_per_second: float,
    *,
    workers: int = 1,
    overwrite: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Write the corpus `out_dir`: the rows of `old` at another rate. Rows that are not sound at it are rejected.

    Args:
        config: settings of `old`.
        old: a folder of `moss data generate`; its videos are used where they are.

    Returns:
        What is also stored as build.json.

    Raises:
        InputError: `old` has not come to its end, or as `run.build`.
    """
    source = BuildFolder(old)
    if not (old / "build.json").is_file():
        raise InputError(f"--from {old} is no finished corpus (it has no build.json); finish it with `moss data generate`")
    if old.resolve() == out_dir.resolve():
        raise InputError(f"--from and OUT are both {old}; choose another folder for OUT")
    config = dataclasses.replace(config, emission=RateConfig(mode="list", rates=(tokens_per_second,)))
    folder = BuildFolder(out_dir)
    folder.open(settings_of(config, {"resliced_from": str(old.resolve())}), overwrite=overwrite)
    tokenizer = open_tokenizer(config)
    writer = RowWriter(config, TemplateAuthor(), token_counter(tokenizer), tokenizer)  # nobody is asked: the rows are written
    try:
        measured, begin = Measured(), time.monotonic()
        parts = [(split, part) for split in SPLITS for part in source.parts(split)]
        for number, (split, part) in enumerate(parts):
            progress("parts", number, len(parts))
            if not folder.is_done(split, int(part.name)):
                measured.rows += _part(writer, folder.part(split, int(part.name)), split, part, tokens_per_second)
        progress("parts", len(parts), len(parts))
        measured.seconds = time.monotonic() - begin
        return finish(config, folder, workers, measured, progress)
    finally:
        folder.close()


def _part(writer: RowWriter, target: Path, split: str, old: Path, rate: float) -> int:
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        part = PartWriter(temporary, writer, split)
        for identity, clip, outcome in _outcomes(writer, old, rate):
            part.add(identity, clip, outcome)
        summary = part.close()
        write_json(temporary / PART, summary)
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return int(summary["rows"])


def _outcomes(writer: RowWriter, old: Path, rate: float) -> Iterator[tuple[str, Clip, Row | Rejection]]:
    dialogues, timelines = read_dialogues(old / "rows.jsonl"), read_timelines(old / "timelines.jsonl")
    for dialogue, timeline in zip(dialogues, timelines, strict=True):
        video = timeline.video or str((old / "media" / f"{dialogue.id}.mp4").resolve())
        whole = dialogue.frame_times[0] == 0
        clip = Clip(timeline=dataclasses.replace(timeline, video=video), frame_times=dialogue.frame_times, whole=whole)
        laid_out = lay_out(dialogue, writer.count_tokens, rate)
        rejection = writer.check(laid_out)
        yield dialogue.id, clip, rejection or Row(dialogue=laid_out, timeline=clip.timeline)
