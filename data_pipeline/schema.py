"""The typed sample: what one entry of a shard holds, whoever wrote it.

A shard is a WebDataset tar. Sample `k` is `k.json` (the fields of `Sample`) and its media files `k.<media.file>`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

KINDS = ("text", "image", "video", "realtime", "dense")


@dataclass(kw_only=True)
class Message:
    """One turn. `content` holds one `<|image|>` per image and `<|video|>` markers as `Media.markers` says."""

    role: str
    """system | user | assistant"""
    content: str


@dataclass(kw_only=True)
class Media:
    """One media file, in the order in which its first marker appears in the text."""

    type: str
    """image | video"""
    file: str
    """Ending of the member name inside the shard: `0.mp4` for the member `KEY.0.mp4`."""
    markers: str = "one"
    """one: a single marker stands for all sampled frames. per_frame: one marker for each entry of `frame_times`.
    per_event: marker i stands for all frames up to `frame_times[i]` (streaming event captions)."""
    frame_times: list[float] | None = None
    """Seconds from the start of the video; only for per_frame and per_event."""
    fps: float | None = None
    """Frames a second at which to sample; None takes the stage's frame policy. The world's clips set their own."""
    min_frames: int | None = None
    max_frames: int | None = None
    width: int | None = None
    """Pixels. This and the next four describe the file; `data_pipeline.shards.write_samples` fills them in."""
    height: int | None = None
    rate: float | None = None
    """The video's own frames a second."""
    duration: float | None = None
    """Seconds."""
    num_frames: int | None = None
    source: str = ""
    """Where this file comes from, where the files of a sample come from different places."""
    license: str = ""


@dataclass(kw_only=True)
class Sample:
    """One training sample."""

    kind: str
    """text | image | video | realtime | dense"""
    messages: list[Message]
    media: list[Media] = field(default_factory=list)
    template: str = "mllama"
    """mllama (chat) | mllama_pretrain (bos, text, end_of_text)"""
    dataset: str = ""
    source: str = ""
    """Where the media come from, for credits and decontamination."""
    license: str = ""
    dense: list[list[list[int]]] | None = None
    """[frames][grid][grid] patch classes; only for kind dense."""
    meta: dict[str, Any] = field(default_factory=dict)
    """Anything a consumer may want to keep (world events with times, questions with answers); never read by the loader."""
