"""Decoding real files made here with libx264."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_pipeline.media.decode import frames_at, frames_at_times, load_frames, open_video, probe_video, sample_video
from model.errors import InputError
from tests.data_pipeline.helpers import grey_levels, make_video


def levels_of(frames: np.ndarray) -> list[int]:  # type: ignore[type-arg]
    """Grey of the lower right quarter of the picture, which is 64x48 in the upper part of the square."""
    return [int(f[0, 30:46, 40:60].mean().round()) for f in frames]


def near(found: list[int], expected: list[int]) -> bool:
    return len(found) == len(expected) and all(abs(a - b) <= 3 for a, b in zip(found, expected, strict=True))


def test_the_wanted_frames_come_in_order() -> None:
    levels = grey_levels(12)
    frames = load_frames(make_video(levels), [0, 3, 3, 11], 64)
    assert frames.shape == (4, 3, 64, 64) and frames.dtype.is_floating_point is False
    assert near(levels_of(frames.float().numpy()), [levels[0], levels[3], levels[3], levels[11]])
    assert frames[:, :, 48:].sum() == 0


def test_probing_tells_size_rate_and_length() -> None:
    info = probe_video(make_video(grey_levels(12), rate=24))
    assert (info.width, info.height, info.num_frames) == (64, 48, 12)
    assert info.fps == pytest.approx(24.0) and info.duration == pytest.approx(0.5)


def test_sampling_by_rate_gives_frames_and_their_times() -> None:
    frames, times = sample_video(make_video(grey_levels(16)), 64, fps=2.0, min_frames=1, max_frames=64)
    assert times == [0.0, 0.5, 1.0, 1.5]
    assert near(levels_of(frames.float().numpy()), [20, 60, 100, 140])


def test_large_frames_are_fitted_one_by_one_with_the_same_result() -> None:
    content = make_video(grey_levels(3), width=640, height=480)
    frames = load_frames(content, [0, 2], 64)
    assert near(levels_of(frames.float().numpy()), [20, 40])


def test_a_file_with_a_varying_rate_is_read_by_time() -> None:
    # eight frames within the first second, then one frame each half second
    times = [i / 8 for i in range(8)] + [1.0 + i / 2 for i in range(8)]
    content = make_video(grey_levels(16), times=times)
    frames = frames_at(content, [0.0, 0.5, 1.0, 2.6], 64)
    assert near(levels_of(frames.float().numpy()), [20, 60, 100, 130])


def test_frames_in_their_own_size() -> None:
    frames = frames_at_times(make_video(grey_levels(8), width=80, height=40), [0.0, 0.5])
    assert [f.shape for f in frames] == [(40, 80, 3)] * 2
    assert abs(int(frames[1][30, 60, 0]) - 60) <= 3


def test_a_rotated_file_stands_upright() -> None:
    upright = load_frames(make_video([80]), [0], 64)[0]
    turned = load_frames(make_video([80], rotation=90), [0], 64)[0]
    # the bright quarter moves from the top left to the bottom left of the now tall picture
    assert upright[0, 10, 10] > 120 and upright[0, 40, 10] < 100
    assert turned[0, 50, 10] > 120 and turned[0, 10, 10] < 100
    assert turned[:, :, 48:].sum() == 0


def test_ten_bit_video_is_decoded() -> None:
    frames = load_frames(make_video(grey_levels(3), pix_fmt="yuv420p10le"), [0, 2], 64)
    assert near(levels_of(frames.float().numpy()), [20, 40])


def test_a_stream_that_lacks_its_last_frame_repeats_the_one_before() -> None:
    frames = load_frames(make_video(grey_levels(12)), [10, 11, 12], 64)
    assert near(levels_of(frames.float().numpy()), [120, 130, 130])


def test_a_stream_that_ends_much_too_early_is_refused() -> None:
    with pytest.raises(InputError, match="clip ends after 12 frames; 4 of 5"):
        load_frames(make_video(grey_levels(12)), [11, 12, 13, 14, 15], 64, "clip")


@pytest.mark.parametrize("content", [b"", b"no video at all", make_video(grey_levels(4))[:900]])
def test_damaged_files_are_named(content: bytes) -> None:
    with pytest.raises(InputError, match=r"video broken\.mp4"):
        load_frames(content, [0], 64, "broken.mp4")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.mp4 does not exist"), open_video(tmp_path / "gone.mp4"):
        pass
