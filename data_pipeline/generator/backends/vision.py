"""Captions of a video that has none: a model looks at its frames, window by window."""

from __future__ import annotations

import dataclasses
import io
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.generator.backends.chat import ChatBackend, ChatRequest, MalformedAnswer, Refused
from data_pipeline.generator.backends.cuts import find_cuts
from data_pipeline.timeline.timeline import CHANGES, Segment, Timeline, check_timeline
from model.errors import InputError

ROLE = "caption"
LEVELS = ("event", "action", "state", "text")
_LANGUAGES = {"en": "English", "zh": "Chinese"}
SYSTEM = """You describe what frames of a video show, for somebody who cannot see them. You get frames in order, each with its
number and its second, and what the frames before them showed.

Rules
- Only what can be seen counts: no guesses about what came before, what follows, what is thought or heard.
- One fact a segment, one short plain sentence or phrase without a full stop, without times and frame numbers.
- `level` is event (something that happens), action (something that lasts), state (what holds for a while) or text (what is to be
  read in the picture; `value` is the text).
- `first` and `last` are the numbers of the first and last of these frames at which it holds. `known` is the number of the first
  frame from which somebody who has seen no later one can know all of the sentence.
- A state has a `subject` of the form thing or property:thing, such as `count`, `colour:car` or `place:cup`, and a `value` in a
  few words; segments of one subject do not overlap. Leave both empty for events and actions.
- `change` is what its beginning brings about: appear, leave, action, count, text, scene or state; empty where it brings nothing
  about, or where it was so before these frames.
- `salience` from 0 to 1: how much somebody who was asked to report would want to mention it.
- Go on with the words of the frames before for things that are still there."""
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "segments": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "first": {"type": "integer", "minimum": 0},
                    "last": {"type": "integer", "minimum": 0},
                    "known": {"type": "integer", "minimum": 0},
                    "level": {"type": "string", "enum": list(LEVELS)},
                    "text": {"type": "string"},
                    "subject": {"type": "string"},
                    "value": {"type": "string"},
                    "change": {"type": "string", "enum": ["", *CHANGES]},
                    "salience": {"type": "number", "minimum": 0, "maximum": 1},
                },
                "required": ["first", "last", "known", "level", "text", "subject", "value", "change", "salience"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["segments"],
    "additionalProperties": False,
}
_LAST_LINES = 12
"""Lines of the window before that the model is told."""


