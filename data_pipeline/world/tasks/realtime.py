"""Real-time dialogues: in every second the assistant speaks or stays silent.

Layout: the assistant's first turn begins with `<|silence|>`; every frame is a `<|video|>` marker followed by
`<|silence|>`, or by a sentence and then `<|silence|>`. A prompt ends the assistant's turn and opens another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from data_pipeline.schema import Message, Sample
from data_pipeline.world.palette import COLOURS, NUMBERS
from data_pipeline.world.scene import Clip, Event
from data_pipeline.world.tasks.tracking import frame_markers

SILENCE = "<|silence|>"
SEE = "What do you see?"
COUNT = "Count the objects."
QUIET = "Be quiet."
NARRATED = ("appear", "leave", "turn")


@dataclass(frozen=True)
class Line:
    """What is said at a frame."""

    frame: int
    text: str
    kind: str
    """event | answer | count"""


@dataclass(frozen=True)
class Prompt:
    """What the user says just before `frame` arrives; `cut` says that it interrupts a sentence at the frame before."""

    frame: int
    text: str
    cut: bool = False


def sentence(clip: Clip, event: Event) -> str:
    """`red ball appears`, `ball turns blue`, `blue ball leaves`, `red ball bounces`, `red ball hits blue flag`."""
    thing = clip.things[event.thing]
    name = thing.name(max(0, event.frame - 1) if event.kind == "leave" else event.frame)
    if event.kind == "turn":
        return f"{name.split()[1]} turns {COLOURS[int(thing.colour[event.frame])]}"
    if event.kind == "collide":
        other = next(t for t in clip.seen(event.frame) if t is not thing)
        return f"{name} hits {other.name(event.frame)}"
    return f"{name} {event.kind}s"


def narration(clip: Clip, kinds: tuple[str, ...] = NARRATED) -> list[Line]:
    """One line per frame in which something of `kinds` happens."""
    lines = []
    for frame in sorted({e.frame for e in clip.events if e.kind in kinds}):
        told = [sentence(clip, e) for e in clip.events if e.frame == frame and e.kind in kinds]
        lines.append(Line(frame, " and ".join(told) + ".", "event"))
    return lines


def description(clip: Clip, frame: int) -> str:
    """The answer to `SEE`."""
    return " and ".join(thing.name(frame) for thing in clip.seen(frame)) + "." if clip.seen(frame) else "nothing."


def counts(clip: Clip, first: int) -> list[Line]:
    """The number of objects at frame `first` and whenever it changes afterwards."""
    frames = [first] + [f for f in range(first + 1, clip.num_frames) if clip.count(f) != clip.count(f - 1)]
    return [Line(f, NUMBERS[min(2, clip.count(f))] + ".", "count") for f in frames]


def script(clip: Clip, prompt: Prompt | None) -> list[Line]:
    """All that is said when `prompt` (or nothing) is asked."""
    lines = narration(clip)
    if prompt is None:
        return lines
    before = [line for line in lines if line.frame < prompt.frame]
    after = [line for line in lines if line.frame >= prompt.frame]
    if prompt.text == QUIET:
        return before
    if prompt.text == COUNT:
        return before + counts(clip, prompt.frame)
    answer = Line(prompt.frame, description(clip, prompt.frame), "answer")
    return before + [answer] + [line for line in after if line.frame != prompt.frame]


def draw_prompt(clip: Clip, share: float = 0.4) -> Prompt | None:
    """A prompt with probability `share`: a question, a task that changes what is worth saying, or a call for quiet."""
    rng = np.random.default_rng((clip.seed, 3))
    if rng.random() >= share:
        return None
    text = str(rng.choice([SEE, COUNT, QUIET], p=[0.5, 0.25, 0.25]))
    spoken = [line.frame for line in narration(clip) if 1 <= line.frame < clip.num_frames - 2]
    if text == QUIET and spoken:
        return Prompt(int(rng.choice(spoken)) + 1, text, cut=bool(rng.random() < 0.7))
    return Prompt(int(rng.integers(2, clip.num_frames - 1)), text)


def realtime_messages(clip: Clip, prompt: Prompt | None, system: str = "") -> list[Message]:
    """The dialogue with one marker per frame."""
    said = {line.frame: line.text for line in script(clip, prompt)}
    messages = [Message(role="system", content=system)] if system else []
    turn = [SILENCE]
    asked = ""
    for frame in range(clip.num_frames):
        if prompt is not None and frame == prompt.frame:
            if prompt.cut and frame - 1 in said:
                words = said[frame - 1].split(" ")
                turn[-1] = "<|video|>" + " ".join(words[: max(1, len(words) // 2)])
            messages += [Message(role="user", content=asked), Message(role="assistant", content="".join(turn))]
            turn, asked = [SILENCE], prompt.text
        turn.append("<|video|>" + said.get(frame, "") + SILENCE)
    return messages + [Message(role="user", content=asked), Message(role="assistant", content="".join(turn))]


def realtime_sample(clip: Clip, prompt: Prompt | None, system: str = "") -> Sample:
    return Sample(
        kind="realtime",
        messages=realtime_messages(clip, prompt, system),
        media=[frame_markers(clip)],
        meta={"lines": [vars(line) for line in script(clip, prompt)], "prompt": vars(prompt) if prompt else None},
    )


def scenario(
    clip: Clip, prompt: Prompt | None, identity: str, video: str, asked: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """The clip as one line of a scenario file: a span for every frame at which something must be said.

    Frame i arrives at i seconds; a prompt comes half a second before the frame at which it is answered.
    """
    spans = [{"a": float(n.frame), "b": float(n.frame), "text": n.text, "kind": n.kind} for n in script(clip, prompt)]
    prompts = [{"t": prompt.frame - 0.5, "text": prompt.text}] if prompt else []
    return {
        "id": identity,
        "video": video,
        "fps": 1.0,
        "num_frames": clip.num_frames,
        "prompts": prompts,
        "spans": spans,
        "questions": asked or [],
        "system": "",
        "source": f"moss-train world, seed {clip.seed}",
        "license": "Apache-2.0",
        "meta": {"events": [vars(e) for e in clip.events]},
    }
