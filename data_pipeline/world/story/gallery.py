"""A page on which a person can hold the truth of stories against their pixels: frame strips with their timelines beneath."""

from __future__ import annotations

import base64
import html
import os
from pathlib import Path

import numpy as np

from data_pipeline.timeline.timeline import Segment
from data_pipeline.world.story.captions import REGISTERS, caption_frame, caption_story
from data_pipeline.world.story.record import Array
from data_pipeline.world.story.story import Story, build_story
from model.errors import InputError

LANES = 40
"""Lines of a timeline at most, so that a page can be read."""
STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:24px auto;max-width:1360px;color:#1d2430;background:#fafbfc}
h2{margin:36px 0 2px}h3{margin:22px 0 6px;font-weight:600}
.strip{display:flex}.strip figure{margin:0;flex:1 1 0;min-width:0;padding-right:2px;box-sizing:border-box}
.strip img{width:100%;display:block;image-rendering:pixelated;border-radius:3px}
.strip figcaption{font-size:10px;color:#667;text-align:left}
.lanes{position:relative;background:#fff;border:1px solid #e1e5ea;border-radius:4px;margin:4px 0;overflow:hidden}
.bar{position:absolute;height:15px;font-size:11px;line-height:15px;white-space:nowrap;padding-left:3px;border-left:2px solid}
.fill{position:absolute;height:15px;opacity:.28}
.seen{position:absolute;width:2px;height:15px;background:#d22}
details{margin:4px 0}td{padding:1px 12px 1px 0;vertical-align:top}.small{color:#667;font-size:12px}
"""
COLOURS = {"event": "#c2541b", "action": "#7b3fb5", "count": "#1b6fc2", "visible": "#4c8a2b", "sign": "#8a6d1b"}


def write_gallery(
    out: str | os.PathLike[str], levels: tuple[int, ...], clips: int, seed: int, fps: float, seconds: float, size: int
) -> Path:
    """Write one HTML page without other files.

    Args:
        clips: stories of each level; their seeds are `seed`, `seed + 1`, ...

    Raises:
        InputError: an argument that a story cannot have, or a page that cannot be written.
    """
    if clips < 1:
        raise InputError(f"clips is {clips}; the gallery needs at least 1 of each level")
    parts = [f"<title>Stories of the synthetic world</title><style>{STYLE}</style><h1>Stories of the synthetic world</h1>"]
    parts.append(
        "<p class=small>Frames from left to right, with their second. Beneath: a line for each event, action and state, from its "
        "begin to its end; the red mark is the first frame that shows it. Bounces of level 1 are known but not worth a word.</p>"
    )
    for level in levels:
        parts.append(f"<h2>Level {level}</h2>")
        parts += [_story(build_story(level, seed + i, fps, seconds, size)) for i in range(clips)]
    path = Path(out)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text("<!doctype html><meta charset=utf-8>" + "\n".join(parts), encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; choose another file") from error
    return path


def _story(story: Story) -> str:
    frames, timeline = story.render(), story.timeline()
    step = max(1, len(frames) // 20)
    chosen = range(0, len(frames), step)
    strip = "".join(_frame(frames[i], story, i) for i in chosen)
    end = story.frame_times[chosen[-1]] + step / story.fps
    asked = "".join(
        f"<tr><td>{q.kind}<td>{html.escape(q.text)}<td><b>{html.escape(q.answer)}</b><td>{_span(q.evidence)}"
        for q in timeline.questions
    )
    said = "".join(
        f"<tr><td>{r}<td>{html.escape(caption_frame(story.record, len(frames) - 1, r))}"
        f"<td>{html.escape(caption_story(story.record, timeline.segments, r))}"
        for r in REGISTERS
    )
    return (
        f"<h3>Seed {story.seed} <span class=small>{len(timeline.segments)} segments, {story.fps:g} frames a second, "
        f"{story.size} pixels</span></h3><div class=strip>{strip}</div>{_lanes(timeline.segments, end)}"
        f"<details><summary>{len(timeline.questions)} questions</summary><table>{asked}</table></details>"
        f"<details><summary>Captions: last frame, whole story</summary><table>{said}</table></details>"
    )


def _span(evidence: tuple[float, float] | None) -> str:
    return "whole video" if evidence is None else f"{evidence[0]:.1f}-{evidence[1]:.1f} s"


def _frame(picture: Array, story: Story, index: int) -> str:
    from data_pipeline.world.video import encode_jpeg

    content = base64.b64encode(encode_jpeg(np.ascontiguousarray(picture))).decode()
    return f"<figure><img src='data:image/jpeg;base64,{content}'><figcaption>{story.frame_times[index]:g}</figcaption></figure>"


def _lanes(told: tuple[Segment, ...], duration: float) -> str:
    """Bars over a common axis of time; states of one subject share a line."""
    rows: list[tuple[float, str]] = []
    bars = []
    wanted = [s for s in told if s.level != "state"] + [s for s in told if s.level == "state" and ":" not in s.subject]
    wanted += [s for s in told if s.level == "state" and ":" in s.subject and not s.subject.startswith("place")]
    for s in wanted:
        row = _row(rows, s, duration)
        if row >= LANES:
            continue
        left, right = (100 * min(v, duration) / duration for v in (s.begin, s.end if s.end is not None else duration))
        colour = COLOURS.get(s.subject or s.level, "#555")
        text = f"{s.subject.removeprefix('colour:').removeprefix('action:')}: {s.value}" if s.subject else s.text
        top = 16 * row + 1
        room = f";width:{max(0.0, right - left - 0.6):.2f}%;overflow:hidden" if s.subject else ""
        bars.append(
            f"<div class=fill style='left:{left:.2f}%;width:{max(0.3, right - left):.2f}%;top:{top}px;background:{colour}'></div>"
            f"<div class=bar style='left:{left:.2f}%;top:{top}px;border-color:{colour}{room}' title='{html.escape(text)}'>"
            f"{html.escape(text)}</div>"
            f"<div class=seen style='left:{100 * s.known_from / duration:.2f}%;top:{top}px'></div>"
        )
    return f"<div class=lanes style='height:{16 * min(len(rows), LANES) + 2}px'>{''.join(bars)}</div>"


def _row(rows: list[tuple[float, str]], s: Segment, duration: float) -> int:
    """The first line with room for a segment and its words."""
    words = 0.0055 * duration * (len(s.text if not s.subject else s.subject + s.value) + 3)
    end = max(s.end if s.end is not None else duration, s.known_from, s.begin + words)
    for i, (until, group) in enumerate(rows):
        if group == s.subject and (until <= s.begin or s.subject):
            rows[i] = (end, group)
            return i
    rows.append((end, s.subject))
    return len(rows) - 1
