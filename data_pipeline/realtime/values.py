"""Dialogues as plain JSON values and back: one line of a corpus, its turns in order of time."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from data_pipeline.realtime.dialogue import Dialogue, UserTurn, Utterance
from model.errors import InputError

_ROW = (
    "id", "source", "fps", "frame_timestamps", "language", "system", "behaviours", "turns", "emission_tps", "timeline", "gen",
    "quality", "meta",
)  # fmt: skip
_SOURCE = ("video", "name", "license", "split_key")
_USER = ("role", "t", "text", "kind")
_ASSISTANT = (
    "role", "t", "text", "kind", "evidence", "answers", "corrects", "tolerance", "replaces_running", "span", "said", "preempted",
)  # fmt: skip


def dialogue_to_dict(dialogue: Dialogue) -> dict[str, Any]:
    """JSON values; turns of both sides in one list, by time; fields that say nothing are left out.

    A user's turn is {role, t, text, kind: its behaviour}; one of the assistant {role, t, text, kind, evidence} and, where
    they differ from the default, {answers, corrects, tolerance, replaces_running, span, said, preempted}. `answers` counts the
    user's turns alone, `corrects` the assistant's alone, both from 0.
    """
    source = {"video": dialogue.video, "name": dialogue.source, "license": dialogue.license, "split_key": dialogue.split_key}
    row = {
        "id": dialogue.id,
        "source": {name: value for name, value in source.items() if value},
        "fps": dialogue.fps,
        "frame_timestamps": list(dialogue.frame_times),
        "language": dialogue.language,
        "system": dialogue.system,
        "behaviours": list(dialogue.behaviours),
        "turns": _turns(dialogue),
        "emission_tps": dialogue.emission_tps,
        "timeline": dialogue.timeline,
        "gen": dialogue.generator,
        "quality": dialogue.quality,
        "meta": dialogue.meta,
    }
    kept = ("id", "fps", "frame_timestamps", "language", "turns")
    return {name: value for name, value in row.items() if name in kept or value not in ("", [], {}, None)}


def dialogue_from_dict(values: Any, where: str = "dialogue") -> Dialogue:
    """Build a dialogue and check names and types of all fields (`rules` checks what they say).

    Args:
        where: what messages call it, such as `rows.jsonl line 7`.

    Raises:
        InputError: naming the field, its value and what is allowed.
    """
    values = _object(values, where, _ROW, ("id", "fps", "frame_timestamps", "turns"))
    source = _object(values.get("source", {}), f"{where} field source", _SOURCE, ())
    times = values["frame_timestamps"]
    if not isinstance(times, list):
        raise InputError(f"{where} field frame_timestamps is {times!r}; it must be a list of seconds")
    turns = values["turns"]
    if not isinstance(turns, list):
        raise InputError(f"{where} field turns is {turns!r}; it must be a list of objects")
    users: list[UserTurn] = []
    utterances: list[Utterance] = []
    for index, turn in enumerate(turns):
        at = f"{where} turns[{index}]"
        role = turn.get("role") if isinstance(turn, Mapping) else None
        if role == "user":
            users.append(_user(turn, at))
        elif role == "assistant":
            utterances.append(_utterance(turn, at))
        else:
            raise InputError(f"{at}.role is {role!r}; it must be user or assistant")
    fps = _number(values["fps"], f"{where} field fps")
    if fps <= 0:
        raise InputError(f"{where} field fps is {fps:g}; it must be above 0")
    tps = values.get("emission_tps")
    if tps is not None and _number(tps, f"{where} field emission_tps") <= 0:
        raise InputError(f"{where} field emission_tps is {tps:g}; it must be above 0, or null")
    return Dialogue(
        id=_text(values["id"], f"{where} field id"),
        frame_times=tuple(_number(t, f"{where} field frame_timestamps[{i}]") for i, t in enumerate(times)),
        fps=fps,
        users=tuple(users),
        utterances=tuple(utterances),
        emission_tps=None if tps is None else float(tps),
        behaviours=tuple(_texts(values.get("behaviours", []), f"{where} field behaviours")),
        language=_text(values.get("language", "en"), f"{where} field language"),
        system=_text(values.get("system", ""), f"{where} field system"),
        video=_text(source.get("video", ""), f"{where} field source.video"),
        source=_text(source.get("name", ""), f"{where} field source.name"),
        license=_text(source.get("license", ""), f"{where} field source.license"),
        split_key=_text(source.get("split_key", ""), f"{where} field source.split_key"),
        timeline=_text(values.get("timeline", ""), f"{where} field timeline"),
        **{
            name: dict(_object(values.get(key, {}), f"{where} field {key}", None, ()))
            for name, key in (("generator", "gen"), ("quality", "quality"), ("meta", "meta"))
        },
    )


def read_dialogues(path: str | os.PathLike[str]) -> Iterator[Dialogue]:
    """Dialogues of a file of JSON lines, one after the other.

    Raises:
        InputError: naming the file, the line and the field.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"file of dialogues {file} does not exist")
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{file} line {number} is not JSON ({error}); write one dialogue a line") from None
            yield dialogue_from_dict(values, f"{file} line {number}")


