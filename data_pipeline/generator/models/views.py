"""What a model gets to read: timelines, changes and dialogues as plain lines."""

from __future__ import annotations

from collections.abc import Sequence

from data_pipeline.generator.plan import Draft, Known
from data_pipeline.realtime.dialogue import UserTurn, Utterance
from data_pipeline.timeline.timeline import Change, Segment, Timeline

MOST_SEGMENTS = 400
"""Segments that a prompt holds; of longer timelines the latest are shown."""
LANGUAGES = {"en": "English", "zh": "Chinese"}


def segment_line(segment: Segment, still: str = "...") -> str:
    """`3-6 s event: red ball appears`."""
    end = still if segment.end is None else f"{segment.end:g}"
    subject = f" [{segment.subject} = {segment.value}]" if segment.subject else ""
    return f"{segment.begin:g}-{end} s {segment.level}{subject}: {segment.text}"


def timeline_lines(timeline: Timeline) -> str:
    """All segments, and where there are any the annotated questions with their answers."""
    lines = [segment_line(s) for s in timeline.segments[-MOST_SEGMENTS:]] or ["(nothing)"]
    lines += [f"annotated question: {q.text} answer: {q.answer}" for q in timeline.questions]
    return "\n".join(lines)


def change_lines(changes: Sequence[Change]) -> str:
    """`c1 at 3 s (appear): nothing -> red ball`."""
    lines = [f"{c.id} at {c.t:g} s ({c.kind}): {c.before or 'nothing'} -> {c.after or 'nothing'}" for c in changes]
    return "\n".join(lines) or "(none)"


def turn_lines(users: Sequence[tuple[float, str]], said: Sequence[Utterance]) -> str:
    """The dialogue in order of time; turns and lines are counted from 0, each on their own."""
    lines = [(t, 0, f"{t:g} s user {i}: {text}") for i, (t, text) in enumerate(users)]
    lines += [(u.t, 1, f"{u.t:g} s assistant {i}: {u.text}") for i, u in enumerate(said)]
    return "\n".join(line for _, _, line in sorted(lines)) or "(nothing)"


def known_view(known: Known) -> str:
    """What the answer policy may know at one frame."""
    asked = [(q.t, q.text or "(nobody speaks; tell what happens)") for q in known.asked]
    return (
        f"Language: {LANGUAGES[known.language]}\n\nSeen so far:\n{timeline_lines(known.timeline)}\n\n"
        f"Said so far:\n{turn_lines(asked, known.said)}\n\nIt is {known.t:g} s now."
    )


def dialogue_view(users: Sequence[UserTurn], utterances: Sequence[Utterance]) -> str:
    """A whole dialogue."""
    return turn_lines([(u.t, u.text) for u in users], utterances)


def draft_view(draft: Draft, timeline: Timeline) -> str:
    """A dialogue beside the whole video, for a judge."""
    return f"Video:\n{timeline_lines(timeline)}\n\nDialogue:\n{dialogue_view(draft.users, draft.utterances)}"
