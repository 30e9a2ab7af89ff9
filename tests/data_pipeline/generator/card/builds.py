"""A small build folder made of hand-made dialogues."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from data_pipeline.generator.card.tally import Tally
from data_pipeline.realtime.dialogue import Dialogue, UserTurn, Utterance
from data_pipeline.realtime.layout import lay_out
from data_pipeline.realtime.values import write_dialogues
from data_pipeline.timeline.values import write_timelines
from tests.data_pipeline.generator.samples import FRAMES, world
from tests.data_pipeline.helpers import grey_levels, make_video


def count_words(text: str) -> int:
    """A tokenizer of words."""
    return len(text.split())


def dialogue(name: str = "row", **more: Any) -> Dialogue:
    """Narration of two events, a question, and a correction that comes too late to be finished."""
    values: dict[str, Any] = {
        "id": name,
        "frame_times": FRAMES,
        "fps": 1.0,
        "users": (UserTurn(t=0.5, text="Tell me what happens.", behaviour="narrate"), UserTurn(t=7.5, text="What do you see?")),
        "utterances": (
            Utterance(t=3.0, text="red ball appears.", evidence=(3.0, 3.0), answers=0),
            Utterance(t=6.0, text="blue flag appears beside it, quite far from the red ball.", evidence=(6.0, 6.0), answers=0),
            Utterance(t=8.0, text="red ball and blue flag.", evidence=(6.0, 8.0), answers=1, kind="answer"),
            Utterance(t=10.0, text="green ball and blue flag.", evidence=(9.0, 9.0), answers=1, corrects=2, kind="correction"),
        ),
        "behaviours": ("narrate", "correction"),
        "source": "world",
        "license": "CC0",
        "timeline": "world-1",
        "split_key": name,
        "generator": {"version": "7"},
    }
    return Dialogue(**{**values, **more})


def laid_out(name: str = "row", rate: float = 3.0, **more: Any) -> Dialogue:
    return lay_out(dialogue(name, **more), count_words, rate)


def tally_of(*rows: Dialogue) -> Tally:
    tally = Tally()
    for row in rows:
        tally.add(row, count_words)
    return tally


def write_part(folder: Path, rows: list[Dialogue], tally: Tally, media: bool = True) -> Path:
    """A part as the build writes it."""
    folder.mkdir(parents=True)
    write_dialogues(folder / "rows.jsonl", rows)
    write_timelines(folder / "timelines.jsonl", [dataclasses.replace(world(), id="world-1")])
    if media:
        (folder / "media").mkdir()
        video = make_video(grey_levels(16), rate=1)
        for row in rows:
            (folder / "media" / f"{row.id}.mp4").write_bytes(video)
    (folder / "part.json").write_text(json.dumps({"tally": tally.to_dict()}))
    return folder


def write_build(folder: Path) -> Path:
    """Two parts of train, one of test, with rejections and a summary."""
    for part in range(2):
        rows = [laid_out(f"train-{part}-{i}") for i in range(3)]
        rows.append(laid_out(f"quiet-{part}", behaviours=("silence_only",), users=(), utterances=()))
        tally = tally_of(*rows)
        tally.reject("plan", "the video lends itself to none of the behaviours in en: 'count'", "story 17", "count")
        tally.reject("validators", "utterance 3 begins at 4 s, before its evidence at 6 s", f"train-{part}-9")
        tally.reject("duplicate", "the row is a near-duplicate of 'train-0-1'", f"train-{part}-8")
        write_part(folder / "parts" / "train" / f"{part:06}", rows, tally)
    rows = [laid_out("test-0", rate=40.0, language="zh", license="CC BY 4.0")]
    tally = tally_of(*rows)
    tally.reject("decontamination", "video 'x.mp4' is on the blocklist", "test-1")
    write_part(folder / "parts" / "test" / "000000", rows, tally)
    cost = {"calls": 12, "roles": {"plan": {"calls": 12, "input_tokens": 3400, "output_tokens": 560, "dollars": 0.0123}}}
    summary = {
        "version": "1",
        "settings": {"source": {"name": "sample"}, "fps": 1.0},
        "rows": {"train": 7, "test": 1},
        "dropped": {"nearly the same as another row": {"count": 1, "examples": ["train row 3"]}},
        "source": {"videos": {"train": 8, "test": 1}, "left_out": {"in a decontamination list by name": 3}},
        "seconds": {"rows": 4.0, "finish": 0.2},
        "rows_per_second": 2.14,
        "workers": 2,
        "cost": cost,
    }
    (folder / "build.json").write_text(json.dumps(summary))
    return folder
