"""From a timeline to a draft: draw a behaviour, plan its questions, let the policy answer frame by frame, give it a voice."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Mapping, Sequence
from typing import Any

from data_pipeline.generator.author import Author, Unfit
from data_pipeline.generator.plan import Action, Draft, Known, Plan, Question, Rejection
from data_pipeline.generator.stages.unfold import unfold
from data_pipeline.realtime.dialogue import BEHAVIOURS, Dialogue, UserTurn, Utterance
from data_pipeline.timeline.timeline import Change, Timeline
from model.errors import InputError

LATEST = 1e-9
"""Seconds of rounding by which evidence may lie behind its frame."""


def write_dialogue(
    timeline: Timeline,
    author: Author,
    frame_times: Sequence[float],
    fps: float,
    behaviours: Mapping[str, float],
    rng: random.Random,
    language: str = "en",
    persona: str = "terse",
    changes: Sequence[Change] | None = None,
    patience: float = 0.0,
) -> Draft | Rejection:
    """One dialogue about a normalised timeline.

    A behaviour is drawn by weight; where the video does not lend itself to it, another one is drawn.

    Args:
        frame_times: seconds of the frames that are shown, rising.
        fps: their rate.
        behaviours: weights by name; 0 leaves a behaviour out.
        language: en | zh, of what is said.
        persona: as the author knows it.
        changes: of the timeline, where they are there already; otherwise the author detects them.
        patience: seconds for which everything may wait at least, such as for the end of the sentence before it.

    Returns:
        The draft, or why none came of it: nothing fits, or the author's answers cannot be used.

    Raises:
        InputError: the weights or the frames cannot be used.
    """
    _check(behaviours, frame_times, fps, patience)
    try:
        changes = author.changes(timeline) if changes is None else changes
        plan = _draw_plan(timeline, author, changes, frame_times, behaviours, rng, language)
        if isinstance(plan, Rejection):
            return plan
        draft = author.style(answer(timeline, author, plan, frame_times, patience), persona, rng)
    except Unfit as unfit:
        return Rejection(stage=unfit.stage, reason=unfit.reason)
    if not draft.utterances and any(q.expected == "now" for q in plan.questions):
        return Rejection(stage="answer", reason="nothing is said although an answer was evident", behaviour=plan.behaviours[0])
    return draft


def answer(timeline: Timeline, author: Author, plan: Plan, frame_times: Sequence[float], patience: float = 0.0) -> Draft:
    """Step the answer policy over all frames; at each it sees the timeline up to there, and the dialogue so far.

    Raises:
        Unfit: an action rests on what has not been seen yet, or names a turn that is not there.
    """
    hidden = [dataclasses.replace(q, expected="now", depends_on=()) for q in plan.questions]
    turns = [i for i, q in enumerate(plan.questions) if q.text]
    said: list[Utterance] = []
    for frame, (t, seen) in enumerate(zip(frame_times, unfold(timeline, frame_times), strict=True)):
        asked = tuple(q for q in hidden if q.t < t or not q.text)
        if not asked:
            continue
        known = Known(
            t=t,
            frame=frame,
            timeline=seen,
            asked=asked,
            said=tuple(said),
            frames=tuple(frame_times[: frame + 1]),
            language=plan.language,
        )
        action = author.act(known)
        if action is not None:
            said.append(_utterance(action, known, patience))
    users = tuple(UserTurn(t=q.t, text=q.text, behaviour=q.behaviour) for q in plan.questions if q.text)
    # The turn that opens a dialogue which nobody opens is no turn of the user: indices are those of the turns that are.
    place = {index: i for i, index in enumerate(turns)}
    utterances = tuple(dataclasses.replace(u, answers=None if u.answers is None else place.get(u.answers)) for u in said)
    return Draft(plan=plan, users=users, utterances=utterances)


def draft_to_dialogue(
    draft: Draft,
    timeline: Timeline,
    identity: str,
    frame_times: Sequence[float],
    fps: float,
    system: str = "",
    generator: Mapping[str, Any] | None = None,
    meta: Mapping[str, Any] | None = None,
) -> Dialogue:
    """A draft as a dialogue that is not laid out yet.

    Args:
        identity: id of the dialogue.
        generator: how it was made.
        meta: anything else to keep.
    """
    return Dialogue(
        id=identity,
        frame_times=tuple(frame_times),
        fps=fps,
        users=draft.users,
        utterances=draft.utterances,
        behaviours=draft.plan.behaviours,
        language=draft.plan.language,
        system=system,
        video=timeline.video,
        source=timeline.source,
        license=timeline.license,
        split_key=timeline.split_key or timeline.id,
        timeline=timeline.id,
        generator=dict(generator or {}),
        quality=dict(draft.quality),
        meta=dict(meta or {}),
    )


def _draw_plan(
    timeline: Timeline,
    author: Author,
    changes: Sequence[Change],
    frame_times: Sequence[float],
    behaviours: Mapping[str, float],
    rng: random.Random,
    language: str,
) -> Plan | Rejection:
    left = {name: weight for name, weight in behaviours.items() if weight > 0}
    tried = []
    while left:
        name = rng.choices(list(left), list(left.values()))[0]
        plan = author.plan(timeline, changes, frame_times, name, rng, language)
        if plan is not None:
            _check_plan(plan, frame_times)
            return plan
        tried.append(name)
        del left[name]
    reason = f"the video lends itself to none of the behaviours in {language}: {', '.join(tried)}"
    return Rejection(stage="plan", reason=reason, behaviour=tried[0] if len(tried) == 1 else "")


def _check_plan(plan: Plan, frame_times: Sequence[float]) -> None:
    if not plan.questions:
        raise Unfit("plan", "the plan has no questions")
    for index, question in enumerate(plan.questions):
        _check_question(question, f"questions[{index}]", frame_times)
    if any(a.t > b.t for a, b in itertools.pairwise(plan.questions)):
        raise Unfit("plan", "the questions are not in order of time")


def _check_question(question: Question, where: str, frame_times: Sequence[float]) -> None:
    if not question.text:
        return
    if not 0 <= question.t < frame_times[-1]:
        raise Unfit("plan", f"{where}.t is {question.t:g}; no frame follows that could answer it before {frame_times[-1]:g} s")
    if question.behaviour not in BEHAVIOURS:
        raise Unfit("plan", f"{where}.behaviour is {question.behaviour!r}; it is none of the behaviours")


def _utterance(action: Action, known: Known, patience: float) -> Utterance:
    """An action as an utterance, once nothing in it lies in the future."""
    begin, end = action.evidence
    if not 0 <= begin <= end <= known.t + LATEST:
        reason = f"the evidence {begin:g}..{end:g} s of {action.text!r} does not lie within the {known.t:g} s that have been seen"
        raise Unfit("answer", reason)
    if action.answers is not None and not 0 <= action.answers < len(known.asked):
        raise Unfit("answer", f"{action.text!r} answers turn {action.answers}; {len(known.asked)} have been asked")
    if action.corrects is not None and not 0 <= action.corrects < len(known.said):
        raise Unfit("answer", f"{action.text!r} corrects utterance {action.corrects}; {len(known.said)} have been said")
    if not action.text.strip():
        raise Unfit("answer", f"an action at {known.t:g} s has an empty text")
    return Utterance(
        t=known.t,
        text=action.text,
        evidence=(begin, min(end, known.t)),
        answers=action.answers,
        corrects=action.corrects,
        tolerance=max(action.tolerance, patience),
        kind=action.kind,
        replaces_running=action.replaces_running,
    )


def _check(behaviours: Mapping[str, float], frame_times: Sequence[float], fps: float, patience: float) -> None:
    for name, weight in behaviours.items():
        if name not in BEHAVIOURS:
            raise InputError(f"behaviours.{name} is unknown; use one of {', '.join(BEHAVIOURS)}")
        if not weight >= 0:
            raise InputError(f"behaviours.{name} is {weight}; a weight must be a number of at least 0")
    if not any(weight > 0 for weight in behaviours.values()):
        raise InputError("behaviours holds no weight above 0; name at least one behaviour to draw")
    if not frame_times or any(b <= a for a, b in itertools.pairwise(frame_times)) or frame_times[0] < 0:
        raise InputError(f"the {len(frame_times)} frame times must be at least one, from 0 on, and rise")
    if not patience >= 0:
        raise InputError(f"patience is {patience}; it must be a number of seconds of at least 0")
    if not fps > 0:
        raise InputError(f"fps is {fps}; it must be a positive number of frames a second")
