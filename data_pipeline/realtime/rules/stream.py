"""Rules of the rendered stream: that it is grammatical, and says what the dialogue says, where it says so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from data_pipeline.realtime.dialogue import Dialogue
from data_pipeline.realtime.emission import CountTokens, SlotBudget
from data_pipeline.realtime.grammar import check_messages, pieces_of_messages
from data_pipeline.realtime.layout import NEAR, Slot
from data_pipeline.realtime.rules.fault import CheckOptions, Fault
from data_pipeline.realtime.rules.texts import broken_by
from data_pipeline.schema import Message
from data_pipeline.text.template import encode_turns
from model.errors import InputError


@dataclass
class Heard:
    """What a rendered stream holds behind one frame."""

    text: str = ""
    silences: int = 0


@dataclass
class Rendered:
    """A rendered stream, read back."""

    slots: list[Heard] = field(default_factory=list)
    asked: list[tuple[int, str]] = field(default_factory=list)
    """Frames before each of the user's turns, and its text."""


def read_back(messages: Sequence[Message]) -> Rendered:
    """Slots and users' turns of messages; what stands between the head of a turn and its first frame is left to the grammar."""
    stream = Rendered()
    slot: Heard | None = None
    for piece in pieces_of_messages(messages):
        if piece.kind == "user":
            stream.asked.append((len(stream.slots), piece.text))
            slot = None
        elif piece.kind == "frame":
            slot = Heard()
            stream.slots.append(slot)
        elif slot is not None and piece.kind == "text":
            slot.text += piece.text
        elif slot is not None and piece.kind == "silence":
            slot.silences += 1
    return stream


def frame_faults(dialogue: Dialogue, messages: Sequence[Message], options: CheckOptions) -> Iterator[Fault]:
    """Faults of a rendering that can be told without counting tokens: grammar, frames, users' turns and all words in order."""
    for fault in check_messages(messages):
        yield Fault("grammar", fault.where, str(fault).split(": ", 1)[1])
    stream = read_back(messages)
    if len(stream.slots) != len(dialogue.frame_times):
        yield Fault("frame-count", "the stream", f"has {len(stream.slots)} frames for {len(dialogue.frame_times)} times")
    yield from _user_faults(dialogue, stream)
    yield from _token_faults(messages, options)
    spoken, owed = "".join(slot.text for slot in stream.slots), _words(dialogue)
    if spoken != owed:
        yield Fault("words", "the stream", f"says {_differs(spoken, owed)}")


def stream_faults(
    dialogue: Dialogue, slots: Sequence[Slot], messages: Sequence[Message], count: CountTokens, options: CheckOptions
) -> Iterator[Fault]:
    """Faults of a rendering.

    Args:
        slots: of the dialogue (`layout.slots_of`).
        messages: the rendering that is checked against them.
    """
    yield from frame_faults(dialogue, messages, options)
    stream = read_back(messages)
    yield from _silence_faults(slots, stream)
    if "".join(slot.text for slot in stream.slots) == _words(dialogue):
        said = list(_owners(slots, stream))
        yield from _place_faults(dialogue, slots, said)
        yield from _budget_faults(dialogue, said, count)


def _words(dialogue: Dialogue) -> str:
    """All that is said, in the order in which it is."""
    said = [(u.span[0], u.said or "") for u in dialogue.utterances if u.span is not None]
    return "".join(text for _, text in sorted(said, key=lambda one: one[0]))


def _user_faults(dialogue: Dialogue, stream: Rendered) -> Iterator[Fault]:
    users = sorted(dialogue.users, key=lambda user: user.t)
    owed = [(0, "")] + [(sum(time <= user.t + NEAR for time in dialogue.frame_times), user.text) for user in users]
    if len(owed) != len(stream.asked):
        yield Fault("user-turn", "the stream", f"has {len(stream.asked)} turns of the user instead of {len(owed)}")
        return
    for index, (found, expected) in enumerate(zip(stream.asked, owed, strict=True)):
        if found != expected:
            text = f"is {found[1][:40]!r} behind {found[0]} frames instead of {expected[1][:40]!r} behind {expected[0]}"
            yield Fault("user-turn", f"turn {index} of the user", text)


