"""Level 1: one clip, its wanted frames, one thread; file content in memory to pixels that a loader can hand on."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from data_pipeline.media.backend import Decoding, import_problem
from data_pipeline.media.decode import load_frames
from data_pipeline.media.resize import fit_frames, fitted_size
from moss_train.bench.data import reference_way
from moss_train.bench.data.clips import Clips
from moss_train.bench.data.meter import Pass, Row, Say, in_turns, rows, timed

REFERENCE = "the reference's way"
Decode = Callable[[Path, Sequence[int], int], torch.Tensor]


def measure(clips: Clips, size: int, repeats: int, say: Say) -> tuple[list[Row], dict[str, str]]:
    """Every way over every clip.

    Returns:
        Ratios to the reference's way, and what does not run here with the reason.
    """
    ways, missing = _ways()
    indices = clips.settings.indices
    differences = _differences(ways, clips, indices, size)
    runs = {name: partial(_one_pass, way, paths, indices, size) for name, (way, paths) in _on(ways, clips).items()}
    return rows(in_turns(runs, repeats, say), REFERENCE, differences), missing


def _ways() -> tuple[dict[str, Decode], dict[str, str]]:
    missing = {}
    ways: dict[str, Decode] = {
        REFERENCE: lambda path, indices, size: reference_way.load(path, indices, size),
        f"{REFERENCE}, 4 threads": lambda path, indices, size: reference_way.load(path, indices, size, 4),
        "PyAV, every frame": lambda path, indices, size: every_frame(path.read_bytes(), indices, size),
        "Energon's AVDecoder": lambda path, indices, size: by_energon(path.read_bytes(), indices, size),
    }
    for backend in ("torchcodec", "opencv"):
        problem = import_problem(backend)
        if problem is None:
            ways[f"data.decode.backend={backend}"] = partial(ours, Decoding(backend))
        else:
            missing[f"data.decode.backend={backend}"] = problem
    ways["ours"] = partial(ours, Decoding("pyav"))
    ways["ours, skip_non_reference"] = partial(ours, Decoding("pyav", skip_non_reference=True))
    return ways, missing


def _on(ways: dict[str, Decode], clips: Clips) -> dict[str, tuple[Decode, list[Path]]]:
    chosen = {name: (way, clips.originals) for name, way in ways.items()}
    chosen["ours on transcoded clips"] = (ways["ours"], clips.transcoded)
    return chosen


def _one_pass(way: Decode, paths: Sequence[Path], indices: Sequence[int], size: int) -> Pass:
    def steps(done: Callable[[int, int], None]) -> None:
        for path in paths:
            done(1, len(way(path, indices, size)))

    return timed(steps)


def _differences(ways: dict[str, Decode], clips: Clips, indices: Sequence[int], size: int) -> dict[str, str]:
    expected = reference_way.pixels_of(ways[REFERENCE](clips.originals[0], indices, size)).int()
    found = {}
    for name, (way, paths) in _on(ways, clips).items():
        mine = way(paths[0], indices, size)
        gap = ((reference_way.pixels_of(mine) if mine.is_floating_point() else mine).int() - expected).abs()
        found[name] = f"max {int(gap.max())}, mean {float(gap.float().mean()):.3f}"
    return found


def ours(decoding: Decoding, path: Path, indices: Sequence[int], size: int) -> torch.Tensor:
    """The loader's way: uint8 [F, 3, size, size]."""
    return load_frames(path.read_bytes(), indices, size, decoding=decoding)


def every_frame(content: bytes, indices: Sequence[int], size: int) -> torch.Tensor:
    """All frames in order through PyAV's decoder, the wanted ones fitted: uint8 [F, 3, size, size]."""
    import av

    wanted, found = set(indices), []
    with av.open(io.BytesIO(content), "r") as container:
        container.streams.video[0].thread_type = "NONE"
        container.streams.video[0].codec_context.thread_count = 1
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                found.append(fit_frames(torch.from_numpy(frame.to_ndarray(format="rgb24"))[None], size))
            if number == indices[-1]:
                break
    return torch.cat(found)


def by_energon(content: bytes, indices: Sequence[int], size: int) -> torch.Tensor:
    """As `take_clips`, of a file's content."""
    from megatron.energon.av import AVDecoder

    return take_clips(AVDecoder(io.BytesIO(content), suppress_warnings=True), indices, size)


def take_clips(decoder: Any, indices: Sequence[int], size: int) -> torch.Tensor:
    """Energon's decoder, one clip of one frame for each index, resized by it: uint8 [F, 3, size, size], padded."""
    about = decoder.get_metadata(get_audio=False)
    width, height = fitted_size(about.video_width, about.video_height, size)
    clips, _ = decoder.get_video_clips([(i, i) for i in indices], "frames", (width, height))
    frames = torch.zeros(len(clips), 3, size, size, dtype=torch.uint8)
    for place, clip in enumerate(clips):
        frames[place, :, :height, :width] = clip[0]
    return frames
