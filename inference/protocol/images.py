"""Pictures of a client to frames of the model."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from data_pipeline.media.resize import fit_frames
from model.errors import InputError


def frame_of(picture: Any, size: int) -> torch.Tensor:
    """One frame of a picture.

    Args:
        picture: a PIL image of any mode, or an array or tensor uint8 [height, width, 3] in RGB.
        size: side of the model's square in pixels.

    Returns:
        uint8 [3, size, size].

    Raises:
        InputError: it is something else.
    """
    from PIL import Image

    if isinstance(picture, Image.Image):
        pixels = np.asarray(picture.convert("RGB"))
    else:
        pixels = np.asarray(picture)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
            shape = f"{pixels.dtype} {list(pixels.shape)}" if pixels.ndim else type(picture).__name__
            raise InputError(f"a picture is {shape}; put PIL images, or uint8 arrays [height, width, 3], into the queue")
    return fit_frames(torch.from_numpy(pixels.copy())[None], size)[0]
