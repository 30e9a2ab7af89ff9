"""Answer policy: one decision at a frame at which there is something to decide."""

from __future__ import annotations

from bisect import bisect_right

from data_pipeline.generator.models.fields import Fields
from data_pipeline.generator.models.schemas import ACTIONS, KINDS
from data_pipeline.generator.plan import Action, Known

STAGE = "answer"


def due(known: Known) -> bool:
    """Whether something has become known, has ended or has been asked since the frame before."""
    after = known.previous
    if any(after <= q.t < known.t for q in known.asked):
        return True
    if any(q.evidence is not None and after < q.evidence[1] <= known.t for q in known.timeline.questions):
        return True
    return any(
        after < s.known_from <= known.t or (s.end is not None and after < s.end <= known.t) for s in known.timeline.segments
    )


def decisions_so_far(known: Known) -> int:
    """At most so many frames up to this one were due: each moment of the timeline and each turn makes one at the most."""
    moments = {s.known_from for s in known.timeline.segments} | {s.end for s in known.timeline.segments if s.end is not None}
    moments |= {q.evidence[1] for q in known.timeline.questions if q.evidence is not None}
    first = known.asked[0].t
    frames = {bisect_right(known.frames, m) for m in moments if m >= first} | {
        bisect_right(known.frames, q.t) for q in known.asked
    }
    return len(frames)


def read_action(answer: Fields, known: Known) -> Action | None:
    """The decision of an answer; None is silence.

    Raises:
        Unfit: the evidence lies in the future, a turn or line is named that is not there, or the text cannot be said.
    """
    action = answer.choice("action", ACTIONS)
    if action in ("silent", "stop"):
        return None
    text = answer.spoken("text", known.language)
    evidence = answer.span("evidence", 0, known.t, "the seconds that have been seen")
    kind = answer.choice("kind", KINDS)
    answers = answer.index("answers", len(known.asked))
    corrects = answer.index("corrects", len(known.said))
    latest = len(known.asked) - 1
    if answers is not None and answers != latest:
        raise answer.unfit("answers", f"only the latest turn, {latest}, may be answered")
    if action == "correct" and corrects is None:
        raise answer.unfit("corrects", "a correction names the line that it replaces")
    # Models like to say a thing again; hearing it once is enough.
    if any(u.text == text and u.answers == latest for u in known.said[-1:]):
        return None
    return Action(
        text=text,
        evidence=evidence,
        answers=latest if known.asked[latest].text else None,
        corrects=corrects if action == "correct" else None,
        kind="correction" if action == "correct" else kind,
        tolerance=known.asked[latest].tolerance,
        replaces_running=action == "correct",
    )