def _token_faults(messages: Sequence[Message], options: CheckOptions) -> Iterator[Fault]:
    for index, message in enumerate(messages):
        broken = broken_by(message.content, options)
        if broken:
            yield Fault("round-trip", f"messages[{index}]", broken)
            return
    if options.tokenizer is None or options.cutoff is None:
        return
    try:
        turns = encode_turns(messages, options.tokenizer)
    except InputError:  # the grammar has told of it
        return
    tokens = sum(len(turn.source) + len(turn.target) for turn in turns)
    if tokens > options.cutoff:
        yield Fault("length", "the stream", f"has {tokens} tokens; the cutoff is {options.cutoff}")


def _silence_faults(slots: Sequence[Slot], stream: Rendered) -> Iterator[Fault]:
    for slot, heard in zip(slots, stream.slots, strict=False):
        where = f"frame {slot.frame}"
        if heard.silences > 1:
            yield Fault("one-silence", where, f"is followed by {heard.silences} silences")
        elif not heard.silences and (slot.silent or not heard.text):
            yield Fault("one-silence", where, "has no silence" + (" behind a finished text" if heard.text else " and no words"))
        elif heard.silences and heard.text and not slot.silent:
            yield Fault("preempted-silence", where, f"has silence behind {heard.text[-40:]!r}, which is not finished")


def _owners(slots: Sequence[Slot], stream: Rendered) -> Iterator[tuple[int, str, int]]:
    """Frame, text and utterance of all that is said in the stream: the words are those of the slots, maybe moved."""
    owners = [(len(slot.text), slot.utterance) for slot in slots if slot.text]
    for frame, heard in enumerate(stream.slots):
        text = heard.text
        while text:
            left, owner = owners[0]
            assert owner is not None
            part, text = text[:left], text[left:]
            yield frame, part, owner
            owners[:1] = [(left - len(part), owner)] if left > len(part) else []


def _place_faults(dialogue: Dialogue, slots: Sequence[Slot], said: Sequence[tuple[int, str, int]]) -> Iterator[Fault]:
    owed = [(slot.frame, slot.text, slot.utterance) for slot in slots if slot.text]
    wrong = next((found for found in said if found not in owed), None)
    if wrong is None:
        return
    frame, text, index = wrong
    yield Fault("span", f"frame {frame}", f"says {text[:40]!r} of utterances[{index}] where the layout does not put it")
    begun: set[int] = set()
    for frame, text, index in said:
        if index in begun or frame >= len(dialogue.frame_times):
            continue
        begun.add(index)
        time, utterance = dialogue.frame_times[frame], dialogue.utterances[index]
        if time < utterance.t - NEAR:
            yield Fault(
                "before-time", f"frame {frame}", f"says {text[:40]!r} at {time:g} s; it is right from {utterance.t:g} s on"
            )
        if time < utterance.evidence[1] - NEAR:
            known = utterance.evidence[1]
            yield Fault(
                "before-evidence", f"frame {frame}", f"says {text[:40]!r} at {time:g} s; its evidence ends at {known:g} s"
            )


def _budget_faults(dialogue: Dialogue, said: Sequence[tuple[int, str, int]], count: CountTokens) -> Iterator[Fault]:
    """The tokens of each utterance, slot by slot, against what the rate grants."""
    assert dialogue.emission_tps is not None
    spoken: dict[int, dict[int, str]] = {}
    for frame, text, index in said:
        parts = spoken.setdefault(index, {})
        parts[frame] = parts.get(frame, "") + text
    for index, parts in spoken.items():
        budget = SlotBudget(dialogue.emission_tps, dialogue.fps)
        for frame in range(min(parts), max(parts) + 1):
            text = parts.get(frame, "")
            room, tokens = budget.open_slot(), count(text) if text else 0
            if tokens > room and len(text.strip()) > 1:  # a character cannot be cut, however many tokens it takes
                yield Fault(
                    "slot-budget", f"frame {frame}", f"has {tokens} tokens of utterances[{index}]; the rate leaves {room}"
                )
            budget.close_slot(tokens, True)


def _differs(spoken: str, owed: str) -> str:
    at = next((i for i, (a, b) in enumerate(zip(spoken, owed, strict=False)) if a != b), min(len(spoken), len(owed)))
    return f"{spoken[at : at + 40]!r} where {owed[at : at + 40]!r} has to stand (character {at} of the words)"
