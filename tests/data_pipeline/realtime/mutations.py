"""Seeded faults: ways to break a sound dialogue or its rendering, and the rule that has to catch each."""

from __future__ import annotations

import dataclasses
import itertools
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from data_pipeline.realtime.dialogue import Dialogue
from data_pipeline.realtime.layout import lay_out
from data_pipeline.realtime.render import to_messages
from data_pipeline.realtime.rules import CheckOptions, check_dialogue
from data_pipeline.schema import Message
from tests.data_pipeline.realtime.dialogues import count, sound_dialogue, tokenizer

F, S = "<|video|>", "<|silence|>"


class Unsuited(Exception):
    """A dialogue has no place for this fault."""


@dataclass
class Case:
    """A dialogue with its rendering, to be broken."""

    dialogue: Dialogue
    messages: list[Message]
    rng: random.Random
    cutoff: int | None = None

    def pick(self, found: Sequence[Any]) -> Any:
        if not found:
            raise Unsuited
        return self.rng.choice(found)

    def change(self, **values: Any) -> None:
        """Other fields of the dialogue."""
        self.dialogue = dataclasses.replace(self.dialogue, **values)

    def utter(self, index: int, **values: Any) -> None:
        """Other fields of an utterance."""
        utterances = list(self.dialogue.utterances)
        utterances[index] = dataclasses.replace(utterances[index], **values)
        self.change(utterances=tuple(utterances))

    def ask(self, index: int, **values: Any) -> None:
        users = list(self.dialogue.users)
        users[index] = dataclasses.replace(users[index], **values)
        self.change(users=tuple(users))

    def said(self) -> list[int]:
        return [index for index, one in enumerate(self.dialogue.utterances) if one.said]

    def again(self) -> None:
        """Lay out and render what was changed."""
        assert self.dialogue.emission_tps is not None
        self.dialogue = lay_out(self.dialogue, count(), self.dialogue.emission_tps)
        self.render()

    def render(self) -> None:
        self.messages = to_messages(self.dialogue, count())

    def sub(self, pattern: str, by: str | Callable[[re.Match[str]], str]) -> None:
        """Change one place of the assistant's turns that fits a pattern."""
        places = [
            (index, found)
            for index, message in enumerate(self.messages)
            if message.role == "assistant"
            for found in re.finditer(pattern, message.content)
        ]
        index, found = self.pick(places)
        content = self.messages[index].content
        new = by(found) if callable(by) else found.expand(by)
        self.messages[index] = Message(role="assistant", content=content[: found.start()] + new + content[found.end() :])


def frame_missing(case: Case) -> None:
    case.sub(re.escape(F + S), "")


def frame_twice(case: Case) -> None:
    case.sub(re.escape(F + S), F + S + F + S)


def times_swapped(case: Case) -> None:
    times = list(case.dialogue.frame_times)
    at = case.rng.randrange(len(times) - 1)
    times[at], times[at + 1] = times[at + 1], times[at]
    case.change(frame_times=tuple(times))


def time_twice(case: Case) -> None:
    times = list(case.dialogue.frame_times)
    at = case.rng.randrange(len(times) - 1)
    times[at] = times[at + 1]
    case.change(frame_times=tuple(times))


def utterances_out_of_order(case: Case) -> None:
    all_ = case.dialogue.utterances
    at = case.pick([i for i in range(len(all_) - 1) if all_[i].t < all_[i + 1].t])
    case.change(utterances=(*all_[:at], all_[at + 1], all_[at], *all_[at + 2 :]))


def between_frames(case: Case) -> None:
    at = case.pick(range(len(case.dialogue.utterances)))
    case.utter(at, t=case.dialogue.utterances[at].t + 0.3 / case.dialogue.fps)


def evidence_ahead(case: Case) -> None:
    at = case.pick(range(len(case.dialogue.utterances)))
    one = case.dialogue.utterances[at]
    case.utter(at, evidence=(one.evidence[0], one.t + 1.0))


def evidence_backwards(case: Case) -> None:
    at = case.pick(range(len(case.dialogue.utterances)))
    case.utter(at, evidence=(case.dialogue.utterances[at].t, case.dialogue.utterances[at].t - 0.2))


