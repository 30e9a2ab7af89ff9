"""Rules of times: frames, turns, evidence, and the spans of a layout."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from data_pipeline.realtime.dialogue import Dialogue, Utterance
from data_pipeline.realtime.layout import NEAR, frame_at
from data_pipeline.realtime.rules.fault import CheckOptions, Fault


def time_faults(dialogue: Dialogue) -> Iterator[Fault]:
    """Faults of what stands before a layout."""
    times = dialogue.frame_times
    sound = bool(times) and all(math.isfinite(t) for t in times) and times[0] >= 0
    if not sound or not all(a < b for a, b in itertools.pairwise(times)):
        yield Fault("frame-order", "frame_times", f"are {_some(times)}; they must rise from 0 or later")
        return
    for name, turns in (("users", dialogue.users), ("utterances", dialogue.utterances)):
        moments = [turn.t for turn in turns]
        for index, t in enumerate(moments):
            if not math.isfinite(t):
                yield Fault("turn-order", f"{name}[{index}]", f"has the time {t}")
            elif index and t < moments[index - 1]:
                yield Fault("turn-order", f"{name}[{index}]", f"at {t:g} s stands behind one at {moments[index - 1]:g} s")
    for index, utterance in enumerate(dialogue.utterances):
        where = f"utterances[{index}]"
        if frame_at(times, utterance.t) is None:
            yield Fault("off-grid", where, f"has t {utterance.t:g}, at which there is no frame")
        begin, end = utterance.evidence
        if not (math.isfinite(begin) and math.isfinite(end) and begin <= end):
            yield Fault("evidence-order", where, f"has the evidence {begin:g}..{end:g} s")
        elif end > utterance.t + NEAR:
            yield Fault("evidence-order", where, f"may be said at {utterance.t:g} s but its evidence ends at {end:g} s")


def layout_faults(dialogue: Dialogue, options: CheckOptions) -> Iterator[Fault]:
    """Faults of a layout, as the dialogue's own fields tell it."""
    if dialogue.emission_tps is None or not 0 < dialogue.emission_tps < math.inf:
        yield Fault("not-laid-out", "emission_tps", f"is {dialogue.emission_tps}")
    taken: dict[int, int] = {}
    for index, utterance in enumerate(dialogue.utterances):
        where = f"utterances[{index}]"
        if utterance.said is None:
            yield Fault("not-laid-out", where, "has no said")
            continue
        yield from _said_faults(utterance, where)
        if utterance.span is None:
            yield from _unsaid_faults(dialogue, utterance, where, options)
            continue
        first, last = (frame_at(dialogue.frame_times, t) for t in utterance.span)
        if first is None or last is None or last < first:
            yield Fault("off-grid", where, f"has the span {utterance.span}, which is not the times of two frames in order")
            continue
        shared = next((taken[frame] for frame in range(first, last + 1) if frame in taken), None)
        if shared is not None:
            yield Fault("overlap", where, f"is said while utterances[{shared}] is")
        taken |= dict.fromkeys(range(first, last + 1), index)
        yield from _onset_faults(utterance, where, options)


def _onset_faults(utterance: Utterance, where: str, options: CheckOptions) -> Iterator[Fault]:
    assert utterance.span is not None
    onset = utterance.span[0]
    if onset < utterance.t - NEAR:
        yield Fault("before-time", where, f"begins at {onset:g} s but is right from {utterance.t:g} s on")
    if onset < utterance.evidence[1] - NEAR:
        yield Fault("before-evidence", where, f"begins at {onset:g} s but its evidence ends at {utterance.evidence[1]:g} s")
    latest = utterance.t + utterance.tolerance + options.max_wait
    if onset > latest + NEAR:
        yield Fault("late", where, f"begins at {onset:g} s but had to by {latest:g} s")


def _unsaid_faults(dialogue: Dialogue, utterance: Utterance, where: str, options: CheckOptions) -> Iterator[Fault]:
    """What was never said is in order where a turn of the user, or the end of the video, came before it had to begin."""
    latest = utterance.t + utterance.tolerance + options.max_wait
    turn = min((user.t for user in dialogue.users if user.t > utterance.t - NEAR), default=math.inf)
    if latest + NEAR < min(turn, dialogue.frame_times[-1]):
        yield Fault("late", where, f"is never said but had to begin by {latest:g} s")


def _said_faults(utterance: Utterance, where: str) -> Iterator[Fault]:
    said = utterance.said or ""
    if not utterance.text.startswith(said):
        yield Fault("said", where, f"says {said!r}, which is not how {utterance.text!r} begins")
    elif bool(said) != (utterance.span is not None):
        yield Fault("said", where, f"says {said!r} but has the span {utterance.span}")
    elif utterance.preempted != (0 < len(said) < len(utterance.text)):
        yield Fault("said", where, f"says {said!r} of {utterance.text!r} but preempted is {utterance.preempted}")


def _some(times: tuple[float, ...]) -> str:
    shown = ", ".join(f"{t:g}" for t in times[:8])
    return f"{shown}, ..." if len(times) > 8 else shown or "not there"
