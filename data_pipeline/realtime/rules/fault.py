"""Names of all hard rules, what breaks them, and how strictly they are applied."""

from __future__ import annotations

from dataclasses import dataclass

from data_pipeline.text.tokenizer import Tokenizer

RULES = {
    "frame-order": "times of frames are not rising numbers from 0 on",
    "turn-order": "turns are not in order of time, or their time is no number",
    "off-grid": "an utterance's time or span is no time of a frame",
    "name": "a behaviour, kind or language has an unknown name",
    "empty-text": "a turn says nothing",
    "special-token": "text holds the name of a special token",
    "round-trip": "the tokenizer does not give back the text",
    "language": "text is written in another script than the dialogue's language",
    "timestamp-leak": "text names a second, a time code or the number of a frame",
    "index": "answers or corrects points to a turn that is not there, that comes later, or that was never said",
    "evidence-order": "evidence ends before it begins, or after the moment at which the utterance may be said",
    "answer-before-question": "an answer comes before its question",
    "unanswered": "a direct question gets no answer",
    "repeated": "the same is said twice on end though nobody asked again and nothing new happened",
    "not-laid-out": "there is no rate, or an utterance without a layout",
    "said": "what was said is not the beginning of the text, or does not fit span and preempted",
    "overlap": "two utterances are said in one slot",
    "before-time": "a word is said before the moment at which its utterance is right",
    "before-evidence": "a word is said before the evidence for it is there",
    "late": "an utterance begins later than its tolerance allows",
    "grammar": "the rendered stream breaks the grammar of silence, frames, text and turns",
    "frame-count": "the rendered stream has another number of frames than there are times",
    "user-turn": "the user's turns are not rendered where and as they are",
    "words": "the rendered words are not what was said",
    "span": "the rendered words stand in other slots than the span says",
    "one-silence": "a slot in which nothing is said has no silence, a finished text none, or a slot more than one",
    "preempted-silence": "the slot in which an utterance is cut off, or goes on into the next one, ends with silence",
    "slot-budget": "a slot holds more tokens than the rate allows",
    "length": "the dialogue is longer than the cutoff",
}
"""Name -> what breaks it."""


@dataclass(frozen=True)
class Fault:
    """One broken rule in one place."""

    rule: str
    """A key of `RULES`."""
    where: str
    """Such as `utterances[3]` or `frame 7`."""
    text: str
    """What was found."""

    def __str__(self) -> str:
        return f"{self.rule}: {self.where} {self.text}"


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """What depends on the use of a corpus."""

    tokenizer: Tokenizer | None = None
    """For the round trip and the length; None leaves both out."""
    cutoff: int | None = None
    """Tokens of a whole dialogue, a frame counting as one; None leaves the rule out."""
    max_wait: float = 0.0
    """Seconds that an utterance may wait for another one beyond its own tolerance."""