def known_too_late(case: Case) -> None:
    """The moment of an utterance is corrected to a later one, but not its layout."""
    at = case.pick(case.said())
    one = case.dialogue.utterances[at]
    later = [t for t in case.dialogue.frame_times if one.span and t > one.span[0]]
    moment = case.pick(later[:1])
    case.utter(at, evidence=(one.evidence[0], moment), t=moment)


def said_before_its_time(case: Case) -> None:
    at = case.pick(case.said())
    one = case.dialogue.utterances[at]
    moment = case.pick([t for t in case.dialogue.frame_times if one.span and t > one.span[0]][:1])
    case.utter(at, t=moment)


def words_moved_to_an_earlier_slot(case: Case) -> None:
    """The whole utterance of one slot is said a frame earlier in the rendering alone."""
    places = {one.span[0] for one in case.dialogue.utterances if one.span and one.span[0] == one.t == one.evidence[1]}
    frames = [case.dialogue.frame_times.index(t) for t in places if t > 0]
    turns = [m.content for m in case.messages if m.role == "assistant"]
    before = 0
    for number, content in enumerate(turns):
        slots = content.split(F)
        for at in range(2, len(slots)):
            frame = before + at - 1
            if frame in frames and slots[at - 1] == S and slots[at].endswith(S) and slots[at] != S:
                slots[at - 1], slots[at] = slots[at], S
                index = [i for i, m in enumerate(case.messages) if m.role == "assistant"][number]
                case.messages[index] = Message(role="assistant", content=F.join(slots))
                return
        before += len(slots) - 1
    raise Unsuited


def no_silence(case: Case) -> None:
    case.sub(re.escape(F + S), F)


def silence_twice(case: Case) -> None:
    case.sub(re.escape(F + S), F + S + S)


def end_without_silence(case: Case) -> None:
    case.sub(r"(?<=[^>])" + re.escape(S), "")


def silence_behind_what_is_cut_off(case: Case) -> None:
    case.sub(r"(?<=[^>])\Z", S)


def silence_in_the_middle(case: Case) -> None:
    case.sub(r"(?<=[^>])" + re.escape(F), S + F)


def slots_joined(case: Case) -> None:
    """In English, where no token spans two words: two Chinese slots can hold fewer tokens as one."""
    if case.dialogue.language == "zh" or any(one.replaces_running for one in case.dialogue.utterances):
        raise Unsuited
    case.sub(r"(?<=[^>])" + re.escape(F) + r"([^<]+)", lambda found: found.group(1) + F + S)


def rate_lowered(case: Case) -> None:
    if not any(len(one.said or "") > 8 for one in case.dialogue.utterances):
        raise Unsuited
    case.change(emission_tps=min(0.3, (case.dialogue.emission_tps or 1.0) / 8))


def word_changed(case: Case) -> None:
    case.sub(r"(?<=>)[^<>]+", "zebra")


def words_lost(case: Case) -> None:
    case.sub(r"(?<=" + re.escape(F) + r")[^<>]+", S)


def user_moved(case: Case) -> None:
    """The user comes a frame later."""
    turns = [i for i, m in enumerate(case.messages) if m.role == "assistant"]
    at = case.pick([i for i in turns[:-1] if F in case.messages[i + 2].content])
    first = case.messages[at + 2].content.split(F, 2)
    rest = F + first[2] if len(first) > 2 else ""
    case.messages[at] = Message(role="assistant", content=case.messages[at].content + F + first[1])
    case.messages[at + 2] = Message(role="assistant", content=first[0] + rest)


def user_reworded(case: Case) -> None:
    at = case.pick([i for i, m in enumerate(case.messages) if m.role == "user"])
    case.messages[at] = Message(role="user", content=case.messages[at].content + " please")


def user_lost(case: Case) -> None:
    at = case.pick([i for i, m in enumerate(case.messages) if m.role == "user"][1:])
    joined = case.messages[at - 1].content + case.messages[at + 1].content.removeprefix(S)
    case.messages[at - 1 : at + 2] = [Message(role="assistant", content=joined)]


def _text(case: Case, change: Callable[[str], str]) -> None:
    at = case.pick(case.said())
    case.utter(at, text=change(case.dialogue.utterances[at].text))
    case.again()


