"""Layout: which words are said in which frame's slot, at a rate of speech."""

from __future__ import annotations

import bisect
import dataclasses
from collections import deque
from dataclasses import dataclass

from data_pipeline.realtime.dialogue import Dialogue, Utterance
from data_pipeline.realtime.emission import CountTokens, SlotBudget
from data_pipeline.realtime.words import take_units, units_of
from model.errors import InputError

NEAR = 1e-6
"""Seconds by which times may differ and still be the same."""


@dataclass(frozen=True)
class Slot:
    """What follows one frame until the next one."""

    frame: int
    """Index into `Dialogue.frame_times`."""
    text: str = ""
    """What is said in it; with the text of the slots around it, spaces included, the utterance."""
    utterance: int | None = None
    """Index of what is said."""
    silent: bool = True
    """Whether it ends with silence: nothing is said, or the utterance ends here, or the next word waits for a later slot."""


@dataclass
class _Speech:
    """An utterance that is being said."""

    index: int
    units: list[str]
    budget: SlotBudget
    first: int
    last: int = -1
    said: str = ""

    def speak(self, frame: int, count: CountTokens) -> str:
        """What is said in the slot of `frame`; nothing where nothing is left."""
        if not self.units:
            return ""
        part, self.units, used = take_units(self.units, self.budget.open_slot(), self.budget.most, count)
        self.budget.close_slot(used, bool(self.units))
        if part:
            self.said += part
            self.last = frame
        return part


def lay_out(dialogue: Dialogue, count_tokens: CountTokens, tokens_per_second: float) -> Dialogue:
    """Decide when each utterance is said, and how much of it; what an earlier layout decided is forgotten.

    An utterance begins at the first frame from its `t` on at which nothing else is being said; those that wait keep their
    order. One that `replaces_running` cuts off what is being said and goes before those that wait. A user's turn cuts off
    what is being said, and what waited is never said, since it belonged to an earlier request. What the end of the video
    cuts off counts as cut off too. Text is cut between two slots in front of a word (or a Chinese character), and inside a
    word only where that word has more tokens than a slot holds.

    Args:
        dialogue: raw, or laid out at any rate.
        count_tokens: tokens of a text, as the tokenizer counts them; wrap it in `words.CountCache` for a corpus.
        tokens_per_second: see `emission.SlotBudget` for what a slot holds.

    Returns:
        The dialogue with span, said and preempted of every utterance, and with `emission_tps`. What was never said has span
        None and said ''.

    Raises:
        InputError: the rate is not above 0.
    """
    SlotBudget(tokens_per_second, dialogue.fps)
    utterances = dialogue.utterances
    coming = deque(sorted(range(len(utterances)), key=lambda index: utterances[index].t))
    asked = deque(sorted(user.t for user in dialogue.users))
    waiting: deque[int] = deque()
    running: _Speech | None = None
    done: dict[int, _Speech] = {}
    for frame, time in enumerate(dialogue.frame_times):
        while asked and asked[0] < time - NEAR:
            asked.popleft()
            running = None
            waiting.clear()
        while coming and utterances[coming[0]].t <= time + NEAR:
            index = coming.popleft()
            if utterances[index].replaces_running:
                running = None
                waiting.appendleft(index)
            else:
                waiting.append(index)
        if running is None and waiting:
            running = _speech(waiting.popleft(), utterances, tokens_per_second, dialogue.fps, frame)
            done[running.index] = running
        if running is not None:
            running.speak(frame, count_tokens)
            if not running.units:
                running = None
    times = dialogue.frame_times
    return dataclasses.replace(
        dialogue,
        utterances=tuple(_laid(one, done.get(index), times) for index, one in enumerate(utterances)),
        emission_tps=float(tokens_per_second),
    )


def slots_of(dialogue: Dialogue, count_tokens: CountTokens) -> list[Slot]:
    """The slots of a dialogue that is laid out, one for each frame.

    The words come from `text`, cut at the length of `said`, so that they fall into the slots into which the layout put them.

    Raises:
        InputError: it is not laid out, or spans, texts and rate do not belong together.
    """
    if dialogue.emission_tps is None:
        raise InputError(f"dialogue {dialogue.id!r} has no emission_tps; lay it out first (data_pipeline.realtime.layout)")
    slots = [Slot(frame) for frame in range(len(dialogue.frame_times))]
    for index, utterance in enumerate(dialogue.utterances):
        if utterance.span is None:
            continue
        where = f"dialogue {dialogue.id!r} utterances[{index}]"
        said = utterance.said or ""
        if not utterance.text.startswith(said):
            raise InputError(f"{where}.said is {said!r}, which is not how its text begins; lay it out again")
        first, last = (frame_at(dialogue.frame_times, t) for t in utterance.span)
        if first is None or last is None or last < first:
            raise InputError(f"{where}.span is {utterance.span}; it must be the times of two frames, in order")
        speech = _speech(index, dialogue.utterances, dialogue.emission_tps, dialogue.fps, first)
        for frame in range(first, last + 1):
            if slots[frame].utterance is not None:
                raise InputError(f"{where} is said at {dialogue.frame_times[frame]:g} s, when another one is; lay it out again")
            before = len(speech.said)
            part = speech.speak(frame, count_tokens)[: max(0, len(said) - before)]
            ends = len(speech.said) >= len(said)
            slots[frame] = Slot(frame, part, index, not part or (ends and not utterance.preempted))
        if len(speech.said) < len(said) or (last > first and not slots[last].text):
            raise InputError(f"{where}.span is {utterance.span}, which is not what {said!r} takes; lay it out again")
    return slots


def frame_at(frame_times: tuple[float, ...], t: float) -> int | None:
    """Index of the frame at second `t`, if there is one."""
    index = bisect.bisect_left(frame_times, t - NEAR)
    return index if index < len(frame_times) and abs(frame_times[index] - t) <= NEAR else None


def _speech(index: int, utterances: tuple[Utterance, ...], rate: float, fps: float, frame: int) -> _Speech:
    return _Speech(index, units_of(utterances[index].text), SlotBudget(rate, fps), frame)


def _laid(utterance: Utterance, speech: _Speech | None, times: tuple[float, ...]) -> Utterance:
    if speech is None or not speech.said:
        return dataclasses.replace(utterance, span=None, said="", preempted=False)
    return dataclasses.replace(
        utterance, span=(times[speech.first], times[speech.last]), said=speech.said, preempted=bool(speech.units)
    )
