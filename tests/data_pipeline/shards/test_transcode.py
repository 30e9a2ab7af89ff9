"""Transcoding keeps the frames and their times, whatever a camera writes."""

from __future__ import annotations

import contextlib
import io
import itertools
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest

from data_pipeline.media.decode import open_video, probe_video
from data_pipeline.shards.transcode import TranscodeSettings, encoder_versions, fitted_size, transcode
from model.errors import InputError
from tests.data_pipeline.helpers import grey_levels, make_video
from tests.data_pipeline.media.phone_clips import clip, number_of

PHONE_TIMES = [0, 0.1, 0.15, 0.5, 0.9, 1.0, 2.0, 2.1, 2.2, 4.0]
FINE = TranscodeSettings(force=True, crf=8, gop_seconds=1.0)


def decoded(content: bytes) -> tuple[list[float], list[np.ndarray[Any, Any]], list[bool]]:
    """Seconds from the first frame, upright RGB, and whether it is a keyframe, of every frame."""
    with av.open(io.BytesIO(content)) as container:
        frames = list(container.decode(video=0))
    times = [float((f.pts - frames[0].pts) * f.time_base) for f in frames]
    pixels = [np.rot90(f.to_ndarray(format="rgb24"), round(f.rotation / 90) % 4) for f in frames]
    return times, pixels, [bool(f.key_frame) for f in frames]


def make_avi(levels: list[int]) -> bytes:
    """An AVI without B-frames, whose index is cut off: its packets have no presentation times of their own."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="avi") as out:
        stream = out.add_stream("libx264", rate=8, options={"bf": "0", "crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in levels:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, dtype=np.uint8), format="rgb24")))
        out.mux(stream.encode(None))
    content = buffer.getvalue()
    return content[: content.rindex(b"idx1")]


CLIPS = {
    "constant rate": lambda: make_video(grey_levels(20)),
    "ntsc rate": lambda: make_video(grey_levels(20, step=5), rate=Fraction(30000, 1001)),
    "varying rate": lambda: make_video(grey_levels(10), times=PHONE_TIMES),
    "matroska": lambda: make_video(grey_levels(12), container="matroska"),
    "transport stream": lambda: make_video(grey_levels(12), container="mpegts"),
    "avi without index": lambda: make_avi(grey_levels(12)),
    "odd size": lambda: make_video(grey_levels(8), width=63, height=47, pix_fmt="yuv444p"),
    "ten bit": lambda: make_video(grey_levels(8), pix_fmt="yuv420p10le"),
    "full range": lambda: make_video(grey_levels(8), pix_fmt="yuvj420p"),
    "rotated by 90": lambda: make_video(grey_levels(8), rotation=90),
    "rotated by 180": lambda: make_video(grey_levels(8), rotation=180),
    "rotated by 270, ten bit": lambda: make_video(grey_levels(8), rotation=270, pix_fmt="yuv420p10le"),
}


@pytest.mark.parametrize("name", CLIPS)
def test_frames_and_times_stay(name: str) -> None:
    source = CLIPS[name]()
    stored = transcode(source, FINE)
    times, pixels, _ = decoded(source)
    new_times, new_pixels, _ = decoded(stored)
    assert new_times == pytest.approx(times, abs=1e-9)
    height, width = (side - side % 2 for side in pixels[0].shape[:2])
    for before, after in zip(pixels, new_pixels, strict=True):
        assert after.shape == (height, width, 3)
        # a corner inside each quarter: tells every turn from every other; ten bit and 4:4:4 lose up to three levels
        for row, column in itertools.product((4, -5), repeat=2):
            assert np.abs(before[row, column].astype(int) - after[row, column]).max() <= 3
    info = probe_video(stored)
    assert info.num_frames == len(times) and (info.width, info.height) == (width, height)


@pytest.mark.parametrize("name", ["constant rate", "ntsc rate", "varying rate"])
def test_rate_and_duration_stay(name: str) -> None:
    source = CLIPS[name]()
    before, after = probe_video(source), probe_video(transcode(source, FINE))
    assert after.fps == pytest.approx(before.fps, rel=1e-6) and after.duration == pytest.approx(before.duration, rel=1e-6)


def test_a_keyframe_every_so_many_seconds() -> None:
    times, _, keys = decoded(transcode(CLIPS["varying rate"](), FINE))
    at = [t for t, key in zip(times, keys, strict=True) if key]
    assert at[0] == 0 and all(second - first <= 2.0 for first, second in itertools.pairwise(at)) and 1.0 in at
    times, _, keys = decoded(transcode(make_video([40] * 33), FINE))
    assert [t for t, key in zip(times, keys, strict=True) if key] == [0, 1, 2, 3, 4]


def test_the_short_side_shrinks_and_never_grows() -> None:
    source = make_video(grey_levels(4), width=160, height=96)
    small = probe_video(transcode(source, TranscodeSettings(short_side=48)))
    assert (small.width, small.height) == (80, 48)
    assert (probe_video(transcode(source, FINE)).width, probe_video(transcode(source, FINE)).height) == (160, 96)
    assert fitted_size(1920, 1080, 560) == (996, 560) and fitted_size(1080, 1920, 560) == (560, 996)
    assert fitted_size(641, 361, 560) == (640, 360) and fitted_size(4000, 3, 560) == (4000, 2)


def test_same_clip_same_bytes_and_no_sound() -> None:
    source = make_video(grey_levels(16))
    with_sound = io.BytesIO()
    with av.open(io.BytesIO(source)) as clip, av.open(with_sound, "w", format="mp4") as out:
        video = out.add_stream_from_template(clip.streams.video[0])
        sound = out.add_stream("aac", rate=16000)
        for packet in clip.demux(video=0):
            if packet.size:
                packet.stream = video
                out.mux(packet)
        quiet = av.AudioFrame.from_ndarray(np.zeros((1, 16000), dtype=np.float32), format="fltp", layout="mono")
        quiet.sample_rate = 16000
        out.mux(sound.encode(quiet))
        out.mux(sound.encode(None))
    stored = transcode(with_sound.getvalue(), FINE)
    assert stored == transcode(with_sound.getvalue(), FINE)
    with av.open(io.BytesIO(stored)) as container:
        assert [s.type for s in container.streams] == ["video"] and "creation_time" not in container.metadata


def test_same_bytes_whatever_ran_before() -> None:
    """x264's fast estimates once gave other bytes in one encoding of thirty, where threads of other clips had used the memory."""
    source = make_video([20 + 7 * i for i in range(16)])
    found = set()
    for index in range(40):
        decoded(make_video(grey_levels(4 + index % 12)))
        found.add(transcode(source, FINE))
    assert len(found) == 1


