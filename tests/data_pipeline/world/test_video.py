"""Encoded files show what was rendered."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from data_pipeline.media.decode import probe_video
from data_pipeline.world import scene
from data_pipeline.world.palette import COLOUR_RGB
from data_pipeline.world.render import masks, render
from data_pipeline.world.video import encode_jpeg, encode_mp4


def _decode(content: bytes) -> np.ndarray:
    import av

    with av.open(io.BytesIO(content)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_mp4_is_true_h264_with_one_frame_a_second() -> None:
    clip = scene.eventful(11)
    content = encode_mp4(render(clip))
    info = probe_video(content, "clip")
    assert (info.width, info.height, info.num_frames, info.fps) == (64, 64, 16, 1.0)
    assert abs(info.duration - 16.0) < 1e-3
    assert len(content) < 60_000


def test_decoded_frames_stay_near_the_rendered_ones() -> None:
    for seed in range(6):
        frames = render(scene.eventful(seed))
        error = np.abs(_decode(encode_mp4(frames)).astype(int) - frames)
        assert error.mean() < 4
        assert np.quantile(error, 0.99) < 60


def test_colours_survive() -> None:
    """The mean of an object's pixels is nearest to its own colour's direction among all six."""
    for seed in range(24):
        clip = scene.still(seed, two=0.0)
        frame = _decode(encode_mp4(render(clip)))[0].astype(float)
        mean = frame[masks(clip)[0][0]].mean(0)
        directions = COLOUR_RGB / np.linalg.norm(COLOUR_RGB, axis=1, keepdims=True)
        assert int(np.argmax(directions @ mean / np.linalg.norm(mean))) == int(clip.things[0].colour[0])


def test_textures_survive() -> None:
    """Stripes vary across their own axis and hardly along it; checkers along both; a ball along neither."""
    for seed in range(24):
        clip = scene.still(seed, two=0.0)
        thing = clip.things[0]
        grey = _decode(encode_mp4(render(clip)))[0].astype(float).mean(-1)
        reach = thing.radius // 2
        y, x = int(thing.y[0]), int(thing.x[0])
        inner = grey[y - reach : y + reach + 1, x - reach : x + reach + 1]
        down, across = np.abs(np.diff(inner, axis=0)).mean(), np.abs(np.diff(inner, axis=1)).mean()
        level = inner.mean()
        strong = (bool(down > 0.1 * level), bool(across > 0.1 * level))
        assert strong == {0: (False, False), 1: (True, False), 2: (True, True), 3: (False, True)}[thing.kind]


def test_equal_frames_equal_bytes() -> None:
    frames = render(scene.eventful(5))
    assert encode_mp4(frames) == encode_mp4(frames.copy())


def test_jpeg_stays_near_the_frame() -> None:
    frame = render(scene.still(3))[0]
    with Image.open(io.BytesIO(encode_jpeg(frame))) as picture:
        assert picture.size == (64, 64)
        assert np.abs(np.asarray(picture).astype(int) - frame).mean() < 4
