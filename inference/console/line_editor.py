"""A line being typed: bytes of a terminal in, finished lines and keys out. Knows nothing of terminals."""

from __future__ import annotations

import codecs
import unicodedata

from inference.console.intents import Intent, Order, interpret

_ESCAPE = "\x1b"
_FINAL = range(0x40, 0x7F)
"""Characters that end an escape sequence."""


class LineEditor:
    """Text with a cursor, and the lines typed before.

    Attributes:
        text: the line so far.
        cursor: characters before the cursor.
    """

    def __init__(self) -> None:
        self.text = ""
        self.cursor = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._sequence = ""
        """An escape sequence that has begun."""
        self._history: list[str] = []
        self._place = 0

    @property
    def undecided(self) -> bool:
        """Whether the last key may be Esc or the beginning of another key's sequence; `settle` decides for Esc."""
        return self._sequence == _ESCAPE

    def feed(self, data: bytes) -> list[Intent]:
        """Take what was typed; returns what it asks for, in order."""
        found: list[Intent] = []
        for character in self._decoder.decode(data):
            if self._sequence:
                found += self._continue(character)
            elif character == _ESCAPE:
                self._sequence = character
            elif character in "\r\n":
                found += self._enter()
            elif character == "\x04" and not self.text:
                found.append(Order("quit"))
            else:
                self._edit(character)
        return found

    def settle(self) -> list[Intent]:
        """No more bytes came: an escape that was pending is the key Esc."""
        if not self.undecided:
            return []
        self._sequence = ""
        return [Order("stop")]

    def _continue(self, character: str) -> list[Intent]:
        """The next character of an escape sequence."""
        if self._sequence == _ESCAPE and character == _ESCAPE:
            return [Order("stop")]  # Esc twice: the second may still begin a sequence
        self._sequence += character
        if len(self._sequence) == 2 and character in "[O":
            return []
        if len(self._sequence) > 2 and ord(character) not in _FINAL:
            return []
        sequence, self._sequence = self._sequence, ""
        self._move(sequence)
        return []

    def _enter(self) -> list[Intent]:
        line, self.text, self.cursor = self.text, "", 0
        if line.strip():
            self._history.append(line)
        self._place = len(self._history)
        intent = interpret(line)
        return [] if intent is None else [intent]

    def _edit(self, character: str) -> None:
        before, behind = self.text[: self.cursor], self.text[self.cursor :]
        if character in "\x7f\x08":
            before = before[:-1]
        elif character == "\x15":  # Ctrl-U
            before = ""
        elif character == "\x17":  # Ctrl-W
            before = before.rstrip()
            before = before[: before.rfind(" ") + 1]
        elif character == "\x0b":  # Ctrl-K
            behind = ""
        elif character in "\x01\x05":  # Ctrl-A, Ctrl-E
            self.cursor = 0 if character == "\x01" else len(self.text)
            return
        elif character == "\t" or unicodedata.category(character) != "Cc":
            before += " " if character == "\t" else character
        self.text, self.cursor = before + behind, len(before)

    def _move(self, sequence: str) -> None:
        """The keys of the cursor; other sequences are passed over."""
        match sequence[1:]:
            case "[D" | "OD":
                self.cursor = max(0, self.cursor - 1)
            case "[C" | "OC":
                self.cursor = min(len(self.text), self.cursor + 1)
            case "[H" | "OH" | "[1~":
                self.cursor = 0
            case "[F" | "OF" | "[4~":
                self.cursor = len(self.text)
            case "[3~":
                self.text = self.text[: self.cursor] + self.text[self.cursor + 1 :]
            case "[A" | "OA":
                self._recall(self._place - 1)
            case "[B" | "OB":
                self._recall(self._place + 1)

    def _recall(self, place: int) -> None:
        if not 0 <= place <= len(self._history):
            return
        self._place = place
        self.text = self._history[place] if place < len(self._history) else ""
        self.cursor = len(self.text)
