"""Sources of files: order, times, errors; and the pump that lets nothing through before its time."""

from __future__ import annotations

import itertools
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_pipeline.world.render import render
from data_pipeline.world.scene import eventful
from inference.session.clock import VirtualClock, WallClock
from inference.sources import SourcePump, TimedFrame, open_source, schedule
from inference.sources.container import Slots
from inference.sources.folder import FolderSource, natural_key
from inference.sources.media import read_media
from inference.sources.network import NetworkSource
from inference.sources.source import slot_times
from model.errors import InputError
from tests.inference.clips import write_clip


class Received:
    """An inbox that notes what came, when."""

    def __init__(self, clock: WallClock) -> None:
        self.clock = clock
        self.frames: list[tuple[float, float, int]] = []

    def push_frame(self, frame: torch.Tensor, t: float) -> None:
        self.frames.append((t, self.clock.now(), int(frame[0, 0, 0])))


def _picture(path: Path, level: int) -> None:
    Image.fromarray(np.full((8, 8, 3), level, dtype=np.uint8)).save(path)


def test_a_video_file_shows_its_frames_at_their_times(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", [20, 60, 100, 140, 180, 220], fps=2)
    source = open_source(str(tmp_path / "a.mp4"), fps=1.0, size=28)
    assert (source.live, source.duration) == (False, 3.0)
    shown = [(a.t, int(a.frame.float().mean())) for a in schedule(source, VirtualClock()) if a.frame is not None]
    assert [t for t, _ in shown] == [0.0, 1.0, 2.0]
    assert [abs(level - want) < 6 for (_, level), want in zip(shown, (20, 100, 180), strict=True)] == [True] * 3


def test_a_folder_is_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 9, 1, 100):
        _picture(tmp_path / f"Frame{number}.png", number)
    (tmp_path / "notes.txt").write_text("no picture")
    source = open_source(str(tmp_path), fps=2.0, size=8)
    shown = [(timed.t, int(timed.frame[0, 0, 0])) for timed in source.frames(VirtualClock())]
    assert shown == [(0.0, 1), (0.5, 9), (1.0, 10), (1.5, 100)] and source.duration == 2.0


@given(st.lists(st.tuples(st.sampled_from(["", "a", "B"]), st.integers(0, 300), st.sampled_from(["", "z"])), max_size=8))
def test_natural_order_is_by_number(parts: list[tuple[str, int, str]]) -> None:
    names = [f"{prefix}{number}{suffix}.png" for prefix, number, suffix in parts]
    expected = sorted((prefix == "", prefix.casefold(), number) for prefix, number, _ in parts)
    found = sorted(names, key=natural_key)
    keyed = {name: (prefix == "", prefix.casefold(), number) for name, (prefix, number, _) in zip(names, parts, strict=True)}
    numbers = [keyed[name] for name in found]
    # names that begin with a number come first among themselves in order of the number, then those with a word
    assert [n for n in numbers if n[0]] == [n for n in expected if n[0]]
    assert [n for n in numbers if not n[0]] == [n for n in expected if not n[0]]


def test_a_followed_folder_takes_pictures_as_they_become_whole(tmp_path: Path) -> None:
    _picture(tmp_path / "1.png", 1)
    source = FolderSource(tmp_path, 20.0, 8, follow=True)
    clock = WallClock()
    received = Received(clock)
    pump = SourcePump(source, received, clock, fps=20.0)
    pump.start()
    (tmp_path / "aside").mkdir()
    _picture(tmp_path / "aside/whole.png", 3)
    content = (tmp_path / "aside/whole.png").read_bytes()
    (tmp_path / "aside/whole.png").rename(tmp_path / "3.png")
    with (tmp_path / "2.png").open("wb") as growing:
        growing.write(content[:40])
        growing.flush()
        time.sleep(0.15)
        growing.write(content[40:])
    _wait_for(lambda: len(received.frames) == 3)
    pump.stop()
    assert sorted(level for _, _, level in received.frames) == [1, 3, 3] and not source.unreadable
    times = [t for t, _, _ in received.frames]
    assert all(b - a >= 1 / 20 - 1e-9 for a, b in itertools.pairwise(times))
    assert pump.error is None and threading.active_count() < 20


def test_a_picture_that_is_renamed_before_it_is_whole_is_not_waited_for(tmp_path: Path) -> None:
    _picture(tmp_path / "2.png", 5)
    (tmp_path / "1.png").write_bytes((tmp_path / "2.png").read_bytes()[:40])
    source = FolderSource(tmp_path, 20.0, 8, follow=True)
    leave = threading.Timer(0.15, (tmp_path / "1.png").rename, [tmp_path / "1.part"])
    leave.start()
    frame = next(source.frames(WallClock()))
    source.close()
    leave.join()
    assert int(frame.frame.float().mean().round()) == 5 and not source.unreadable


def test_the_world_is_a_function_of_its_seed_and_brings_its_prompt() -> None:
    source = open_source("world:7", fps=1.0, size=64)
    pictures = torch.stack([timed.frame for timed in source.frames(VirtualClock())])
    assert torch.equal(pictures, torch.from_numpy(render(eventful(7))).permute(0, 3, 1, 2))
    ((t, text),) = source.prompts
    assert 0 <= t < 16 and text and source.duration == 16.0


