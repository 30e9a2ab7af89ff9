"""SRT and WebVTT: what players read must be read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.formats.subtitles import Cue, collapse_rolling, parse_subtitles, read_subtitles
from model.errors import InputError

VTT = """WEBVTT - a title
Kind: captions

STYLE
::cue { color: red }

NOTE a remark
over two lines

intro
00:01.000 --> 00:02.500 align:start position:0%
<v Ann>Good <i>morning</i>,</v>
<c.blue>everyone</c>

REGION
id:one

1:00:03.000 --> 1:00:04.000
 late &amp; last

00:10.000 --> 00:11.000

00:12.000 --> 00:13.000
<i></i>
"""


def test_webvtt_with_everything_around_the_cues() -> None:
    assert parse_subtitles(VTT) == [Cue(1.0, 2.5, "Good morning,\neveryone"), Cue(3603.0, 3604.0, "late & last")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "1\n00:00:01,000 --> 00:00:02,000\nhi\n\n2\n00:00:03,000 --> 00:00:04,500\nyou\n",
            [(1, 2, "hi"), (3, 4.5, "you")],
        ),
        ("7\n00:00:01,000 --> 00:00:02,000\na\n7\n00:00:03,000 --> 00:00:04,000\nb", [(1, 2, "a"), (3, 4, "b")]),  # no empty line
        ("00:00:01,000 --> 00:00:02,000\na\n\n00:00:03,000 --> 00:00:04,000\nb", [(1, 2, "a"), (3, 4, "b")]),  # no numbers
        ("x\n00:01,5 --> 00:02\n\na\n\nb\n\n2\n00:03.25-->00:04,000 X1:10\n{\\an8}c", [(1.5, 2, "a\nb"), (3.25, 4, "c")]),
        (
            "1\n00:00:05,000 --> 00:00:06,000\nb\n\n2\n00:00:01,000 --> 00:00:07,000\na",
            [(1, 7, "a"), (5, 6, "b")],
        ),  # unordered
        ("1\n00:00:02,000 --> 00:00:01,000\na", [(2, 2, "a")]),  # ends before it begins
        ("1\n00:00:01,000 --> 00:00:02,000\n1 --> 2\n42", [(1, 2, "1 --> 2\n42")]),  # the last line is text, not a number
        (
            '1\n00:00:01,000 --> 00:00:02,000\n<font x="#f">a</font> < b &lt;|silence|&gt;c<|vi<|x|>deo|>',
            [(1, 2, "a < b c")],
        ),
        ("1\r\n00:00:01,000 --> 00:00:02,000\r\na\r\rb", [(1, 2, "a\nb")]),
        ("no cue here", []),
    ],
)
def test_srt_as_it_is_found(text: str, expected: list[tuple[float, float, str]]) -> None:
    assert parse_subtitles(text) == [Cue(*cue) for cue in expected]


YOUTUBE = """WEBVTT
Kind: captions
Language: en

00:00:00.000 --> 00:00:02.000 align:start position:0%
 
so<00:00:00.500><c> today</c><00:00:01.000><c> we</c>

00:00:02.000 --> 00:00:02.010 align:start position:0%
so today we
 

00:00:02.010 --> 00:00:04.000 align:start position:0%
so today we
boil<00:00:02.500><c> water</c>

00:00:04.000 --> 00:00:04.010 align:start position:0%
boil water
 

00:00:04.010 --> 00:00:06.000 align:start position:0%
boil water
and<00:00:04.500><c> wait</c>
"""  # noqa: W293 - the empty half of the window is a line with a space


def test_rolling_captions_are_said_once() -> None:
    cues = collapse_rolling(parse_subtitles(YOUTUBE))
    assert [c.text for c in cues] == ["so today we", "boil water", "and wait"]
    assert [c.begin for c in cues] == [0.0, 2.01, 4.01]


def test_growing_and_repeated_captions_are_said_once() -> None:
    again = "so today we boil"
    growing = [Cue(0, 1, "so today"), Cue(1, 2, again), Cue(2, 3, again), Cue(9, 10, again)]
    assert collapse_rolling(growing) == [Cue(0, 1, "so today"), Cue(1, 3, "we boil"), Cue(9, 10, again)]
    assert collapse_rolling([Cue(0, 1, "No"), Cue(1, 2, "No way")])[1].text == "No way"  # one word is no growing caption


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.srt").write_bytes("1\n00:00:01,000 --> 00:00:02,000\ncafé".encode(encoding))
    assert read_subtitles(tmp_path / "a.srt") == [Cue(1.0, 2.0, "café")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1\n00:00:01,000 --> 00:00:02,000\ncafé".encode("latin-1"), r"a\.srt are not UTF-8 .*; convert them"),
        (b"\xff\xfea", "are not UTF-8"),
        (b"", "hold no cue with a text"),
        (None, "do not exist"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "a.srt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_subtitles(tmp_path / "a.srt")


def stamp(seconds: float, point: str) -> str:
    whole, milli = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{point}{milli:03}"


words = st.lists(st.sampled_from(["red", "ball", "3", "moves", "é"]), min_size=1, max_size=4).map(" ".join)
times = st.tuples(st.integers(0, 10**7), st.integers(0, 10**4)).map(lambda t: (t[0] / 1000, (t[0] + t[1]) / 1000))


@given(cues=st.lists(st.builds(lambda t, w: Cue(t[0], t[1], w), times, words), max_size=8), form=st.sampled_from(["srt", "vtt"]))
def test_what_was_written_is_read(cues: list[Cue], form: str) -> None:
    point = "," if form == "srt" else "."
    blocks = [f"{i}\n{stamp(c.begin, point)} --> {stamp(c.end, point)}\n{c.text}\n" for i, c in enumerate(cues, start=1)]
    text = "\n".join((["WEBVTT\n"] if form == "vtt" else []) + blocks)
    assert parse_subtitles(text) == sorted(cues, key=lambda c: c[:2])


@given(text=st.text(alphabet="01:.,-> \n\r<|>ab{}\\&lt;", max_size=200))
def test_any_text_gives_sound_cues(text: str) -> None:
    cues = collapse_rolling(parse_subtitles(f"00:01 --> 00:02\n{text}"))
    assert all(0 <= c.begin <= c.end and c.text.strip() for c in cues)
    assert not any(re.search(r"<\|[^<>]*\|>", c.text) for c in cues)
