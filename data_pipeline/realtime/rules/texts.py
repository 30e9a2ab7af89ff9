"""Rules of what is written: nothing empty, no special tokens, the right script, no moment named by its number."""

from __future__ import annotations

import re
from collections.abc import Iterator

from data_pipeline.realtime.dialogue import BEHAVIOURS, Dialogue
from data_pipeline.realtime.rules.fault import CheckOptions, Fault

KINDS = ("event", "answer", "correction", "count", "alert", "not_yet", "narration")
LANGUAGES = ("en", "zh")

_SPECIAL = re.compile(r"<\|[^|<>\s]{1,40}\|>")
_NUMBER = r"(?:\d+(?:\.\d+)?|one|two|three|four|five|six|seven|eight|nine|ten|twelve|fifteen|twenty|thirty)"
_UNIT = r"(?:s|secs?|seconds?|mins?|minutes?)"
_ZH_NUMBER = r"(?:\d+(?:\.\d+)?|[一二两三四五六七八九十百零]+)"
_LEAK = re.compile(
    rf"\b(?:at|after|by|around|from|until|since|before)\s+(?:the\s+)?(?:time\s+|t\s*=\s*)?{_NUMBER}[\s-]*{_UNIT}\b"
    rf"|\b(?:at|in)\s+(?:the\s+)?(?:\d+(?:st|nd|rd|th))\s+(?:second|minute|frame)\b"
    rf"|\b{_NUMBER}[\s-]*{_UNIT}\s+(?:in|into|mark|ago|later)\b"
    rf"|\b(?:second|minute|frame|timestamp)s?\s*(?:number\s*|no\.?\s*|#\s*)?{_NUMBER}\b"
    r"|\bt\s*=\s*\d"
    r"|\btime ?stamp|\btime ?code"
    r"|(?<![\d:])\d{1,2}:\d{2}(?::\d{2})?(?:\.\d+)?(?![\d:])"
    rf"|第\s*{_ZH_NUMBER}\s*(?:秒|分钟|帧)|{_ZH_NUMBER}\s*(?:秒|分钟)\s*(?:时|处|后|前|的时候|左右|钟)|时间戳",
    re.IGNORECASE,
)
_HAN = re.compile(r"[㐀-䶿一-鿿豈-﫿]")
_LATIN = re.compile(r"[A-Za-zÀ-ɏ]+")


def leaked_time(text: str) -> str | None:
    """The words that name a moment of the video by its number, such as `at 3 seconds`, `00:05` or `第3秒`."""
    found = _LEAK.search(text)
    return found.group() if found else None


def script_of(text: str) -> str | None:
    """zh | en | other: whose letters prevail, a Latin word counting as much as a Chinese character; None without letters."""
    han, latin = len(_HAN.findall(text)), len(_LATIN.findall(text))
    other = len(re.findall(r"[^\W\d_]+", _LATIN.sub(" ", _HAN.sub(" ", text))))
    if not han + latin + other:
        return None
    if other > max(han, latin):
        return "other"
    return "zh" if han >= latin else "en"


def text_faults(dialogue: Dialogue, options: CheckOptions) -> Iterator[Fault]:
    """Faults of texts and names."""
    if dialogue.language not in LANGUAGES:
        yield Fault("name", "language", f"is {dialogue.language!r}; use one of {', '.join(LANGUAGES)}")
    for name in dialogue.behaviours:
        if name not in BEHAVIOURS:
            yield Fault("name", "behaviours", f"hold {name!r}; use one of {', '.join(BEHAVIOURS)}")
    for index, user in enumerate(dialogue.users):
        if user.behaviour and user.behaviour not in BEHAVIOURS:
            yield Fault("name", f"users[{index}]", f"has the behaviour {user.behaviour!r}; use one of {', '.join(BEHAVIOURS)}")
        yield from _text_faults(user.text, f"users[{index}]", dialogue.language, options)
    for index, utterance in enumerate(dialogue.utterances):
        if utterance.kind not in KINDS:
            yield Fault("name", f"utterances[{index}]", f"has the kind {utterance.kind!r}; use one of {', '.join(KINDS)}")
        yield from _text_faults(utterance.text, f"utterances[{index}]", dialogue.language, options)


def _text_faults(text: str, where: str, language: str, options: CheckOptions) -> Iterator[Fault]:
    if not text.strip():
        yield Fault("empty-text", where, "says nothing")
        return
    special = _SPECIAL.search(text)
    if special:
        yield Fault("special-token", where, f"holds {special.group()}")
    broken = broken_by(text, options)
    if broken:
        yield Fault("round-trip", where, broken)
    script = script_of(text)
    if language in LANGUAGES and script not in (None, language):
        yield Fault("language", where, f"is {text[:40]!r} in a dialogue in {language}")
    leak = leaked_time(text)
    if leak:
        yield Fault("timestamp-leak", where, f"says {leak!r}")


def broken_by(text: str, options: CheckOptions) -> str | None:
    """How the tokenizer breaks a text; None where it gives it back."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return f"holds half of a surrogate pair in {text[:40]!r}"
    if options.tokenizer is None:
        return None
    back = options.tokenizer.decode(options.tokenizer.encode(text))
    return None if back == text else f"comes back from the tokenizer as {back[:60]!r} instead of {text[:60]!r}"
