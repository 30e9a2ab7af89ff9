"""Streams from real servers on this machine: pace, the end of a file, lost connections, cameras by FFmpeg's test device."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.session.clock import WallClock
from inference.sources.camera import CameraSource
from inference.sources.container import CATCH_UP, MediaClock
from inference.sources.network import NetworkSource
from inference.sources.source import FrameSource
from model.errors import InputError
from tests.inference.sources import servers

LEVELS = [20, 50, 80, 110, 140, 170, 200, 230]


def _draw(source: FrameSource, most: int = 100) -> Iterator[tuple[float, int]]:
    """(time, grey level) of the frames, which are closed after `most`."""
    for timed in itertools.islice(source.frames(WallClock()), most):
        yield timed.t, int(timed.frame.float().mean())
    source.close()


def _near(found: list[int], expected: list[int]) -> bool:
    return len(found) == len(expected) and all(abs(a - b) <= 8 for a, b in zip(found, expected, strict=True))


def test_a_file_over_http_comes_whole_and_not_faster_than_it_plays() -> None:
    content = servers.encode(LEVELS, fps=10, form="mp4")
    with servers.http(lambda handler, _: servers.send_file(handler, content)) as address:
        source = NetworkSource(f"{address}/clip.mp4", 5.0, 32)
        assert source.duration == pytest.approx(0.8, abs=0.01)
        shown = list(_draw(source))
    assert _near([level for _, level in shown], LEVELS[::2]) and source.reconnects == 0
    times = [t for t, _ in shown]
    assert all(t >= i / 5 - 0.06 for i, t in enumerate(times))


@pytest.mark.parametrize("form", ["matroska", "mpegts"])
def test_a_file_whose_connection_breaks_goes_on_where_it_stopped(form: str) -> None:
    levels = [60 + i for i in range(60)]
    content = servers.encode(levels, fps=60, form=form, size=128, noise=20)

    def answer(handler: BaseHTTPRequestHandler, number: int) -> None:
        servers.send_file(handler, content, cut=len(content) // 2 if number == 0 else None)

    with servers.http(answer) as address:
        source = NetworkSource(f"{address}/clip", 10.0, 64, first_wait=0.05)
        assert source.duration == pytest.approx(1.0, abs=0.1)
        shown = [level for _, level in _draw(source)]
    assert shown == sorted(shown) and len(shown) == len(set(shown)) and shown[-1] > 105 and source.reconnects >= 1


def test_a_live_stream_is_taken_up_again_after_it_was_lost() -> None:
    content = servers.encode(LEVELS * 3, fps=20, form="mpegts")
    with servers.http(lambda handler, _: servers.send_live(handler, content, seconds=1.2)) as address:
        source = NetworkSource(f"{address}/live.ts", 10.0, 32, first_wait=0.05)
        assert source.duration is None
        shown = list(_draw(source, most=8))
    assert source.reconnects >= 1
    times = [t for t, _ in shown]
    assert all(b - a > 0.05 for a, b in itertools.pairwise(times)) and len(times) == 8


def test_rtsp_frames_come_as_they_are_sent() -> None:
    with servers.rtsp(LEVELS * 4, fps=20) as address:
        source = NetworkSource(address, 10.0, 32, first_wait=0.05)
        shown = list(_draw(source, most=6))
    assert len(shown) == 6 and {level for _, level in shown} <= {n + d for n in LEVELS for d in range(-8, 9)}


def test_a_server_that_never_comes_back_is_given_up_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference.sources.network._LONGEST_WAIT", 0.05)
    content = servers.encode(LEVELS, fps=20, form="mpegts")
    with servers.http(lambda handler, _: servers.send_live(handler, content, seconds=0.2)) as address:
        source = NetworkSource(f"{address}/live.ts", 10.0, 32, first_wait=0.01)
        frames = source.frames(WallClock())
        next(frames)
    with pytest.raises(InputError, match=r"live\.ts was lost and did not come back in 6 tries \(.*refused\)"):
        list(frames)


@pytest.mark.parametrize("what", ["missing", "text", "nobody"])
def test_addresses_without_a_video_are_one_sentence(what: str) -> None:
    def answer(handler: BaseHTTPRequestHandler, _: int) -> None:
        if what == "missing":
            handler.send_error(404)
        else:
            servers.send_file(handler, b"this is no video " * 100)

    with servers.http(answer) as address:
        url = address if what != "nobody" else f"http://127.0.0.1:{servers.free_port()}"
        with pytest.raises(InputError, match=r"stream http://127.0.0.1:[0-9]+/x cannot be opened"):
            NetworkSource(f"{url}/x", 1.0, 32)


def test_closing_ends_a_wait_for_the_next_connection() -> None:
    content = servers.encode(LEVELS, fps=20, form="mpegts")
    with servers.http(lambda handler, _: servers.send_live(handler, content, seconds=0.1)) as address:
        source = NetworkSource(f"{address}/live.ts", 10.0, 32, first_wait=60.0)
        ended = threading.Event()
        threading.Thread(target=lambda: (list(source.frames(WallClock())), ended.set()), daemon=True).start()
        time.sleep(0.4)
        assert not ended.is_set()
        source.close()
        assert ended.wait(2)


def test_a_camera_shows_its_newest_frames() -> None:
    try:
        camera = CameraSource("testsrc=size=64x48:rate=50", 10.0, 32, container_format="lavfi")
    except InputError as error:
        pytest.skip(f"this FFmpeg has no test device: {error}")
    shown = [timed.frame for timed in itertools.islice(camera.frames(WallClock()), 2)]
    camera.close()
    assert [tuple(frame.shape) for frame in shown] == [(3, 32, 32)] * 2 and int(shown[0].float().std()) > 20


@given(
    rate=st.sampled_from([5.0, 25.0]),
    burst=st.integers(0, 40),
    faster=st.floats(-0.008, 0.008),
    stall=st.floats(0, 30),
    jump=st.sampled_from([-1000.0, 0.0, 1000.0]),
)
def test_frames_of_a_live_stream_never_wait_for_long(rate: float, burst: int, faster: float, stall: float, jump: float) -> None:
    """A sender that had kept frames, whose clock is not ours, that stalls and whose times jump: no frame waits."""
    times, now, media, waits = MediaClock(0.0, endless=True), 0.1, 7.0, []
    for number in range(3000):
        media += 1 / rate + (jump if number == 2000 else 0.0)
        now += (0.001 if number < burst else (1 - faster) / rate) + (stall if number == 1000 else 0.0)
        waits.append(times.due(media, now) - now)
    assert max(waits) < 0.05 and waits[-1] <= 0.01


@given(rate=st.sampled_from([5.0, 25.0]), speed=st.floats(1.5, 50), endless=st.booleans())
def test_what_is_sent_faster_than_it_plays_is_held_back(rate: float, speed: float, endless: bool) -> None:
    times, now, shown = MediaClock(0.0, endless=endless), 0.0, []
    for number in range(1000):
        now = max(now + 1 / rate / speed, times.due(number / rate, now + 1 / rate / speed))
        shown.append(now)
    seconds = shown[-1] - shown[0]
    allowed = 0.0 if not endless else CATCH_UP * speed + 0.02 * seconds
    assert seconds >= 999 / rate - allowed - 1e-6