def special_token(case: Case) -> None:
    name = case.pick(["<|silence|>", "<|video|>", "<|eot_id|>", "<|image|>", "<|...|>"])
    _text(case, lambda text: f"{text} {name}")


def half_a_surrogate(case: Case) -> None:
    at = case.pick(case.said())
    one = case.dialogue.utterances[at]
    case.utter(at, text=one.text + "\ud800", said=one.text + "\ud800" if not one.preempted else one.said)


def too_long(case: Case) -> None:
    case.cutoff = len(case.dialogue.frame_times) * 2


def other_language(case: Case) -> None:
    _text(case, lambda _: "一个人走进了房间。" if case.dialogue.language == "en" else "A person walks into the room.")


def names_a_second(case: Case) -> None:
    leaks = {
        "en": (
            "at 3 seconds, {}",
            "{} at second 12",
            "00:05 {}",
            "{} after two seconds",
            "in frame 7, {}",
            "{} at t=4",
            "4 s in, {}",
        ),
        "zh": ("在第3秒，{}", "{}，时间00:05", "第十二秒{}", "5秒后，{}", "{}，第 7 帧"),
    }
    form = case.pick(leaks[case.dialogue.language])
    _text(case, form.format)


def empty_text(case: Case) -> None:
    _text(case, lambda _: case.rng.choice(("", " ", "\n")))


def answers_nobody(case: Case) -> None:
    case.utter(case.pick(case.said()), answers=len(case.dialogue.users) + case.rng.randrange(3))


def corrects_what_comes_later(case: Case) -> None:
    at = case.pick(range(len(case.dialogue.utterances)))
    case.utter(at, corrects=at + case.rng.randrange(3))


def corrects_what_was_never_said(case: Case) -> None:
    unsaid = [index for index, one in enumerate(case.dialogue.utterances) if one.said == ""]
    pairs = [(a, b) for a in unsaid for b in case.said() if a < b]
    wrong, at = case.pick(pairs)
    case.utter(at, corrects=wrong)


def answer_first(case: Case) -> None:
    at = case.pick([i for i, one in enumerate(case.dialogue.utterances) if one.answers is not None and one.said])
    one = case.dialogue.utterances[at]
    assert one.answers is not None
    case.ask(one.answers, t=one.t + 0.5 / case.dialogue.fps)


def nobody_answers(case: Case) -> None:
    at = case.pick([i for i, one in enumerate(case.dialogue.utterances) if one.answers is not None])
    case.utter(at, answers=None)


def said_twice(case: Case) -> None:
    said = case.said()
    pairs = [
        (a, b)
        for a, b in itertools.pairwise(said)
        if not any(case.dialogue.utterances[a].t <= user.t <= case.dialogue.utterances[b].t for user in case.dialogue.users)
    ]
    first, second = case.pick(pairs)
    one = case.dialogue.utterances[first]
    case.utter(second, text=one.text, kind="count")
    case.again()
    if not (case.dialogue.utterances[first].said and case.dialogue.utterances[second].said):
        raise Unsuited


def too_late(case: Case) -> None:
    at = case.pick([i for i in case.said() if case.dialogue.utterances[i].t > 0 and not case.dialogue.utterances[i].answers])
    earlier = case.pick([t for t in case.dialogue.frame_times if t < case.dialogue.utterances[at].t])
    case.utter(at, t=earlier, evidence=(0.0, earlier), tolerance=0.0, answers=None)


def said_something_else(case: Case) -> None:
    at = case.pick(case.said())
    case.utter(at, said="Indeed " + (case.dialogue.utterances[at].said or ""))


def cut_off_by_no_means(case: Case) -> None:
    at = case.pick(case.said())
    case.utter(at, preempted=not case.dialogue.utterances[at].preempted)


def two_at_once(case: Case) -> None:
    said = case.said()
    if len(said) < 2:
        raise Unsuited
    case.utter(said[1], span=case.dialogue.utterances[said[0]].span)


def span_too_long(case: Case) -> None:
    at = case.pick(case.said())
    one = case.dialogue.utterances[at]
    taken = [other.span[0] for other in case.dialogue.utterances if other.span and one.span and other.span[0] > one.span[1]]
    limit = min(taken, default=1e9)
    later = [t for t in case.dialogue.frame_times if one.span and one.span[1] < t < limit]
    case.utter(at, span=(one.span[0] if one.span else 0.0, case.pick(later)))