def test_a_clip_within_the_settings_is_kept_as_it_is() -> None:
    source = make_video([40] * 33)  # 4.1 s with a single keyframe
    assert transcode(source, TranscodeSettings(gop_seconds=5)) == source
    again = transcode(source, TranscodeSettings(gop_seconds=2))
    assert again != source and transcode(again, TranscodeSettings(gop_seconds=2)) == again
    assert transcode(again, TranscodeSettings(short_side=32, gop_seconds=2)) != again
    assert transcode(source, TranscodeSettings(gop_seconds=5, force=True)) != source


def test_damage_is_named() -> None:
    source = make_video(grey_levels(60, step=2), container="mpegts")
    with pytest.raises(InputError, match="video broken cannot be decoded"):
        transcode(b"junk", FINE, "broken")
    whole = make_video([i * 3 for i in range(60)], width=320, height=240)
    moved = whole[whole.index(b"moov") - 4 :]
    cut = whole[: whole.index(b"mdat") + 400] + b"\0" * (len(whole) - whole.index(b"mdat") - 400 - len(moved)) + moved
    with pytest.raises(InputError, match="video cut"):
        transcode(cut, FINE, "cut")
    with pytest.raises(InputError, match=r"video /none\.mp4 cannot be read"):
        transcode("/none.mp4", FINE)
    assert len(decoded(transcode(source, FINE))[0]) == 60


def test_damaged_frames_are_not_stored_as_sound_ones() -> None:
    whole = make_video([i * 3 for i in range(60)], width=320, height=240)
    first, last = whole.index(b"mdat") + 1000, whole.rindex(b"moov") - 200
    refused = 0
    for step in range(12):
        damaged = bytearray(whole)
        damaged[first + step * (last - first) // 12] ^= 0x10
        with contextlib.suppress(InputError), open_video(bytes(damaged), "damaged") as video:
            list(video.frames(range(60)))
            continue  # the flip struck a byte that no frame needs
        refused += 1
        with pytest.raises(InputError, match="video damaged"):
            transcode(bytes(damaged), FINE, "damaged")
    assert refused >= 3


def test_the_film_is_transcoded_and_not_its_cover() -> None:
    source = clip(24, container="matroska", cover=True)
    stored = transcode(source, FINE)
    assert probe_video(stored).num_frames == 24
    with open_video(stored) as video:
        assert [number_of(frame) for frame in video.frames(range(24))] == list(range(24))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"short_side": 8}, "short side is 8"),
        ({"gop_seconds": 0.0}, "between keyframes is 0"),
        ({"crf": 99}, "crf is 99"),
        ({"preset": "best"}, "preset is 'best'"),
        ({"tune": "film"}, "tune is 'film'"),
        ({"codec": "av1"}, "codec is 'av1'"),
    ],
)
def test_settings_out_of_range_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TranscodeSettings(**values)


def test_the_encoder_is_named() -> None:
    assert set(encoder_versions()) == {"av", "libavcodec", "libavformat", "libswscale", "x264"}
    assert encoder_versions()["x264"].isdigit()
