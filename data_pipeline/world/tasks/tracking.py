"""Tracking: after every frame of a video, where the object is and which way it goes."""

from __future__ import annotations

from data_pipeline.schema import Media, Message, Sample
from data_pipeline.world.palette import cell_words
from data_pipeline.world.scene import Clip


def frame_markers(clip: Clip) -> Media:
    """The clip's file with one marker for each of its frames, a second apart."""
    times = [float(i) for i in range(clip.num_frames)]
    return Media(type="video", file="0.mp4", markers="per_frame", frame_times=times, fps=1.0)


def tracking_lines(clip: Clip, direction: str) -> list[str]:
    """One line per frame; the direction can be known from the second frame on."""
    thing = clip.things[0]
    cells = [cell_words(int(x), int(y), clip.size) for x, y in zip(thing.x, thing.y, strict=True)]
    return [f"{thing.name(0)} {cells[0]}."] + [f"{cell}, going {direction}." for cell in cells[1:]]


def tracking_sample(clip: Clip, direction: str) -> Sample:
    """A video with a marker for every frame, narrated densely: what makes directions learnable later."""
    lines = tracking_lines(clip, direction)
    return Sample(
        kind="video",
        messages=[
            Message(role="user", content=""),
            Message(role="assistant", content="".join(f"<|video|>{line}" for line in lines)),
        ],
        media=[frame_markers(clip)],
        template="mllama_pretrain",
        meta={"lines": lines},
    )
