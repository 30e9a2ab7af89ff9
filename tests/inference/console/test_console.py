"""The person at the terminal: keys to lines, lines to wishes, a real pseudo-terminal, and the view."""

from __future__ import annotations

import io
import os
import pty
import termios
import threading
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from inference.console.half_blocks import half_blocks
from inference.console.intents import HELP, Intent, Operator, Order, Say, interpret
from inference.console.keyboard import KeyInput, LineInput, is_terminal
from inference.console.line_editor import LineEditor
from inference.console.live_view import MOST_SHOWN, LiveView
from inference.evaluation.schema import TraceEvent
from inference.session.clock import VirtualClock
from inference.session.inbox import Inbox
from inference.sinks.statistics import StreamStatistics


@pytest.mark.parametrize(
    ("line", "intent"),
    [
        ("what is it ?\n", Say("what is it ?")),
        ("  \n", None),
        ("/stop", Order("stop")),
        ("/QUIT now", Order("quit")),
        ("/exit", Order("quit")),
        ("//help me", Say("/help me")),
        ("/", Order("")),
        ("/dance", Order("dance")),
    ],
)
def test_what_a_line_means(line: str, intent: Intent | None) -> None:
    assert interpret(line) == intent


def test_wishes_reach_the_inbox() -> None:
    inbox, clock, shown = Inbox(live=True), VirtualClock(2.0), []
    operator = Operator(inbox, clock, StreamStatistics(), shown.append)
    for line in ("why ?", "/stop", "/reset", "", "/stats", "/help", "/dance"):
        operator.act(interpret(line))
    arrived = inbox.drain(2.0).spoken
    assert [(a.t, a.prompt, a.control) for a in arrived] == [(2.0, "why ?", None), (2.0, None, "stop"), (2.0, None, "reset")]
    assert "frames" in shown[0] and shown[1] == HELP and "/dance is no order" in shown[2]
    operator.act(Order("quit"))
    assert inbox.end_reason == "quit"


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=30), st.lists(st.integers(1, 4), min_size=1, max_size=8))
def test_any_text_arrives_however_its_bytes_are_cut(text: str, cuts: list[int]) -> None:
    editor, data, place, found = LineEditor(), f"x{text}\r".encode(), 0, []
    for turn in range(len(data)):
        piece = data[place : place + cuts[turn % len(cuts)]]
        place += len(piece)
        found += editor.feed(piece)
    assert found == [Say(f"x{text}".strip())] and editor.text == ""


KEYS = [
    b"a",
    b"b",
    " ö".encode(),
    b"\x7f",
    b"\x1b[D",
    b"\x1b[C",
    b"\x1b[H",
    b"\x1b[F",
    b"\x1b[3~",
    b"\x15",
    b"\x17",
    b"\x0b",
    b"\x1b[A",
]


@given(st.lists(st.sampled_from(KEYS), max_size=40))
def test_editing_keeps_the_cursor_inside_and_asks_for_nothing(keys: list[bytes]) -> None:
    editor = LineEditor()
    for key in keys:
        assert editor.feed(key) == []
        assert 0 <= editor.cursor <= len(editor.text) and not editor.undecided
    assert all(c.isprintable() for c in editor.text)


def test_keys_of_the_line() -> None:
    editor = LineEditor()
    editor.feed(b"left rigt")
    editor.feed(b"\x1b[D")
    editor.feed(b"h")
    assert editor.text == "left right" and editor.cursor == 9
    editor.feed(b"\x17")  # the word before the cursor
    assert editor.text == "left t"
    assert editor.feed(b"\x05 end\r") == [Say("left t end")]
    editor.feed(b"\x1b[A")
    assert editor.text == "left t end"  # the line before, again
    assert editor.feed(b"\x15\x04") == [Order("quit")]


def test_escape_alone_stops_and_the_beginning_of_a_key_does_not() -> None:
    editor = LineEditor()
    assert editor.feed(b"hm\x1b") == [] and editor.undecided
    assert editor.feed(b"[D") == [] and not editor.undecided and editor.cursor == 1
    assert editor.feed(b"\x1b") == [] and editor.settle() == [Order("stop")] and editor.settle() == []
    assert editor.feed(b"\x1b\x1b") == [Order("stop")] and editor.settle() == [Order("stop")]
    assert editor.text == "hm"


