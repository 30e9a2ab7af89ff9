"""The grammar of a real-time stream, as an automaton over its pieces: silence, frames, text, closing tokens, users' turns.

    start     --user-->     opened
    opened    --silence-->  quiet     --text--> speaking (lenient)     --frame--> frame (lenient)     --end--> ended (lenient)
    quiet     --frame-->    frame     --end-->  ended
    frame     --silence-->  quiet     --text--> speaking
    speaking  --silence-->  quiet     --frame--> frame                 --end--> ended
    ended     --user-->     opened    --finish--> (accepted)

So a frame is answered by silence or by words, one silence at a time, and words go on across frames until a silence or the end
of the turn. The strict profile is what this package renders. The lenient one takes what the reference's corpora and their
loader hold besides: a turn that begins with words, with a frame, or is empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from data_pipeline.schema import Message
from data_pipeline.text.tokenizer import END_OF_MESSAGE, END_OF_TEXT, END_OF_TURN, IMAGE, SILENCE, VIDEO, Tokenizer

START, OPENED, QUIET, FRAME, SPEAKING, ENDED = STATES = ("start", "opened", "quiet", "frame", "speaking", "ended")
PIECES = ("user", "silence", "frame", "text", "end", "finish", "special")
"""What the automaton reads. `finish` stands behind everything; `special` is any other special token."""

_STRICT = {
    (START, "user"): OPENED,
    (OPENED, "silence"): QUIET,
    (QUIET, "frame"): FRAME,
    (QUIET, "end"): ENDED,
    (FRAME, "silence"): QUIET,
    (FRAME, "text"): SPEAKING,
    (SPEAKING, "text"): SPEAKING,
    (SPEAKING, "silence"): QUIET,
    (SPEAKING, "frame"): FRAME,
    (SPEAKING, "end"): ENDED,
    (ENDED, "user"): OPENED,
    (ENDED, "finish"): ENDED,
}
_LENIENT = {
    **_STRICT,
    (OPENED, "text"): SPEAKING,
    (OPENED, "frame"): FRAME,
    (OPENED, "end"): ENDED,
}
TRANSITIONS = {"strict": _STRICT, "lenient": _LENIENT}
"""(state, piece) -> next state, by profile. What is not listed is a fault."""
_MARKERS = re.compile(r"<\|[^|<>\s]{1,40}\|>")


@dataclass(frozen=True)
class Piece:
    """One thing that a stream holds."""

    kind: str
    """One of `PIECES`."""
    where: str
    """Such as `messages[2] character 40`, or `token 17`."""
    text: str = ""


@dataclass(frozen=True)
class StreamFault:
    """Where the automaton could not go on."""

    where: str
    state: str
    found: str
    """Kind of the piece, and what it says."""
    expected: tuple[str, ...]

    def __str__(self) -> str:
        after = {"opened": "the head of a turn", "start": "the beginning", "quiet": "silence", "ended": "the end of a turn"}
        behind = after.get(self.state, {"frame": "a frame", "speaking": "words"}.get(self.state, self.state))
        return f"{self.where}: {self.found} behind {behind}; expected {' or '.join(self.expected)}"


class StreamGrammar:
    """Reads pieces one by one and reports each that has no place; goes on behind a fault as if it had been in place.

    Args:
        profile: strict | lenient.
    """

    def __init__(self, profile: str = "strict") -> None:
        self._next = TRANSITIONS[profile]
        self.state = START

    def expected(self) -> tuple[str, ...]:
        """Kinds of pieces that may come now."""
        return tuple(piece for state, piece in self._next if state == self.state)

    def read(self, piece: Piece) -> StreamFault | None:
        """Take one piece; the fault if it has no place here."""
        following = self._next.get((self.state, piece.kind))
        if following is not None:
            self.state = following
            return None
        shown = f" {piece.text[:30]!r}" if piece.kind in ("text", "special") else ""
        fault = StreamFault(piece.where, self.state, piece.kind + shown, self.expected())
        self.state = _AFTER.get(piece.kind, self.state)
        return fault


_AFTER = {"user": OPENED, "silence": QUIET, "frame": FRAME, "text": SPEAKING, "end": ENDED}


def read_stream(pieces: Iterator[Piece], profile: str = "strict") -> list[StreamFault]:
    """All faults of a stream."""
    grammar = StreamGrammar(profile)
    return [fault for fault in map(grammar.read, pieces) if fault is not None]


def check_messages(messages: Sequence[Message], profile: str = "strict") -> list[StreamFault]:
    """All faults of rendered messages."""
    return read_stream(pieces_of_messages(messages), profile)


def pieces_of_messages(messages: Sequence[Message]) -> Iterator[Piece]:
    """Pieces of the text of messages: every turn of the assistant is ended, a system message is skipped."""
    for index, message in enumerate(messages):
        if message.role == "user":
            yield Piece("user", f"messages[{index}]", message.content)
        elif message.role == "assistant":
            yield from _pieces_of_text(message.content, f"messages[{index}]")
            yield Piece("end", f"messages[{index}] end")
    yield Piece("finish", "end of the dialogue")


def pieces_of_tokens(ids: Sequence[int], tokenizer: Tokenizer) -> Iterator[Piece]:
    """Pieces of a dialogue as tokens (`text.template.encode_turns`): what stands between a header and its end is read by role.

    Args:
        ids: a whole dialogue with one `<|video|>` or `<|image|>` marker a frame.
    """
    kinds = {tokenizer.silence_id: "silence", tokenizer.video_id: "frame", tokenizer.image_id: "frame"}
    kinds |= dict.fromkeys((tokenizer.eot_id, tokenizer.eom_id, tokenizer.eos_text_id), "end")
    special = {i for i in tokenizer.raw.get_added_tokens_decoder() if i not in kinds}
    role, header = "", False
    heard: list[int] = []
    for position, token in enumerate(ids):
        where = f"token {position}"
        if token == tokenizer.start_header_id:
            header, heard = True, []
        elif header:
            if token == tokenizer.end_header_id:
                header, role, heard = False, tokenizer.decode(heard), []
            else:
                heard.append(token)
        elif role != "assistant":
            if kinds.get(token) == "end":
                if role == "user":
                    yield Piece("user", where, tokenizer.decode(heard).strip("\n"))
                role = ""
            heard.append(token)
        elif token in kinds:
            role = "" if kinds[token] == "end" else role
            heard.append(token)
            yield Piece(kinds[token], where)
        elif token in special:
            yield Piece("special", where, tokenizer.decode([token]))
        else:
            text = tokenizer.decode([token])
            if heard or text.strip("\n"):  # not the empty line behind the header
                heard.append(token)
                yield Piece("text", where, text)
    if role == "assistant":
        yield Piece("end", "end of the tokens")
    yield Piece("finish", "end of the dialogue")


def _pieces_of_text(content: str, where: str) -> Iterator[Piece]:
    kinds = {SILENCE: "silence", VIDEO: "frame", IMAGE: "frame"}
    kinds |= dict.fromkeys((END_OF_TURN, END_OF_MESSAGE, END_OF_TEXT), "end")
    position = 0
    for found in _MARKERS.finditer(content):
        if found.start() > position:
            yield Piece("text", f"{where} character {position}", content[position : found.start()])
        kind = kinds.get(found.group(), "special")
        yield Piece(kind, f"{where} character {found.start()}", found.group())
        position = found.end()
    if position < len(content):
        yield Piece("text", f"{where} character {position}", content[position:])
