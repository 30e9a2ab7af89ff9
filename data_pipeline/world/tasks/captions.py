"""Captions: independent frames, each followed by a sentence about it."""

from __future__ import annotations

from data_pipeline.schema import Media, Message, Sample
from data_pipeline.world.palette import cell_words
from data_pipeline.world.scene import Clip


def caption(clip: Clip, frame: int = 0) -> str:
    """`red flag top left and blue ball bottom right.`"""
    seen = clip.seen(frame)
    if not seen:
        return "nothing."
    parts = [f"{t.name(frame)} {cell_words(int(t.x[frame]), int(t.y[frame]), clip.size)}" for t in seen]
    return " and ".join(parts) + "."


def caption_sample(clips: list[Clip]) -> Sample:
    """One sequence of pictures and sentences: a sentence is learned right behind its picture."""
    text = "".join(f"<|image|>{caption(clip)}" for clip in clips)
    return Sample(
        kind="image",
        messages=[Message(role="user", content=""), Message(role="assistant", content=text)],
        media=[Media(type="image", file=f"{i}.jpg") for i in range(len(clips))],
        template="mllama_pretrain",
        meta={"captions": [caption(clip) for clip in clips]},
    )
