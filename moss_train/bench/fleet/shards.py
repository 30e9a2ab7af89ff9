"""Shards whose packs are full: each sample is half a pack, a clip and as much text as the rest of its rows takes."""

from __future__ import annotations

import random
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from data_pipeline.schema import Media, Message, Sample
from data_pipeline.text.tokenizer import Tokenizer
from model.errors import InputError

A_PACK = 2
"""Samples."""
_MARGIN = 16
"""Rows for the template's marks."""
_WORDS = ("what", "moves", "?", "the", "ball", "number", "a", "red", "flag", "and", "blue", "fence", "on", "left")
_SAMPLES_A_SHARD = 4
TOKENIZER = "tokenizer.json"


def make_shards(
    folder: Path, clips: list[bytes], tokenizer: Tokenizer, *, rows: int, frames: int, samples: int, seed: int = 0
) -> None:
    """Write `video` and the tokenizer.

    Args:
        folder: is made.
        clips: mp4 files, taken in turn, each at least `frames` / 2 seconds long at one frame a second.
        tokenizer: counts the text's rows.
        rows: of a pack.
        frames: of a pack.
        samples: different ones.
        seed: of the texts.

    Raises:
        InputError: no clip, or packs too small for their frames.
    """
    from data_pipeline.shards import write_samples

    text_rows = rows // A_PACK - frames // A_PACK - _MARGIN
    if text_rows < 1 or frames < A_PACK:
        raise InputError(f"packs of --rows {rows} have no room for --frames {frames} in {A_PACK} samples; give more rows")
    draw = random.Random(seed)

    def made() -> Iterator[tuple[str, Sample, dict[str, bytes]]]:
        for number in range(samples):
            answer = Message(role="assistant", content=_text(draw, tokenizer, text_rows))
            messages = [Message(role="user", content="<|video|>"), answer]
            media = [Media(type="video", file="0.mp4", fps=1.0, min_frames=1, max_frames=frames // A_PACK)]
            yield f"s{number}", Sample(kind="video", messages=messages, media=media), {"0.mp4": clips[number % len(clips)]}

    folder.mkdir(parents=True, exist_ok=True)
    write_samples(folder / "video", made(), samples_per_shard=_SAMPLES_A_SHARD)
    tokenizer.save(folder / TOKENIZER)


def _text(draw: random.Random, tokenizer: Tokenizer, rows: int) -> str:
    """Random words of at most so many tokens, and hardly fewer."""
    words = draw.choices(_WORDS, k=rows)
    while len(tokenizer.encode(" ".join(words))) > rows:
        over = len(tokenizer.encode(" ".join(words))) - rows
        words = words[: -max(1, over // 2)]
    return " ".join(words)


def clips_of(folder: Path) -> list[bytes]:
    """The mp4 files of the shards in DIR/video, as `moss bench train --make-data DIR` writes them.

    Raises:
        InputError: there are none.
    """
    found = []
    for path in sorted((folder / "video").glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member) if member.name.endswith(".mp4") else None
                if file is not None:
                    found.append(file.read())
    if not found:
        raise InputError(f"--data {folder} has no shards with mp4 files in its folder video; make them with --make-data")
    return found


def make_clips_here(folder: Path, image_size: int, seconds: float, count: int, say: Callable[[str], None]) -> list[bytes]:
    """Render clips of a model's picture size, 16 : 9, in as many processes as there are cores."""
    from moss_train.bench.data.clips import ClipSettings, make_clips

    width, height = 2 * (image_size * 8 // 9), 2 * (image_size // 2)
    settings = ClipSettings(count=count, seconds=seconds, width=width, height=height, megabits=0.6)
    return [path.read_bytes() for path in make_clips(folder, settings, say).originals]