def write_dialogues(path: str | os.PathLike[str], dialogues: Iterable[Dialogue]) -> int:
    """Write JSON lines under a temporary name, then rename; returns how many."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    count = 0
    try:
        with temporary.open("w", encoding="utf-8") as out:
            for dialogue in dialogues:
                out.write(json.dumps(dialogue_to_dict(dialogue), ensure_ascii=False, allow_nan=False) + "\n")
                count += 1
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def _turns(dialogue: Dialogue) -> list[dict[str, Any]]:
    """A merge by time that keeps the order of each side."""
    merged: list[dict[str, Any]] = []
    users = list(dialogue.users)
    for utterance in dialogue.utterances:
        while users and users[0].t < utterance.t:
            merged.append(_user_values(users.pop(0)))
        merged.append(_utterance_values(utterance))
    return merged + [_user_values(user) for user in users]


def _user_values(user: UserTurn) -> dict[str, Any]:
    values: dict[str, Any] = {"role": "user", "t": user.t, "text": user.text}
    return {**values, "kind": user.behaviour} if user.behaviour else values


def _utterance_values(utterance: Utterance) -> dict[str, Any]:
    values: dict[str, Any] = {"role": "assistant", "t": utterance.t, "text": utterance.text, "kind": utterance.kind}
    values["evidence"] = list(utterance.evidence)
    for name, default in (("answers", None), ("corrects", None), ("tolerance", 0.0), ("replaces_running", False)):
        if getattr(utterance, name) != default:
            values[name] = getattr(utterance, name)
    if utterance.span is not None:
        values["span"] = list(utterance.span)
    if utterance.said is not None:
        values["said"] = utterance.said
    if utterance.preempted:
        values["preempted"] = True
    return values


def _user(values: Any, where: str) -> UserTurn:
    values = _object(values, where, _USER, ("t", "text"))
    return UserTurn(
        t=_number(values["t"], f"{where}.t"),
        text=_text(values["text"], f"{where}.text"),
        behaviour=_text(values.get("kind", ""), f"{where}.kind"),
    )


def _utterance(values: Any, where: str) -> Utterance:
    values = _object(values, where, _ASSISTANT, ("t", "text", "evidence"))
    span, said = values.get("span"), values.get("said")
    return Utterance(
        t=_number(values["t"], f"{where}.t"),
        text=_text(values["text"], f"{where}.text"),
        evidence=_pair(values["evidence"], f"{where}.evidence"),
        answers=_index(values.get("answers"), f"{where}.answers"),
        corrects=_index(values.get("corrects"), f"{where}.corrects"),
        tolerance=_number(values.get("tolerance", 0.0), f"{where}.tolerance"),
        kind=_text(values.get("kind", "event"), f"{where}.kind"),
        replaces_running=_truth(values.get("replaces_running", False), f"{where}.replaces_running"),
        span=None if span is None else _pair(span, f"{where}.span"),
        said=None if said is None else _text(said, f"{where}.said"),
        preempted=_truth(values.get("preempted", False), f"{where}.preempted"),
    )


def _object(values: Any, where: str, known: tuple[str, ...] | None, needed: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(values, Mapping):
        raise InputError(f"{where} is {str(values)[:60]!r}; it must be a JSON object")
    unknown = sorted(str(name) for name in values if known is not None and name not in known)
    if unknown:
        raise InputError(f"{where} has the unknown field {unknown[0]!r}; known are {', '.join(known or ())}")
    missing = [name for name in needed if name not in values]
    if missing:
        raise InputError(f"{where} lacks the field {missing[0]}")
    return values


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{where} is {value!r}; it must be a finite number")
    return float(value)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{where} is {value!r}; it must be text")
    return value


def _texts(value: Any, where: str) -> list[str]:
    if not isinstance(value, list):
        raise InputError(f"{where} is {value!r}; it must be a list of texts")
    return [_text(item, f"{where}[{index}]") for index, item in enumerate(value)]


def _truth(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"{where} is {value!r}; it must be true or false")
    return value


def _index(value: Any, where: str) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise InputError(f"{where} is {value!r}; it must be a whole number from 0 on, or null")
    return value


def _pair(value: Any, where: str) -> tuple[float, float]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise InputError(f"{where} is {value!r}; it must be two seconds")
    return _number(value[0], f"{where}[0]"), _number(value[1], f"{where}[1]")