@dataclass(frozen=True, kw_only=True)
class VisionOptions:
    """How a video is looked at."""

    language: str = "en"
    """en | zh: of the captions."""
    fps: float = 1.0
    """Frames a second that the model sees; captions are no finer in time."""
    frames_per_call: int = 16
    overlap: int = 0
    """Frames of a call that the call before it has had too; what both name is one segment."""
    cut_threshold: float = 0.15
    """Difference of two frames, from 0 to 1, that makes a cut (`cuts.find_cuts`); no call and no segment crosses one. 0 looks
    for none."""
    longest_side: int = 512
    """Pixels; larger frames are made smaller."""
    quality: int = 85
    """Of the JPEG files."""
    max_tokens: int = 3000
    """Of the answer to one call."""

    def __post_init__(self) -> None:
        if self.language not in _LANGUAGES:
            raise InputError(f"language is {self.language!r}; captions can be written in {', '.join(_LANGUAGES)}")
        for name, least in (("frames_per_call", 1), ("longest_side", 16), ("quality", 1), ("max_tokens", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if not 0 <= self.overlap < self.frames_per_call:
            raise InputError(f"overlap is {self.overlap}; it must be at least 0 and less than frames_per_call")
        if not 0 <= self.cut_threshold <= 1:
            raise InputError(f"cut_threshold is {self.cut_threshold:g}; it must lie within 0..1 (0 looks for no cuts)")
        if not 0 < self.fps <= 30:
            raise InputError(f"fps is {self.fps:g}; it must lie above 0 and be at most 30")


def frame_times(duration: float, fps: float) -> list[float]:
    """Seconds of the frames that the model sees."""
    return [i / fps for i in range(max(1, int(duration * fps - 1e-6) + 1)) if i / fps < duration]


@dataclass(frozen=True)
class Window:
    """Frames of one call."""

    first: int
    """Number of its first frame."""
    times: tuple[float, ...]
    """Seconds of its frames."""
    begins_scene: bool
    end: float
    """Second at which its scene ends: the next cut, or the end of the video."""


def windows(times: Sequence[float], duration: float, cuts: Sequence[float], options: VisionOptions) -> list[Window]:
    """Calls for the frames of a video: as many frames each as allowed, overlapping as asked, none across a cut."""
    found = []
    bounds = [0.0, *(cut for cut in cuts if 0 < cut < duration), duration]
    for begin, end in itertools.pairwise(bounds):
        scene = [i for i, t in enumerate(times) if begin <= t < end]
        for at in range(0, len(scene), options.frames_per_call - options.overlap):
            if at and len(scene) - at <= options.overlap:
                break  # the window before has had all of these frames
            numbers = scene[at : at + options.frames_per_call]
            found.append(Window(numbers[0], tuple(times[i] for i in numbers), at == 0, end))
    return found


def caption_video(
    path: str | os.PathLike[str],
    backend: ChatBackend,
    options: VisionOptions | None = None,
    *,
    source: str = "",
    license: str = "",
    name: str = "",
) -> Timeline:
    """A timeline of a video file: a call for each of its `windows`.

    Args:
        name: id of the timeline; the file's name without its ending where it is left out.

    Raises:
        InputError: the file is no video, or the model's captions of it cannot be used; other videos may still be.
        BackendError: the endpoint is down, or the budget is spent.
    """
    from data_pipeline.media.decode import probe_video

    options = options or VisionOptions()
    file = Path(path)
    duration = probe_video(file).duration
    times = frame_times(duration, options.fps)
    cuts = find_cuts(file, options.cut_threshold) if options.cut_threshold else []
    segments: list[Segment] = []
    scene: list[Segment] = []
    for window in windows(times, duration, cuts, options):
        if window.begins_scene:
            segments, scene = segments + scene, []
        request = _request(file, window, scene, options)
        try:
            answer = backend.complete(request)
        except (MalformedAnswer, Refused) as error:
            raise InputError(
                f"video {file}: no captions of seconds {window.times[0]:g} to {window.times[-1]:g}: {error}"
            ) from None
        try:
            found = [_segment(one, window, options.fps) for one in answer["segments"]]
        except MalformedAnswer as error:
            raise InputError(f"video {file}: captions of seconds {window.times[0]:g} to {window.times[-1]:g}: {error}") from None
        scene = _joined(scene, found)
    segments += scene
    timeline = Timeline(
        id=name or file.stem,
        duration=duration,
        segments=tuple(sorted(segments, key=lambda s: (s.begin, s.end or duration))),
        video=str(file),
        language=options.language,
        source=source,
        license=license,
    )
    if not segments:
        raise InputError(f"video {file}: the model says nothing about any frame")
    check_timeline(timeline, f"captions of {file}")
    return timeline


def _request(file: Path, window: Window, before: Sequence[Segment], options: VisionOptions) -> ChatRequest:
    frames = "\n".join(f"frame {window.first + i}: {t:g} s" for i, t in enumerate(window.times))
    nothing = "- nothing: a new scene begins here" if window.first else "- nothing: the video begins here"
    told = "\n".join(f"- {_line(s)}" for s in before[-_LAST_LINES:]) or nothing
    text = f"Video: {file.stem}\nLanguage: {_LANGUAGES[options.language]}\n\nBefore these frames:\n{told}\n\nFrames:\n{frames}"
    return ChatRequest(
        role=ROLE,
        system=SYSTEM,
        text=text,
        images=_images(file, window.times, options),
        schema=SCHEMA,
        max_tokens=options.max_tokens,
    )


def _line(segment: Segment) -> str:
    state = f" [{segment.subject}: {segment.value}]" if segment.level == "state" else ""
    return f"{segment.level}: {segment.text}{state}"


def _images(file: Path, times: Sequence[float], options: VisionOptions) -> tuple[bytes, ...]:
    from PIL import Image

    from data_pipeline.media.decode import frames_at_times

    images = []
    for pixels in frames_at_times(file, list(times)):
        picture = Image.fromarray(pixels)
        picture.thumbnail((options.longest_side, options.longest_side), Image.Resampling.BILINEAR)
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=options.quality)
        images.append(buffer.getvalue())
    return tuple(images)


def _segment(one: dict[str, Any], window: Window, fps: float) -> Segment:
    """A caption with frames as seconds: it ends where the frame behind its last one begins, or at the end of the scene.

    Raises:
        MalformedAnswer: a frame is named that was not shown, a text is empty, or a state lacks a subject or value.
    """
    first, last = window.first, window.first + len(window.times) - 1
    if not first <= one["first"] <= one["known"] <= last or not one["first"] <= one["last"] <= last:
        raise MalformedAnswer(
            f"frames {one['first']}, {one['known']} and {one['last']} of {one['text'][:60]!r}; first, known and last must rise "
            f"within {first}..{last}"
        )
    text, subject, value = (" ".join(one[key].split()) for key in ("text", "subject", "value"))
    state = one["level"] == "state"
    if not text or (state and not (subject and value)):
        raise MalformedAnswer(f"{one['level']} {text[:60]!r} of {subject!r} lacks a text, or a state its subject or value")
    return Segment(
        begin=one["first"] / fps,
        end=min((one["last"] + 1) / fps, window.end),
        text=text.rstrip("."),
        level=one["level"],
        evident=one["known"] / fps,
        subject=subject if state else "",
        value=value if state or one["level"] == "text" else "",
        change=one["change"],
        salience=float(one["salience"]),
        source=ROLE,
    )


def _joined(before: Sequence[Segment], found: Sequence[Segment]) -> list[Segment]:
    """Both windows: what goes on from one to the next is one segment; a state ends where the next of its subject begins."""
    joined = list(before)
    for segment in sorted(found, key=lambda s: s.begin):
        same = next((i for i, s in enumerate(joined) if _goes_on(s, segment)), None)
        if same is not None:
            joined[same] = dataclasses.replace(joined[same], end=max(joined[same].end or 0.0, segment.end or 0.0))
            continue
        rest = _behind(before, segment)
        if rest is None:
            continue
        for i, s in enumerate(joined):
            if rest.level == s.level == "state" and s.subject == rest.subject and s.begin <= rest.begin < (s.end or 0):
                joined[i] = dataclasses.replace(s, end=rest.begin)
        joined.append(rest)
    # A state that another one of the same first frame replaces has no time left.
    return [s for s in joined if s.level != "state" or s.end is None or s.end > s.begin]


def _behind(before: Sequence[Segment], segment: Segment) -> Segment | None:
    """What of a state lies behind those that the window before tells of the frames that both have, or None."""
    if segment.level != "state":
        return segment
    rivals = [s.end or 0.0 for s in before if s.level == "state" and s.subject == segment.subject and s.begin >= segment.begin]
    begin = max([segment.begin, *rivals])
    if begin >= (segment.end or 0.0):
        return None
    return dataclasses.replace(segment, begin=begin, evident=max(begin, segment.evident or begin))


def _goes_on(before: Segment, after: Segment) -> bool:
    """Whether two segments are one: they say the same, and touch or (where windows overlap) share time."""
    alike = (before.level, before.text, before.subject, before.value) == (after.level, after.text, after.subject, after.value)
    if not alike or before.end is None:
        return False
    return after.begin < before.end - 1e-6 or (abs(before.end - after.begin) < 1e-6 and not after.change)
