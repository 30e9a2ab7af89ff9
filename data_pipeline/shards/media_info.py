"""What the loader must know of a media file before it decodes it."""

from __future__ import annotations

from pathlib import Path

from data_pipeline.media.decode import probe_video
from data_pipeline.media.image import image_size
from data_pipeline.media.sampling import VideoInfo
from data_pipeline.schema import Media
from model.errors import InputError


def fill_info(media: Media, content: bytes | Path, name: str) -> None:
    """Set width, height and, for a video, rate, duration and num_frames from the file, where they are not set.

    Raises:
        InputError: the file cannot be opened.
    """
    if media.type == "image":
        if media.width is None:
            media.width, media.height = image_size(content, name)
        return
    if None not in (media.width, media.height, media.rate, media.duration, media.num_frames):
        return
    info = probe_video(content, name)
    media.width, media.height = info.width, info.height
    media.rate, media.duration, media.num_frames = info.fps, info.duration, info.num_frames


def video_info(media: Media, name: str) -> VideoInfo:
    """The stored description of a video.

    Raises:
        InputError: it was never filled in.
    """
    if media.rate is None or media.duration is None or media.num_frames is None:
        raise InputError(f"{name} lacks rate, duration and num_frames; write the shard with `moss data prepare`")
    return VideoInfo(
        width=media.width or 0,
        height=media.height or 0,
        fps=media.rate,
        duration=media.duration,
        num_frames=int(media.num_frames),
    )