class _Slow:
    """A recorded source that takes its time over each frame."""

    name, live, prompts, duration = "slow", False, (), None

    def __init__(self, fps: float, count: int, seconds: float) -> None:
        self.fps, self.count, self.seconds = fps, count, seconds
        self.closed = 0

    def frames(self, clock: object) -> object:
        for t in slot_times(self.count, self.fps):
            time.sleep(self.seconds)
            yield TimedFrame(t, torch.zeros(3, 1, 1, dtype=torch.uint8))

    def close(self) -> None:
        self.closed += 1


def test_the_pace_does_not_drift_and_nothing_comes_early() -> None:
    clock = WallClock()
    received = Received(clock)
    slow = _Slow(fps=20.0, count=10, seconds=0.02)  # sleeping behind each frame would make it 70 ms a frame
    ended = threading.Event()
    pump = SourcePump(slow, received, clock, fps=20.0, on_end=ended.set)  # type: ignore[arg-type]
    pump.start()
    assert ended.wait(5)
    lateness = [at - t for t, at, _ in received.frames]
    assert len(lateness) == 10 and min(lateness) >= 0 and slow.closed >= 1
    assert received.frames[-1][1] < 10 * 0.07 - 0.05  # less than decoding and waiting one after the other would take


def test_frames_that_come_late_are_counted_and_all_the_same_put_in() -> None:
    clock = WallClock()
    received = Received(clock)
    pump = SourcePump(_Slow(fps=100.0, count=5, seconds=0.03), received, clock, fps=100.0)  # type: ignore[arg-type]
    pump.start()
    _wait_for(lambda: len(received.frames) == 5)
    pump.stop()
    assert pump.late == 5


def test_what_breaks_a_source_reaches_the_one_who_asks(tmp_path: Path) -> None:
    _picture(tmp_path / "1.png", 1)
    (tmp_path / "2.png").write_bytes(b"\x89PNG but not really")
    clock = WallClock()
    received = Received(clock)
    ended = threading.Event()
    pump = SourcePump(open_source(str(tmp_path), fps=50.0, size=8), received, clock, fps=50.0, on_end=ended.set)
    pump.start()
    assert ended.wait(5) and len(received.frames) == 1
    with pytest.raises(InputError, match=r"2\.png cannot be decoded"):
        pump.raise_error()


@settings(max_examples=60)
@given(
    fps=st.sampled_from([0.5, 1.0, 2.0, 4.0]),
    rate=st.sampled_from([1.0, 5.0, 24.0, 30.0]),
    tremble=st.lists(st.floats(-0.2, 0.2), min_size=60, max_size=60),
)
def test_slots_keep_the_rate_whatever_the_arrival_times_tremble(fps: float, rate: float, tremble: list[float]) -> None:
    slots = Slots(fps)
    arrivals = sorted(max(0.0, i / rate + shift / rate) for i, shift in enumerate(tremble))
    taken = [t for t in arrivals if slots.takes(t)]
    seconds = arrivals[-1]
    assert len(taken) <= seconds * fps + 2
    if rate >= 2 * fps:
        assert len(taken) >= int(seconds * fps) - 1
    assert all(b - a >= 0.5 / fps - 1e-9 for a, b in itertools.pairwise(taken))


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("nothing.mp4", {}, "nothing.mp4 does not exist; name a video file, a folder"),
        ("cam:87", {}, r"camera 87 \(/dev/video87\) cannot be opened: No such file or directory; cameras here: "),
        ("world:seven", {}, "world:seven needs a seed"),
        ("gopher://x", {}, "gopher://x has an unknown scheme"),
        ("http://user:secret@127.0.0.1:9/x", {}, r"stream http://user:\*\*\*@127.0.0.1:9/x cannot be opened"),
        ("world:1", {"fps": 0.0}, "--fps is 0"),
        ("world:1", {"follow": True}, "--follow works on a folder; --source world:1 is none"),
        ("EMPTY", {}, "EMPTY holds no picture"),
    ],
)
def test_bad_names_are_one_sentence(
    name: str, more: dict[str, object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    with pytest.raises(InputError, match=message) as caught:
        open_source(name, **{"fps": 1.0, "size": 8, **more})  # type: ignore[arg-type]
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_live_source_is_refused_on_a_virtual_clock(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is live; it needs real time"):
        schedule(FolderSource(tmp_path, 1.0, 8, follow=True), VirtualClock())
    assert NetworkSource.live


def test_media_is_one_video_or_one_image(tmp_path: Path) -> None:
    _picture(tmp_path / "a.png", 50)
    frames = read_media(None, str(tmp_path / "a.png"), 8, fps=1.0, min_frames=1, max_frames=4)
    assert frames.shape == (1, 3, 8, 8) and int(frames.max()) == 50
    with pytest.raises(InputError, match="exactly one"):
        read_media(None, None, 8, fps=1.0, min_frames=1, max_frames=4)


def _wait_for(condition: object, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)
