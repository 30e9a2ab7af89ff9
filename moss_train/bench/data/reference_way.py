"""The reference's way from a file to pixels, written from its description: OpenCV, PIL and numpy.

What a sample costs there: the container opened by PyAV for its length and once per thread by OpenCV, a seek per thread, every
frame up to the last wanted one decoded, the wanted ones converted to BGR and again to RGB, PIL's bilinear resize with antialias,
padding, and scaling and normalisation in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_pipeline.media.resize import fitted_size

Pixels = np.ndarray[Any, Any]

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)


def read_frames(path: Path, indices: Sequence[int], threads: int) -> list[Pixels]:
    """RGB uint8 [height, width, 3] of each index: contiguous chunks, one thread and one open file for each."""
    chunks = [list(part) for part in np.array_split(np.asarray(indices), threads) if len(part)]
    if len(chunks) == 1:
        return _chunk(path, chunks[0])
    with ThreadPoolExecutor(len(chunks)) as pool:
        return [frame for part in pool.map(lambda chunk: _chunk(path, chunk), chunks) for frame in part]


def _chunk(path: Path, indices: Sequence[int]) -> list[Pixels]:
    import cv2

    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    capture.set(cv2.CAP_PROP_POS_FRAMES, indices[0])
    number = indices[0] - 1
    found: list[Pixels] = []
    for index in indices:
        while number < index:
            if not capture.grab():
                capture.release()
                return found
            number += 1
        there, pixels = capture.retrieve()
        if not there:
            break
        found.append(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
    capture.release()
    return found


def fit(frame: Pixels, size: int) -> Pixels:
    """uint8 [size, size, 3]: PIL's bilinear resize, zeros at the bottom and right."""
    from PIL import Image

    width, height = fitted_size(frame.shape[1], frame.shape[0], size)
    small = np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))
    return np.pad(small, ((0, size - height), (0, size - width), (0, 0)))


def normalised(frames: Sequence[Pixels]) -> torch.Tensor:
    """float32 [F, 1, 3, size, size], as the image processor hands it to the model."""
    scaled = [(frame.transpose(2, 0, 1) * np.float32(1 / 255) - MEAN[:, None, None]) / STD[:, None, None] for frame in frames]
    return torch.from_numpy(np.stack(scaled)[:, None])


def load(path: Path, indices: Sequence[int], size: int, threads: int = 1) -> torch.Tensor:
    """What one video costs, from the opened file to normalised pixels: float32 [F, 1, 3, size, size]."""
    import av

    with av.open(str(path)) as container:  # the length, which the indices come from
        _ = container.streams.video[0].frames
    return normalised([fit(frame, size) for frame in read_frames(path, indices, threads)])


def pixels_of(normal: torch.Tensor) -> torch.Tensor:
    """uint8 [F, 3, size, size] of what `load` gave, to compare it."""
    mean, std = torch.from_numpy(MEAN)[:, None, None], torch.from_numpy(STD)[:, None, None]
    return ((normal[:, 0] * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
