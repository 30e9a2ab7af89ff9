"""What a push trace says frame by frame: utterances, where they begin and which frames they run through."""

from __future__ import annotations

from dataclasses import dataclass, field

from inference.evaluation.schema import Trace


@dataclass
class Utterance:
    """A run of text tokens that neither silence nor a new turn breaks."""

    t: float
    """Stream time of the first token."""
    frames: list[int]
    """Newest visible frame of each token, without repeats; -1 before the first frame."""
    text: str = ""

    @property
    def first_frame(self) -> int:
        return self.frames[0]


@dataclass
class Speech:
    """All that a trace says."""

    utterances: list[Utterance] = field(default_factory=list)

    @property
    def spoken_frames(self) -> set[int]:
        """Frames at which any text was said."""
        return {frame for utterance in self.utterances for frame in utterance.frames}


def read_speech(trace: Trace) -> Speech:
    """Collect the utterances of a push trace."""
    speech = Speech()
    current: Utterance | None = None
    for event in trace.events:
        if event.kind in ("silence", "turn_start"):
            current = None
        elif event.kind == "token":
            frame = -1 if event.frame is None else event.frame
            if current is None:
                current = Utterance(t=event.t, frames=[frame])
                speech.utterances.append(current)
            elif current.frames[-1] != frame:
                current.frames.append(frame)
            current.text += event.text
    return speech
