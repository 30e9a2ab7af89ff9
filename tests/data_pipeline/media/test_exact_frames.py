"""Leaving packets out changes no frame: compared with a decoder that is given every packet."""

from __future__ import annotations

import io
from itertools import pairwise

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.media.backend import Decoding
from data_pipeline.media.decode import open_video
from data_pipeline.media.packet_index import PacketIndex, index_packets
from tests.data_pipeline.media.clips import all_frames, moving_clip

X264 = {"preset": "medium", "crf": "20"}
KINDS: dict[str, dict[str, object]] = {
    "h264 with B-frames": {**X264},
    "h264 with a pyramid in one long group": {**X264, "gop": 250, "x264-params": "bframes=5:b-pyramid=normal:b-adapt=0"},
    "h264 without B-frames": {**X264, "bf": "0"},
    "h264 with open groups": {**X264, "x264-params": "open-gop=1:bframes=3:b-adapt=0"},
    "h264 with periodic refresh": {**X264, "x264-params": "intra-refresh=1"},
    "h264 in Matroska": {**X264, "container": "matroska"},
    "h264 that begins late": {**X264, "first_stamp": 40},
    "h264 in a transport stream": {**X264, "container": "mpegts"},
    "interlaced h264": {**X264, "x264-params": "interlaced=1"},
    "h265": {"codec": "libx265", "preset": "medium", "x265-params": "log-level=none:pools=none"},
    "h265 with temporal layers": {
        "codec": "libx265", "preset": "fast", "x265-params": "temporal-layers=3:b-adapt=0:bframes=3:log-level=none:pools=none",
    },
    "vp9": {"codec": "libvpx-vp9", "container": "webm", "deadline": "realtime", "cpu-used": "8"},
    "mpeg4": {"codec": "mpeg4", "bf": "2"},
}  # fmt: skip
COUNT = 40
CHOICES = [[0], [39], list(range(COUNT)), [0, 11, 12, 13, 36], [5, 30], [1, 14, 27], [23, 24, 25], list(range(0, COUNT, 7))]


def _index(content: bytes) -> PacketIndex | None:
    with av.open(io.BytesIO(content)) as container:
        return index_packets(container, container.streams.video[0])


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_those_of_a_decoder_that_gets_every_packet(kind: str) -> None:
    content = moving_clip(COUNT, **KINDS[kind])  # type: ignore[arg-type]
    plain = all_frames(content)
    for choice in CHOICES:
        with open_video(content) as video:
            found = list(video.frames(choice))
        assert len(found) == len(choice)
        for number, frame in zip(choice, found, strict=True):
            assert np.array_equal(frame, plain[number]), (kind, choice, number)


@pytest.mark.parametrize(("kind", "least"), [("h264 with B-frames", 0.4), ("h265", 0.4), ("vp9", 0.3)])
def test_packets_that_no_wanted_frame_needs_are_left_out(kind: str, least: float) -> None:
    index = _index(moving_clip(COUNT, **KINDS[kind]))  # type: ignore[arg-type]
    assert index is not None
    assert 1 - index.needed(index.shown()[[0, 30]]).mean() >= least


@pytest.mark.parametrize("kind", ["h264 in a transport stream", "mpeg4"])
def test_where_packets_do_not_tell_enough_there_is_no_index(kind: str) -> None:
    assert _index(moving_clip(COUNT, **KINDS[kind])) is None  # type: ignore[arg-type]


def test_a_group_that_holds_no_wanted_frame_is_left_out_whole() -> None:
    index = _index(moving_clip(COUNT, **X264))
    assert index is not None
    groups = np.flatnonzero(index.restart)
    needed = index.needed(index.shown()[[0, 38]])
    assert len(groups) >= 3 and not needed[groups[1] : groups[-1]].any()


def test_a_skipped_frame_becomes_its_nearest_neighbour_that_others_use() -> None:
    content = moving_clip(COUNT, **KINDS["h264 with a pyramid in one long group"])  # type: ignore[arg-type]
    plain, index = all_frames(content), _index(content)
    assert index is not None
    unused = index.unused[index.shown()]
    with open_video(content, decoding=Decoding("pyav", skip_non_reference=True)) as video:
        found = list(video.frames(range(COUNT)))
    assert unused.sum() > 10
    for number, frame in enumerate(found):
        nearest = min(np.flatnonzero(~unused), key=lambda other: (abs(other - number), other))
        assert np.array_equal(frame, plain[nearest])


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_needed_is_closed_under_what_a_picture_may_look_at(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 40))
    flags = st.lists(st.booleans(), min_size=count, max_size=count)
    restart = np.array([True, *data.draw(flags)[1:]])
    unused = np.array(data.draw(flags)) & ~restart
    stamps = np.array(data.draw(st.permutations(range(count))))
    index = PacketIndex(stamps, restart, unused)
    wanted = np.array(sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1))))
    needed = index.needed(wanted)
    assert needed[wanted].all()
    bounds = [*np.flatnonzero(restart), count]
    for begin, end in pairwise(bounds):
        mine = wanted[(wanted >= begin) & (wanted < end)]
        last = mine.max() if len(mine) else begin - 1
        for packet in range(begin, end):
            looked_at = packet < last and not unused[packet]
            assert needed[packet] == (packet in mine or looked_at)


@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_neighbours_are_used_never_decrease_and_are_nearest(unused: list[bool]) -> None:
    count = len(unused)
    index = PacketIndex(np.arange(count), np.arange(count) == 0, np.array(unused))
    found = index.used_neighbours(range(count))
    used = [i for i in range(count) if not unused[i]] or list(range(count))
    assert found == sorted(found)
    assert all(abs(f - i) == min(abs(u - i) for u in used) and f in used for i, f in enumerate(found))


def test_damage_in_packets_that_no_wanted_frame_needs_does_no_harm() -> None:
    content = bytearray(moving_clip(COUNT, **KINDS["h264 with a pyramid in one long group"]))  # type: ignore[arg-type]
    plain, index = all_frames(bytes(content)), _index(bytes(content))
    assert index is not None
    needed = index.needed(index.shown()[[4, 30]])
    with av.open(io.BytesIO(content)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    for place, size in (p for p, mine in zip(places, needed, strict=True) if not mine):
        content[place + 6 : place + size] = bytes(size - 6)  # length and header of the first unit stay
    with open_video(bytes(content)) as video:
        found = list(video.frames([4, 30]))
    assert np.array_equal(found[0], plain[4]) and np.array_equal(found[1], plain[30])
    assert (~needed).sum() > 10
    with pytest.raises(av.error.InvalidDataError):
        all_frames(bytes(content))


def test_nothing_behind_the_last_wanted_frame_is_decoded() -> None:
    content = bytearray(moving_clip(COUNT, preset="medium", bf="0", gop=250))
    plain = all_frames(bytes(content))
    with av.open(io.BytesIO(content)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    for place, size in places[6:]:
        content[place + 6 : place + size] = bytes(size - 6)
    with open_video(bytes(content)) as video:
        found = list(video.frames(range(6)))
    assert all(np.array_equal(frame, plain[number]) for number, frame in enumerate(found)) and len(found) == 6
