"""Question planner: what the user says and when, for one behaviour."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from data_pipeline.generator.author import Unfit
from data_pipeline.generator.models.fields import Fields
from data_pipeline.generator.models.schemas import EXPECTED
from data_pipeline.generator.models.views import LANGUAGES, change_lines, timeline_lines
from data_pipeline.generator.plan import Plan, Question
from data_pipeline.timeline.timeline import Change, Timeline

STAGE = "plan"
ASSIGNMENTS: dict[str, tuple[int, int, str]] = {
    "narrate": (1, 1, "One turn near the start that asks the assistant to tell what happens as it happens; expected later."),
    "direct": (1, 1, "One question on what can be seen right when it is asked; expected now."),
    "delayed": (1, 1, "One question that is asked before its answer can be known, and answered later; expected later."),
    "silence_only": (1, 1, "One question that the video never answers though it might, or a call for quiet; expected never."),
    "correction": (1, 1, "One question on something that changes afterwards, with the wish to hear of it; expected now."),
    "interruption": (2, 2, "A request to tell what happens, expected later, and a question that cuts in right after a change."),
    "retraction": (
        2,
        2,
        "A request that has to wait, expected later, and a turn that takes it back before it comes true, never.",
    ),
    "repeat": (
        2,
        2,
        "The same question twice, word for word, with a change in between, so that the answers differ; expected now.",
    ),
    "count": (1, 1, "One request to count something in the video and to say each new number."),
    "alert": (1, 1, "One request to be told when something happens that is still to come; expected later."),
    "several_turns": (2, 4, "Questions at different times, at least one on what was to be seen before; expected now."),
    "not_yet": (1, 1, "One question whether something has happened yet that happens only later; expected later."),
}
"""Fewest and most turns of the user, and what the planner is told, for every behaviour."""


def plan_text(timeline: Timeline, changes: Sequence[Change], frame_times: Sequence[float], behaviour: str, language: str) -> str:
    """What the planner reads."""
    return (
        f"Language: {LANGUAGES[language]}\nBehaviour: {behaviour}. {ASSIGNMENTS[behaviour][2]}\n"
        f"The user may speak after {frame_times[0]:g} s and before {frame_times[-1]:g} s.\n\n"
        f"Video:\n{timeline_lines(timeline)}\n\nChanges:\n{change_lines(changes)}"
    )


def read_plan(
    answer: Fields, changes: Sequence[Change], frame_times: Sequence[float], behaviour: str, language: str
) -> Plan | None:
    """The plan of an answer; None where the model finds that the video does not lend itself to the behaviour.

    Raises:
        Unfit: a question is malformed, comes at a time or rests on a change that is not there, or expects its answer at another
            time than its changes.
    """
    fewest, most, _ = ASSIGNMENTS[behaviour]
    items = answer.objects("questions", 20)
    if not items:
        return None
    if not fewest <= len(items) <= most:
        raise Unfit(STAGE, f"questions has {len(items)} entries; {behaviour} takes {fewest} to {most}")
    questions = sorted((_question(f, changes, frame_times, behaviour, language) for f in items), key=lambda q: q.t)
    if len({q.t for q in questions}) < len(questions):
        raise Unfit(STAGE, "two questions come between the same two frames; ask them apart")
    return Plan(questions=tuple(questions), behaviours=(behaviour,), language=language)


def _question(fields: Fields, changes: Sequence[Change], frame_times: Sequence[float], behaviour: str, language: str) -> Question:
    t_ask = fields.number("t_ask", frame_times[0], frame_times[-1])
    # Turns come halfway between two frames; one at the last frame, before it.
    slot = min(bisect_right(frame_times, t_ask), len(frame_times) - 1)
    t = (frame_times[slot - 1] + frame_times[slot]) / 2
    expected = fields.choice("expected", EXPECTED)
    known = {c.id: c for c in changes}
    ids = fields.texts("depends_on", 50)
    unknown = [i for i in ids if i not in known]
    if unknown:
        raise fields.unfit("depends_on", f"there is no change {unknown[0]!r}")
    _agrees(fields, expected, [known[i].t for i in ids], frame_times[slot])
    return Question(
        t=t,
        text=fields.spoken("text", language),
        behaviour=behaviour,
        expected=expected,
        depends_on=tuple(dict.fromkeys(ids)),
        tolerance=frame_times[slot] - frame_times[slot - 1] if behaviour == "alert" else 0.0,
    )


def _agrees(fields: Fields, expected: str, times: Sequence[float], frame: float) -> None:
    """An answer that is due now cannot rest on later changes alone, one that is due later not on earlier ones alone."""
    if times and expected == "now" and min(times) > frame:
        raise fields.unfit("expected", "all of its changes come after the question")
    if times and expected == "later" and max(times) <= frame:
        raise fields.unfit("expected", "all of its changes come before the question")
