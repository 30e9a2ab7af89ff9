"""Rules of who answers and corrects whom."""

from __future__ import annotations

from collections.abc import Iterator

from data_pipeline.realtime.dialogue import Dialogue, Utterance
from data_pipeline.realtime.layout import NEAR
from data_pipeline.realtime.rules.fault import Fault

_STATES = ("answer", "count", "correction", "not_yet")
"""Kinds that report what holds, which is news only when it changes."""


def link_faults(dialogue: Dialogue) -> Iterator[Fault]:
    """Faults of indices, of answers and of repetitions."""
    for index, utterance in enumerate(dialogue.utterances):
        yield from _answer_faults(dialogue, utterance, f"utterances[{index}]")
        yield from _correction_faults(dialogue, index)
    answered = {u.answers for u in dialogue.utterances if u.said is None or u.said}
    for index, user in enumerate(dialogue.users):
        if user.behaviour == "direct" and index not in answered:
            yield Fault("unanswered", f"users[{index}]", f"asks {user.text[:60]!r} and nothing answers")
    yield from _repetitions(dialogue)


def _answer_faults(dialogue: Dialogue, utterance: Utterance, where: str) -> Iterator[Fault]:
    asked = utterance.answers
    if asked is None:
        return
    if not 0 <= asked < len(dialogue.users):
        yield Fault("index", where, f"answers users[{asked}], of {len(dialogue.users)}")
        return
    t = dialogue.users[asked].t
    onset = utterance.span[0] if utterance.span is not None else utterance.t
    if min(onset, utterance.t) <= t + NEAR:  # a turn at the time of a frame arrives behind that frame
        yield Fault("answer-before-question", where, f"comes at {min(onset, utterance.t):g} s, the question at {t:g} s")


def _correction_faults(dialogue: Dialogue, index: int) -> Iterator[Fault]:
    wrong = dialogue.utterances[index].corrects
    if wrong is None:
        return
    if not 0 <= wrong < len(dialogue.utterances) or wrong >= index:
        yield Fault("index", f"utterances[{index}]", f"corrects utterances[{wrong}], which does not come before it")
    elif dialogue.utterances[wrong].said == "" and dialogue.utterances[index].said:
        yield Fault("index", f"utterances[{index}]", f"corrects utterances[{wrong}], which was never said")


def _repetitions(dialogue: Dialogue) -> Iterator[Fault]:
    previous: Utterance | None = None
    for index, utterance in enumerate(dialogue.utterances):
        if utterance.said == "":
            continue
        if previous is not None and _same(previous.text, utterance.text):
            asked = any(previous.t <= user.t + NEAR and user.t < utterance.t - NEAR for user in dialogue.users)
            news = utterance.kind not in _STATES and utterance.evidence[0] > previous.evidence[1] + NEAR
            if not asked and not news:
                yield Fault("repeated", f"utterances[{index}]", f"says {utterance.text[:60]!r} again")
        previous = utterance


def _same(one: str, other: str) -> bool:
    return one.strip().casefold() == other.strip().casefold()
