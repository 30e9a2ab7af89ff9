"""JSON schemas of the answers, one for each role."""

from __future__ import annotations

from typing import Any

from data_pipeline.timeline.timeline import CHANGES

SEGMENT_LEVELS = ("event", "action", "speech", "state", "text")
EXPECTED = ("now", "later", "never")
ACTIONS = ("silent", "speak", "correct", "stop")
KINDS = ("answer", "narration", "count", "alert", "not_yet")
MARKS = ("faithful", "timely", "complete", "redundant")

_TEXT = {"type": "string"}
_NUMBER = {"type": "number"}
_INDEX = {"type": "integer", "minimum": 0}


def _object(**properties: Any) -> dict[str, Any]:
    """An object that has just these fields, all of them."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _one_of(*values: str) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}


SCHEMAS: dict[str, dict[str, Any]] = {
    "normalise": _object(
        segments=_list(
            _object(
                begin=_NUMBER,
                end=_NUMBER,
                level=_one_of(*SEGMENT_LEVELS),
                text=_TEXT,
                subject=_TEXT,
                value=_TEXT,
                entities=_list(_TEXT),
                change=_one_of("", *CHANGES),
                notes=_list(_INDEX),
            )
        )
    ),
    "changes": _object(
        changes=_list(_object(t=_NUMBER, kind=_one_of(*CHANGES), before=_TEXT, after=_TEXT, subject=_TEXT, salience=_NUMBER))
    ),
    "plan": _object(questions=_list(_object(t_ask=_NUMBER, text=_TEXT, expected=_one_of(*EXPECTED), depends_on=_list(_TEXT)))),
    "answer": _object(
        action=_one_of(*ACTIONS),
        text=_TEXT,
        kind=_one_of(*KINDS),
        evidence=_list(_NUMBER),
        answers={"type": ["integer", "null"]},
        corrects={"type": ["integer", "null"]},
    ),
    "style": _object(lines=_list(_TEXT)),
    "judge": _object(**dict.fromkeys(MARKS, _NUMBER), leak={"type": "boolean"}, reason=_TEXT),
    "blind": _object(answers=_list(_TEXT)),
    "seen": _object(known={"type": "boolean"}, answer=_TEXT),
    "same": _object(same={"type": "boolean"}),
}
