"""Cuts of a video: where one picture gives way to another that has little to do with it."""

from __future__ import annotations

from pathlib import Path

LOOKS_PER_SECOND = 8.0
"""Frames a second that are compared; a cut is known as finely as that."""
_SIDE = 32
_STANDS_OUT = 3.0
"""How many times larger a cut's difference is than those beside it; a fast movement has large ones in a row."""


def find_cuts(path: Path, threshold: float) -> list[float]:
    """Seconds at which a new scene's first compared frame is shown, rising.

    Two frames, made grey and small (32 x 32), differ by the mean of their absolute differences, from 0 to 1. A cut is a
    difference of `threshold` or more that stands out from the one before and the one behind it.
    """
    import numpy as np
    from PIL import Image

    from data_pipeline.media.decode import open_video
    from data_pipeline.media.sampling import indices_at

    with open_video(path) as video:
        info = video.info
        times = [i / LOOKS_PER_SECOND for i in range(int(info.num_frames / info.fps * LOOKS_PER_SECOND + 1e-6))]
        differences, before = [], None
        for pixels in video.frames(indices_at(info, times, f"video {path}"), times):
            small = Image.fromarray(pixels).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
            now = np.asarray(small, dtype=np.float64) / 255
            if before is not None:
                differences.append(float(np.abs(now - before).mean()))
            before = now
    return [times[i + 1] for i in range(len(differences)) if _is_cut(differences, i, threshold)]


def _is_cut(differences: list[float], i: int, threshold: float) -> bool:
    beside = max(differences[max(0, i - 1) : i] + differences[i + 1 : i + 2], default=0.0)
    return differences[i] >= threshold and differences[i] >= _STANDS_OUT * beside