def test_a_real_terminal_gives_keys_and_is_given_back() -> None:
    master, slave = pty.openpty()
    acted: list[Intent | None] = []
    changed = threading.Event()
    before = termios.tcgetattr(slave)
    keys = KeyInput(slave, acted.append, changed.set)
    keys.start()
    try:
        os.write(master, b"hello")
        assert changed.wait(5)
        begin = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - begin < 0.05  # it waits without polling
        assert keys.editor.text == "hello" and acted == []
        os.write(master, b"\r")
        _wait_for(lambda: acted == [Say("hello")])
        os.write(master, b"\x1b")
        _wait_for(lambda: acted == [Say("hello"), Order("stop")])
    finally:
        keys.stop()
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)


def test_lines_that_are_piped_in_are_read_to_their_end() -> None:
    acted: list[Intent | None] = []
    ended = threading.Event()
    LineInput(io.StringIO("a\n/stop\n"), acted.append, ended.set).start()
    assert ended.wait(5) and acted == [Say("a"), Order("stop")]
    closed = io.StringIO()
    closed.close()
    assert not is_terminal(closed) and not is_terminal(io.StringIO())


def test_a_frame_is_drawn_with_two_pixels_a_character() -> None:
    frame = torch.zeros(3, 8, 8, dtype=torch.uint8)
    frame[0, :4], frame[2, 4:] = 255, 255  # red above, blue below
    console = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=40)
    console.print(half_blocks(frame, columns=4))
    lines = console.file.getvalue().strip("\n").split("\n")  # type: ignore[attr-defined]
    assert len(lines) == 2 and all(line.count("▀") == 4 for line in lines)
    assert "255;0;0" in lines[0] and "0;0;255" not in lines[0] and "0;0;255" in lines[1]


def test_the_view_scrolls_what_was_said_and_shows_the_present() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, height=30, color_system="truecolor")
    view = LiveView(console, VirtualClock(4.0), StreamStatistics(), show_frames=True)
    view.editor = LineEditor()
    view.editor.feed(b"half a questi")
    view.start()
    view.tap(torch.full((3, 8, 8), 200, dtype=torch.uint8))
    silences = [TraceEvent(t=float(t), kind="silence", token=1, text="<|silence|>") for t in range(3)]
    for event in [
        *silences,
        TraceEvent(t=3.0, kind="token", token=5, text="A ball"),
        TraceEvent(t=3.2, kind="frame_in", frame=0),
    ]:
        view(event)
    view.refresh()
    assert "A ball▌" in _plain(out) and "half a questi" in _plain(out) and "200;200;200" in out.getvalue()
    console.height = 20  # no room for a picture beside the line that is typed
    begin = len(out.getvalue())
    view.refresh()
    assert "half a questi" in out.getvalue()[begin:] and "200;200;200" not in out.getvalue()[begin:]
    console.height = 30
    view(TraceEvent(t=3.4, kind="token", token=6, text="s\x1b[2J" + "long " * MOST_SHOWN))
    view(TraceEvent(t=3.5, kind="silence", token=1, text="<|silence|>"))
    view(TraceEvent(t=4.0, kind="prompt", text="why ?"))
    view.show("two\nlines")
    view(TraceEvent(t=5.0, kind="end", reason="quit"))
    view.close(whole=True)
    text = _plain(out)
    for line in ("[    3.00 s] <|silence|> x3", "[    4.00 s] user: why ?", "two\nlines", "[    5.00 s] (end: quit)"):
        assert line in text.replace("\r", "")
    assert "[    3.00 s] A balls�[2Jlong" in text and "\x1b[2J" not in out.getvalue()


def _plain(out: io.StringIO) -> str:
    import re

    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())


def _wait_for(condition: object) -> None:
    end = time.monotonic() + 5
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.01)
