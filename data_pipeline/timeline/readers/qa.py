"""Questions about whole videos with their answers and, where they are annotated, the stretches that show them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_pipeline.timeline.readers.options import ReadOptions
from data_pipeline.timeline.readers.row import Row
from data_pipeline.timeline.readers.sources import gathered
from data_pipeline.timeline.readers.videos import read_videos
from data_pipeline.timeline.timeline import GivenQuestion, Timeline
from model.errors import InputError

LISTS = ("questions", "qas", "qa", "qa_pairs", "qa_list")
QUESTION = ("question", "q", "query", "problem", "text")
ANSWER = (
    "answer",
    "a",
    "answers",
    "ground_truth",
    "gt",
    "response",
    "correct_answer",
    "answer_idx",
    "correct_idx",
    "correct_choice",
)
CHOICES = ("choices", "options", "candidates", "candidate_answers")
EVIDENCE = (
    "evidence",
    "evidence_span",
    "relevant_windows",
    "clue_intervals",
    "grounding",
    "time_reference",
    "segment",
    "span",
    "interval",
    "window",
    "timestamps",
    "time_stamp",
    "timestamp",
)
_LETTER = re.compile(r"\(?([A-Z])[).:]?")
_RANGE = re.compile(r"\s*[\[(]?\s*([\d:.,]+)\s*s?\s*(?:-|–|~|to|,)\s*([\d:.]+)\s*s?\s*[\])]?\s*")


def read_qa(path: Path, options: ReadOptions) -> Iterator[Timeline]:
    """Timelines that hold questions alone."""
    return read_videos(path, options, LISTS, lambda row: ([], _questions(row, options)))


def _questions(row: Row, options: ReadOptions) -> list[GivenQuestion]:
    rows = gathered(row)
    if rows is None:
        rows = [item for name in LISTS for item in row.rows((name,)) or []]
    found = []
    for item in rows:
        try:
            found.append(_question(item))
        except InputError as error:
            options.fault(error)
    return found


def _question(row: Row) -> GivenQuestion:
    choices = _choices(row)
    return GivenQuestion(
        text=row.text(QUESTION, needed=True),
        answer=_answer(row, choices),
        evidence=_evidence(row),
        kind=row.text(("kind", "question_type", "type", "task_type", "task", "category")) or ("choice" if choices else "free"),
        choices=tuple(choices.values()),
    )


def _choices(row: Row) -> dict[str, str]:
    """Letter -> text: of a list, of an object, or of columns a0, a1, ... or option_a, ..."""
    given = row.get(CHOICES)
    if isinstance(given, dict):
        return {str(k).strip().upper(): str(v).strip() for k, v in given.items()}
    if isinstance(given, list):
        texts = [_LETTER_AHEAD.sub("", str(v)).strip() for v in given]
    elif given is not None:
        raise row.error(row.name(CHOICES) or "choices", given, "it must be a list of texts")
    else:
        names = [(f"a{n}", f"option_{chr(97 + n)}", f"option{n}", f"option_{n}") for n in range(10)]
        texts = [t for t in (row.text(n) for n in names) if t]
    return {chr(65 + n): text for n, text in enumerate(texts)}


_LETTER_AHEAD = re.compile(r"^\s*\(?[A-Z][).:]\s+")


def _answer(row: Row, choices: dict[str, str]) -> str:
    """The answer's text; a number or letter names one of the choices."""
    name = row.name(ANSWER)
    if name is None:
        raise row.lacks(ANSWER)
    value: Any = row.values[name]
    if isinstance(value, list) and value:
        value = value[0]
    if choices and not isinstance(value, bool):
        texts = list(choices.values())
        if str(value).strip() in texts:
            return str(value).strip()
        if isinstance(value, int) or (isinstance(value, str) and value.strip().isdigit()):
            if 0 <= int(value) < len(texts):
                return texts[int(value)]
            raise row.error(name, value, f"it must be one of the {len(texts)} choices, counted from 0")
        letter = _LETTER.fullmatch(str(value).strip())
        if letter:
            if letter[1] in choices:
                return choices[letter[1]]
            raise row.error(name, value, f"it must be one of the choices {', '.join(choices)}")
    if not isinstance(value, str | int | float) or isinstance(value, bool) or not str(value).strip():
        raise row.error(name, value, "it must be a text")
    return _LETTER_AHEAD.sub("", str(value)).strip() if choices else str(value).strip()


def _evidence(row: Row) -> tuple[float, float] | None:
    """From the first second of any stretch to the last; a single time is a stretch without length."""
    name = row.name(EVIDENCE)
    if name is None:
        span = row.span(needed=False)
        return None if span is None else (span[0], span[0] if span[1] is None else span[1])
    value = row.values[name]
    if isinstance(value, dict):
        span = Row(value, f"{row.where} {name}").span()
        assert span is not None  # it is needed, so that its absence is an error
        return span[0], span[0] if span[1] is None else span[1]
    if isinstance(value, str) and (match := _RANGE.fullmatch(value)):
        value = [match[1].rstrip(","), match[2]]
    if not isinstance(value, list):
        t = row.time(value, name)
        return t, t
    if not value:
        return None
    pairs = [row.pair(p, name) for p in value] if all(isinstance(p, list) for p in value) else [row.pair(value, name)]
    return min(p[0] for p in pairs), max(p[0] if p[1] is None else p[1] for p in pairs)
