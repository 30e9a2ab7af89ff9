"""Pictures, frames and videos as harnesses hand them over."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data_pipeline.media.decode import frames_at, sample_video
from data_pipeline.media.image import load_image
from inference.evaluation.harness.media import Clip, Sampling, clip_of
from model.errors import InputError
from tests.inference.clips import write_clip

HOW = Sampling(size=28, fps=1.0, min_frames=2, max_frames=4)


def picture(level: int = 90) -> Image.Image:
    pixels = np.full((20, 30, 3), level, dtype=np.uint8)
    pixels[:5] = 200
    return Image.fromarray(pixels)


def read(visual: Any, how: Sampling = HOW) -> torch.Tensor:
    return clip_of(visual).read(how)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight seconds at two frames a second."""
    return write_clip(tmp_path_factory.mktemp("media") / "a.mp4", list(range(10, 250, 15)), fps=2)


def test_a_video_is_sampled_as_offline_inference_does(video: Path) -> None:
    expected, _ = sample_video(str(video), 28, fps=1.0, min_frames=2, max_frames=4)
    assert len(expected) == 4
    for visual in (str(video), video, f"file://{video}", {"type": "video", "url": str(video)}, {"video": str(video)}):
        assert torch.equal(read(visual), expected)


def test_more_frames_than_the_video_has_a_second_are_not_asked_for(video: Path) -> None:
    """At fps 30 a video of two frames a second gives its 16 frames, not an error."""
    assert len(read(str(video), Sampling(28, 30.0, 1, 64))) == 16


@pytest.mark.parametrize(
    ("start", "end", "fps", "most", "times"),
    [
        (2.0, 5.0, 1.0, 8, [2.0, 3.0, 4.0, 5.0]),  # one a second, both ends
        (2.0, 5.0, 1.0, 2, [2.0, 5.0]),  # no more than two: evenly, first and last
        (6.0, None, 1.0, 8, [6.0, 7.0]),  # to the last frame, at 7.5 s
        (None, 1.0, 1.0, 8, [0.0, 1.0]),
        (7.0, 99.0, 2.0, 8, [7.0, 7.5]),  # what lies behind the end is not there
        (3.0, 3.5, 1.0, 8, [3.0, 3.5]),  # one a second were one frame: two at least
    ],
)
def test_parts_of_a_video(video: Path, start: float | None, end: float | None, fps: float, most: int, times: list[float]) -> None:
    part = {"type": "video", "url": str(video), "start_time": start, "end_time": end}
    assert torch.equal(read(part, Sampling(28, fps, 2, most)), frames_at(str(video), times, 28))


def test_parts_of_one_video_have_other_keys(video: Path) -> None:
    whole, part = (
        clip_of(str(video)),
        clip_of({"type": "video", "url": {"path": str(video), "video_start": 1.0, "video_end": 2.0}}),
    )
    assert whole.key == clip_of({"url": str(video)}).key
    assert part.key == clip_of({"type": "video", "url": str(video), "start_time": 1.0, "end_time": 2.0}).key != whole.key


def test_pictures_in_every_form(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    picture().save(path)
    expected = load_image(str(path), 28)[None]
    buffer = io.BytesIO()
    picture().save(buffer, "png")
    array = np.asarray(picture())
    forms: list[Any] = [str(path), picture(), array, torch.from_numpy(array.copy()), picture().convert("RGBA")]
    forms += [{"type": "image", "url": picture()}, {"bytes": buffer.getvalue(), "path": "a.png"}, {"image": str(path)}]
    for form in forms:
        assert torch.equal(read(form), expected)


def test_keys_of_pictures_are_their_pixels() -> None:
    assert clip_of(picture()).key == clip_of(np.asarray(picture())).key != clip_of(picture(91)).key


def test_of_many_frames_evenly_spaced_ones_are_shown() -> None:
    """Seven frames, four of them: 0, 2, 4, 6."""
    frames = [np.full((28, 28, 3), level, dtype=np.uint8) for level in range(0, 70, 10)]
    for visual in (frames, np.stack(frames), torch.from_numpy(np.stack(frames))):
        assert read(visual)[:, 0, 0, 0].tolist() == [0, 20, 40, 60]


@pytest.mark.parametrize(
    ("visual", "words"),
    [
        ("https://example.org/a.mp4", "only files of this machine"),
        ("nowhere.mp4", "no such file"),
        ({"type": "audio", "url": "a.wav"}, "cannot hear"),
        ({"array": [0.0], "sampling_rate": 16000}, "cannot hear"),
        ({"colour": "red"}, "has the fields colour"),
        ({"bytes": b"x", "path": "a.mp4"}, "video comes as bytes"),
        ([], "empty list"),
        (3, "a visual is int"),
        (np.zeros((2, 2, 3), dtype=np.float32), "float32"),
        ({"bytes": b"x", "path": "a.png"}, "cannot be decoded"),
    ],
)
def test_what_is_refused(visual: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        clip_of(visual).read(HOW)


def test_a_part_that_ends_before_it_begins(video: Path) -> None:
    with pytest.raises(InputError, match="its end must be behind its start"):
        read({"type": "video", "url": str(video), "start_time": 3.0, "end_time": 3.0})


def test_nothing_is_read_before_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    clip = clip_of(str(tmp_path / "broken.mp4"))
    assert isinstance(clip, Clip)
    with pytest.raises(InputError, match=r"broken\.mp4"):
        clip.read(HOW)