def no_rate(case: Case) -> None:
    case.change(emission_tps=None)


def never_laid_out(case: Case) -> None:
    case.utter(case.pick(case.said()), said=None, span=None)


def unknown_behaviour(case: Case) -> None:
    case.change(behaviours=(*case.dialogue.behaviours, "sing"))


def unknown_kind(case: Case) -> None:
    case.utter(case.pick(case.said()), kind="song")


def turn_begins_with_a_frame(case: Case) -> None:
    case.sub(r"\A" + re.escape(S) + "(?=" + re.escape(F) + ")", "")


def words_behind_silence(case: Case) -> None:
    case.sub(re.escape(F + S), F + S + "well")


def turn_closed_inside(case: Case) -> None:
    case.sub(re.escape(F + S), F + S + "<|eot_id|>")


def roles_swapped(case: Case) -> None:
    case.messages = [m for m in case.messages if m.role != "user"]


KINDS: dict[Callable[[Case], None], str] = {
    frame_missing: "frame-count",
    frame_twice: "frame-count",
    times_swapped: "frame-order",
    time_twice: "frame-order",
    utterances_out_of_order: "turn-order",
    between_frames: "off-grid",
    evidence_ahead: "evidence-order",
    evidence_backwards: "evidence-order",
    known_too_late: "before-evidence",
    said_before_its_time: "before-time",
    words_moved_to_an_earlier_slot: "before-evidence",
    no_silence: "one-silence",
    silence_twice: "one-silence",
    end_without_silence: "one-silence",
    silence_behind_what_is_cut_off: "preempted-silence",
    silence_in_the_middle: "preempted-silence",
    slots_joined: "slot-budget",
    rate_lowered: "span",
    span_too_long: "span",
    word_changed: "words",
    words_lost: "words",
    user_moved: "user-turn",
    user_reworded: "user-turn",
    user_lost: "user-turn",
    special_token: "special-token",
    half_a_surrogate: "round-trip",
    too_long: "length",
    other_language: "language",
    names_a_second: "timestamp-leak",
    empty_text: "empty-text",
    answers_nobody: "index",
    corrects_what_comes_later: "index",
    corrects_what_was_never_said: "index",
    answer_first: "answer-before-question",
    nobody_answers: "unanswered",
    said_twice: "repeated",
    too_late: "late",
    said_something_else: "said",
    cut_off_by_no_means: "said",
    two_at_once: "overlap",
    no_rate: "not-laid-out",
    never_laid_out: "not-laid-out",
    unknown_behaviour: "name",
    unknown_kind: "name",
    turn_begins_with_a_frame: "grammar",
    words_behind_silence: "grammar",
    turn_closed_inside: "grammar",
    roles_swapped: "grammar",
}
"""Fault -> rule."""


def caught(kind: Callable[[Case], None], seed: int) -> set[str] | None:
    """Rules that a seeded fault breaks; None where the dialogue of this seed has no place for it."""
    dialogue = sound_dialogue(seed)
    case = Case(dialogue, to_messages(dialogue, count()), random.Random(seed))
    try:
        kind(case)
    except Unsuited:
        return None
    options = CheckOptions(tokenizer=tokenizer(), cutoff=case.cutoff)
    return {fault.rule for fault in check_dialogue(case.dialogue, count(), options, case.messages)}


def count_caught(kind: Callable[[Case], None], seeded: int, limit: int = 5000) -> tuple[int, int]:
    """How many of `seeded` faults of one kind its rule catches, and how many dialogues had a place for it."""
    found = (caught(kind, seed) for seed in range(limit))
    rules = [one for _, one in zip(range(seeded), (one for one in found if one is not None), strict=False)]
    return sum(KINDS[kind] in one for one in rules), len(rules)


def table(seeded: int) -> str:
    """The table of docs/realtime-dialogues.md, as Markdown."""
    rows = ["| fault | rule | caught |", "|---|---|---|"]
    for kind, rule in KINDS.items():
        found, made = count_caught(kind, seeded)
        rows.append(f"| {kind.__name__.replace('_', ' ')} | `{rule}` | {found}/{made} |")
    return "\n".join(rows)
