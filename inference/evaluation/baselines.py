"""What no model at all would score: silence, speech without end, and guessing by frequency."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence

from inference.evaluation.running.settings import needs_push
from inference.evaluation.schema import Scenario, Trace, TraceEvent
from inference.evaluation.scorers.questions import answer_key
from inference.evaluation.scorers.speaking import span_frames

BASELINES = ("always_silent", "every_frame", "class_prior")


def always_silent(scenarios: Sequence[Scenario]) -> list[Trace]:
    """Says nothing in any stream and to any question."""
    traces = []
    for scenario in scenarios:
        traces += _traces(scenario, {}, [""] * len(scenario.questions), "always_silent")
    return traces


def every_frame(scenarios: Sequence[Scenario]) -> list[Trace]:
    """Says the likeliest sentence at every frame of a stream, and gives the likeliest answer of each kind to questions."""
    sentence, answers = _likeliest_sentence(scenarios), _likeliest_answers(scenarios)
    traces = []
    for scenario in scenarios:
        said = dict.fromkeys(range(scenario.num_frames), sentence)
        traces += _traces(scenario, said, [answers[q.kind] for q in scenario.questions], "every_frame")
    return traces


def class_prior(scenarios: Sequence[Scenario], seed: int = 0) -> list[Trace]:
    """Speaks at random as often as is right, with the likeliest sentence, and gives the likeliest answer of each kind.

    Frequencies are those of the scenarios themselves: no blind guess can be expected to do better.
    """
    streamed = [scenario for scenario in scenarios if needs_push(scenario)]
    frames = sum(scenario.num_frames for scenario in streamed)
    rate = sum(len({span_frames(span, s)[0] for span in s.spans}) for s in streamed) / frames if frames else 0.0
    sentence, answers = _likeliest_sentence(scenarios), _likeliest_answers(scenarios)
    rng = random.Random(seed)
    traces = []
    for scenario in scenarios:
        said = {frame: sentence for frame in range(scenario.num_frames) if rng.random() < rate}
        traces += _traces(scenario, said, [answers[q.kind] for q in scenario.questions], "class_prior")
    return traces


def run_baseline(name: str, scenarios: Sequence[Scenario]) -> list[Trace]:
    """The traces of one of `BASELINES`."""
    return {"always_silent": always_silent, "every_frame": every_frame, "class_prior": class_prior}[name](scenarios)


def _likeliest_sentence(scenarios: Sequence[Scenario]) -> str:
    return _likeliest(span.text for scenario in scenarios if needs_push(scenario) for span in scenario.spans)


def _likeliest_answers(scenarios: Sequence[Scenario]) -> dict[str, str]:
    """By kind of question; those of benchmarks as they are spelled, for some official scorers tell "B" from "b"."""
    answers: dict[str, list[str]] = {}
    for scenario in scenarios:
        for question in scenario.questions:
            answer = question.answer if scenario.suite else answer_key(question.answer, question.kind)
            answers.setdefault(question.kind, []).append(answer)
    return {kind: _likeliest(values) for kind, values in answers.items()}


def _likeliest(values: Iterable[str]) -> str:
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], value)) if counts else ""


def _traces(scenario: Scenario, said: dict[int, str], answers: list[str], label: str) -> list[Trace]:
    traces = []
    if needs_push(scenario):
        events = []
        for frame in range(scenario.num_frames):
            t = frame / scenario.fps
            events += [TraceEvent(t=t, kind="frame_in", frame=frame), TraceEvent(t=t, kind="frame_done", frame=frame)]
            if frame in said:
                events.append(TraceEvent(t=t, kind="token", frame=frame, text=said[frame]))
            events.append(TraceEvent(t=t, kind="silence", frame=frame))
        traces.append(Trace(scenario_id=scenario.id, mode="push", events=events, engine={"baseline": label}))
    if scenario.questions:
        traces.append(Trace(scenario_id=scenario.id, mode="offline", answers=answers, engine={"baseline": label}))
    return traces
