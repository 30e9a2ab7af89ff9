"""Media that is all there, for questions about it."""

from __future__ import annotations

import torch

from data_pipeline.media.decode import sample_video
from data_pipeline.media.image import load_image
from model.errors import InputError


def read_media(video: str | None, image: str | None, size: int, *, fps: float, min_frames: int, max_frames: int) -> torch.Tensor:
    """The frames of a video by the sampling rule, or the one of an image.

    Returns:
        uint8 [F, 3, size, size].

    Raises:
        InputError: both or neither are given, or the file cannot be read.
    """
    if (video is None) == (image is None):
        raise InputError("give exactly one of --video_path and --image_path")
    for name, value, least in (("minlen", min_frames, 0), ("maxlen", max_frames, 1)):
        if value < least:
            raise InputError(f"--video_{name} is {value}; it must be at least {least}")
    if image is not None:
        return load_image(image, size)[None]
    assert video is not None
    frames, _ = sample_video(video, size, fps=fps, min_frames=min_frames, max_frames=max_frames)
    return frames
