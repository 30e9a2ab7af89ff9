"""Shards of made-up clips, and a tokenizer, on which the real data path can be measured without any other files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from model.config import VideoMllamaConfig
from model.errors import InputError
from moss_train.bench.subject import overrides_of
from moss_train.config.compose import compose

CLIPS, SECONDS, MEGABITS = 8, 48.0, 0.6
"""Different clips, how long each is (as many frames as a sample takes at one a second), and a second's size."""


def make_data(folder: Path, model: str, say: Callable[[str], None], *, clips: int = CLIPS, seconds: float = SECONDS) -> None:
    """Write `video` and `tokenizer.json` into a folder for `--data`.

    Args:
        folder: is made; must not hold shards.
        model: of conf/model: the tokenizer's entries and the clips' sides are its.
        clips: different ones.
        seconds: of each.

    Raises:
        InputError: the folder holds shards.
    """
    from data_pipeline.shards import write_samples
    from moss_train.bench.data.clips import ClipSettings, copies, make_clips
    from moss_train.bench.data.setups import tokenizer_of

    if (folder / "video").exists():
        raise InputError(f"--make-data {folder} holds shards already; use it with --data, or give another folder")
    config = VideoMllamaConfig.from_dict(compose(overrides_of("pt2", model=model)).model)
    size = config.vision.image_size
    width, height = 2 * (size * 8 // 9), 2 * (size // 2)  # 16 : 9, both even
    settings = ClipSettings(count=clips, seconds=seconds, width=width, height=height, megabits=MEGABITS)
    folder.mkdir(parents=True, exist_ok=True)
    made = make_clips(folder / "clips", settings, say)
    write_samples(folder / "video", copies(made.originals, settings, clips), samples_per_shard=1)
    tokenizer_of(config).save(folder / "tokenizer.json")
    say(f"shards and tokenizer are in {folder}; its folder clips is not needed any more")
