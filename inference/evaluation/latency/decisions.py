"""Speech by script: the machine computes every step as ever, but when to speak and for how long is fixed.

So the times of a model can be measured, and reproduced elsewhere, whatever its weights would say.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

from inference.session.loop import RealtimeSession


@dataclass(frozen=True)
class Script:
    """When to speak."""

    frames: dict[int, int] = field(default_factory=dict)
    """Tokens to say at the first token boundary at which a frame of this number is the newest."""
    answer: int = 8
    """Tokens to say to a prompt."""


def scripted(session: RealtimeSession, script: Script, stepping: Generator[Any, Any, str]) -> Generator[Any, Any, str]:
    """A session's stepping with the script's decisions in the place of the model's: silence where it says so, and any token of
    the model's that is not silence otherwise, so that steps launched ahead stay valid.

    Args:
        session: which is advanced.
        script: decides.
        stepping: of the session.

    Returns:
        What the stepping returns.
    """
    silence, header = session.tokenizer.silence_id, session.tokenizer.start_header_id
    left = 0
    begun: set[int] = set()
    request = next(stepping)
    opened = False
    while True:
        frames = [frame.number for frame in session.progress.frames]
        token = yield request
        newest = frames[-1] if frames else session.turns.newest_frame
        if header in request.tokens and opened:  # the first such step opens the session
            left = script.answer
        elif newest is not None and newest not in begun and newest in script.frames:
            left = script.frames[newest]
        opened = True
        begun |= set(frames)
        if left > 0:
            left -= 1
            token = token if token != silence else 0
        else:
            token = silence
        try:
            request = stepping.send(token)
        except StopIteration as stop:
            return str(stop.value)
