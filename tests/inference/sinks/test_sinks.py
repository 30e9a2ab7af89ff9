"""Sinks: subtitles read back, traces while they grow, counts, and what a terminal is spared."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import resource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.evaluation.schema import Trace, TraceEvent
from inference.evaluation.storage import load_traces
from inference.sinks import Sinks, SubtitleSink, TerminalSink, TraceSink
from inference.sinks.statistics import StreamStatistics
from inference.sinks.subtitles import MOST_CHARACTERS, MOST_SECONDS, timestamp
from model.errors import InputError


def _event(t: float, kind: str, text: str = "", token: int | None = None, **more: object) -> TraceEvent:
    return TraceEvent(t=t, kind=kind, text=text, token=token, **more)  # type: ignore[arg-type]


def _say(t: float, *words: str, pace: float = 0.1) -> list[TraceEvent]:
    return [_event(t + i * pace, "token", word, token=7) for i, word in enumerate(words)]


def _read(path: Path) -> list[tuple[float, float, str]]:
    """(begin, end, text) of a SubRip file."""

    def seconds(text: str) -> float:
        hours, minutes, rest = text.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(rest.replace(",", "."))

    cues = []
    for number, block in enumerate(path.read_text(encoding="utf-8").strip().split("\n\n"), 1):
        lines = block.split("\n")
        assert lines[0] == str(number)
        begin, end = re.fullmatch(r"(\d\d:\d\d:\d\d,\d{3}) --> (\d\d:\d\d:\d\d,\d{3})", lines[1]).groups()  # type: ignore[union-attr]
        cues.append((seconds(begin), seconds(end), "\n".join(lines[2:])))
    return cues


def test_subtitles_are_utterances_with_beginning_and_end(tmp_path: Path) -> None:
    sink = SubtitleSink(tmp_path / "a.srt")
    events = [
        *_say(1.0, "A red", " ball", " appears."),
        _event(2.5, "silence", "<|silence|>", 1),
        *_say(3.0, "It", " moves"),
        _event(3.2, "turn_interrupted"),
        _event(3.2, "turn_start", "what?"),
        *_say(3.25, "Yes"),
        _event(9.0, "end"),
    ]
    for event in events:
        sink(event)
    assert not (tmp_path / "a.srt").exists() and "A red ball" in (tmp_path / "a.srt.part").read_text()
    sink.close(whole=True)
    assert not (tmp_path / "a.srt.part").exists()
    assert _read(tmp_path / "a.srt") == [(1.0, 2.5, "A red ball appears."), (3.0, 3.25, "It moves"), (3.25, 9.0, "Yes")]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["token", "token", "token", "silence", "turn_interrupted"]),
            st.sampled_from([" word", " a longer one", ".", " end!", "ing", "\n"]),
            st.floats(0.01, 1.5),
        ),
        max_size=60,
    )
)
def test_cues_are_in_order_never_overlap_and_hold_all_that_was_said(steps: list[tuple[str, str, float]]) -> None:
    from inference.sinks.subtitles import Utterances

    utterances, cues, t, said = Utterances(), [], 0.0, ""
    for kind, text, pause in steps:
        t += pause
        said += text if kind == "token" else " "
        cues += list(utterances.feed(_event(t, kind, text if kind == "token" else "")))
    cues += list(utterances.feed(_event(t, "end")))
    assert " ".join(" ".join(cue.text for cue in cues).split()) == " ".join(said.split())
    assert all(cue.begin <= cue.end for cue in cues)
    assert all(a.end <= b.begin for a, b in itertools.pairwise(cues))
    assert all(len(cue.text) <= MOST_CHARACTERS + 13 for cue in cues if " " in cue.text and "ing" not in cue.text)
    assert all(cue.end - cue.begin <= MOST_SECONDS + 1.5 * 4 for cue in cues if "ing" not in cue.text and "." not in cue.text)


def test_timestamps_carry_over() -> None:
    assert timestamp(3661.9996) == "01:01:02,000" and timestamp(0.0004) == "00:00:00,000"


def test_a_trace_can_be_read_while_it_grows_and_is_the_same_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    header = Trace(scenario_id="a", mode="push", engine={"fps": 1.0})
    sink = TraceSink(path, header, lambda: {"end": "idle"})
    events = [_event(0.0, "frame_in", frame=0), *_say(0.5, "né", "e"), _event(2.0, "end", reason="idle")]
    for number, event in enumerate(events, 1):
        sink(event)
        (growing,) = load_traces(path.with_name("t.jsonl.part"))
        assert growing.events == events[:number] and growing.engine == {"fps": 1.0}
    with path.with_name("t.jsonl.part").open("a", encoding="utf-8") as file:
        file.write('{"t": 3.0, "ki')  # stopped in the middle of a line
    assert load_traces(path.with_name("t.jsonl.part"))[0].events == events
    sink.close(whole=True)
    (whole,) = load_traces(path)
    assert whole.events == events and whole.engine == {"fps": 1.0, "end": "idle"} and len(path.read_text().splitlines()) == 1
    assert not path.with_name("t.jsonl.part").exists()


def test_a_broken_stream_leaves_the_old_file_and_the_part(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("older\n")
    sink = Sinks([TraceSink(path, Trace(scenario_id="a", mode="push")), SubtitleSink(tmp_path / "t.srt")])
    sink(_event(0.0, "token", "hm", 3))
    sink.close(whole=False)
    assert path.read_text() == "older\n" and len(load_traces(tmp_path / "t.jsonl.part")[0].events) == 1
    assert not (tmp_path / "t.srt").exists()


def test_a_full_disk_is_one_sentence_and_what_was_written_stays(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    sink = TraceSink(path, Trace(scenario_id="one", mode="push"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(InputError, match=r"trace.jsonl.part cannot be written: .*; make room"):
            for i in range(1000):
                sink(_event(i, "token", "red ", token=7))
        sink.close(whole=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not path.exists()
    (kept,) = load_traces(tmp_path / "trace.jsonl.part")
    assert [event.t for event in kept.events] == list(range(len(kept.events))) and len(kept.events) > 20


def test_a_reader_that_leaves_is_one_sentence() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as out:
        sink = TerminalSink(out)
        with pytest.raises(InputError, match="whoever read the output has gone"):
            sink(_event(0.0, "token", "red", token=7))
        sink.close(whole=False)


def test_an_event_line_is_checked_like_any_other(tmp_path: Path) -> None:
    rows = [{"scenario_id": "a", "mode": "push"}, {"t": 0.0, "kind": "shout"}]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=r"t\.jsonl line 2: .*'shout'"):
        load_traces(tmp_path / "t.jsonl")


def test_the_terminal_prints_runs_of_silence_once_and_interruptions() -> None:
    out = io.StringIO()
    sink = TerminalSink(out)
    silence = [_event(t, "silence", "<|silence|>", 1) for t in (1.0, 2.0)]
    for event in [
        *silence,
        *_say(3.0, "hel", "lo"),
        _event(3.5, "stop"),
        _event(3.5, "frame_dropped", frame=4, reason="backlog"),
    ]:
        sink(event)
    sink.close(whole=True)
    lines = out.getvalue().splitlines()
    assert lines[:3] == ["[    1.00 s] <|silence|>", "[    3.00 s] hello", "[    3.50 s] (stopped)"]
    assert lines[3] == "[    3.50 s] (frame 4 dropped: backlog)"


def test_control_characters_of_a_model_do_not_reach_a_terminal() -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Screen()
    sink = TerminalSink(out)
    sink(_event(0.0, "token", "\x1b[2J\x07ok", 3))
    assert "\x1b" not in out.getvalue() and "\x07" not in out.getvalue() and "ok" in out.getvalue()


def test_counts_of_a_stream() -> None:
    counts = StreamStatistics()
    events = [_event(float(i), "frame_in", frame=i) for i in range(4)]
    events += [_event(4.0, "frame_done", frame=i) for i in range(2)] + [_event(4.0, "frame_dropped", frame=2, reason="backlog")]
    events += [_event(4.0, "prompt", "why"), _event(4.0, "turn_start", "why"), *_say(4.25, "be", "cause", "")]
    events += [_event(5.0, "silence", "<|silence|>", 1)] * 3
    for event in events:
        counts.feed(event)
    assert (counts.submitted, counts.processed, counts.dropped, counts.pending) == (4, 2, 1, 1)
    assert (counts.tokens, counts.silences, counts.silent_run, counts.first_token) == (3, 3, 3, 0.25)
    assert counts.frames_per_second(5.0) == pytest.approx(4 / 5) and counts.tokens_per_second(9.0) == pytest.approx(3 / 5)
    assert "1 pending" in counts.summary(5.0) and "first after 250 ms" in counts.summary(5.0)


def test_counts_of_hours_take_no_more_room_than_those_of_seconds() -> None:
    counts = StreamStatistics()
    for number in range(20000):
        counts.feed(_event(number / 10, "frame_in", frame=number))
        counts.feed(_event(number / 10, "token", "a", 3))
    assert counts.submitted == counts.tokens == 20000
    assert len(counts._frame_times) + len(counts._token_times) <= 2 * 51
