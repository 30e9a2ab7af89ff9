"""One scenario as a timeline: what was shown, asked and true, and what each model said when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inference.evaluation.items import Item
from inference.evaluation.schema import Scenario, Trace
from inference.evaluation.scorers.speaking import match_speech
from inference.evaluation.statistics.significance import RIGHT as RIGHT_VALUES

JsonObject = dict[str, Any]
Traces = Mapping[str, Sequence[Trace]]
"""A scenario's traces of each model by its name."""
RIGHT, OTHER, FALSE = "right", "other", "false"
"""In a span with its words (or one that has none), in a span with other words, in none."""


def timeline(scenario: Scenario, traces: Traces, items: Mapping[str, Sequence[Item]]) -> JsonObject:
    """Plain values of one timeline; times are seconds of the stream.

    Args:
        items: of the scenario, by model; they say whether answers were right.
    """
    tasks = list(dict.fromkeys(item.task for own in items.values() for item in own if item.suite == (scenario.suite or "world")))
    return {
        "id": scenario.id,
        "suite": scenario.suite or "world",
        "tasks": list(dict.fromkeys([*tasks, *scenario.meta.get("behaviours", [])])),
        "fps": scenario.fps,
        "num_frames": scenario.num_frames,
        "seconds": scenario.num_frames / scenario.fps,
        "begin": scenario.begin,
        "video": scenario.video,
        "frames": scenario.frames,
        "source": scenario.source,
        "license": scenario.license,
        "prompts": [{"t": prompt.t, "text": prompt.text} for prompt in scenario.prompts],
        "changes": [{"t": change.t, "before": change.before, "after": change.after} for change in scenario.changes],
        "spans": [{"a": span.a, "b": span.b, "text": span.text, "kind": span.kind} for span in scenario.spans],
        "streams": [
            {"model": model} | _stream(trace, scenario) for model, own in traces.items() for trace in own if trace.mode == "push"
        ],
        "polls": [_poll(index, scenario, traces) for index in range(len(scenario.polls))],
        "questions": [_question(index, scenario, traces, items) for index in range(len(scenario.questions))],
        "errors": [
            {"model": model, "mode": trace.mode, "error": trace.error}
            for model, own in traces.items()
            for trace in own
            if trace.error
        ],
    }


def _stream(trace: Trace, scenario: Scenario) -> JsonObject:
    """What one model said, with the verdict on each utterance, and the spans that it hit."""
    matched = match_speech(trace, scenario)
    hits = matched.hit_by(scenario)
    span_of = dict(matched.pairs)
    utterances = []
    for place, owner in enumerate(matched.owners):
        if owner is None:
            continue
        span = span_of.get(place)
        verdict = FALSE if span is None else RIGHT if hits[span] else OTHER
        end = max((owner.frames[-1] + 1) / scenario.fps, owner.t)
        utterances.append({"t": owner.t, "end": end, "text": owner.text.strip(), "verdict": verdict, "span": span})
    return {
        "utterances": utterances,
        "hit": sorted(hits),
        "silent_frames": sum(event.kind == "silence" for event in trace.events),
        "interrupted": [event.t for event in trace.events if event.kind == "turn_interrupted"],
        "dropped": [event.t for event in trace.events if event.kind in ("frame_dropped", "frame_rejected")],
    }


def _poll(index: int, scenario: Scenario, traces: Traces) -> JsonObject:
    poll = scenario.polls[index]
    replies = {}
    for model, own in traces.items():
        for trace in own:
            for asked in trace.polls:
                if asked.poll == index:
                    texts = [{"t": reply.t, "text": reply.text.strip()} for reply in asked.replies]
                    replies[model] = {"replies": texts, "stopped": asked.stopped, "final": asked.final.strip()}
    return {"text": poll.text, "begin": poll.begin, "end": poll.end, "then": poll.then, "models": replies}


def _question(index: int, scenario: Scenario, traces: Traces, items: Mapping[str, Sequence[Item]]) -> JsonObject:
    question = scenario.questions[index]
    replies: JsonObject = {}
    for model, own in traces.items():
        for trace in own:
            if trace.mode == "offline" and index < len(trace.answers):
                replies[model] = {"text": trace.answers[index], "right": is_right(items.get(model, ()), f"q{index}", "offline")}
    end = scenario.num_frames / scenario.fps if question.t is None else question.t
    return {"text": question.text, "truth": question.answer, "kind": question.kind, "t": end, "replies": replies}


def is_right(items: Sequence[Item], name: str, mode: str) -> bool | None:
    """What the items say of one answer; None where none of them judges it as right or wrong."""
    for item in items:
        if item.item == name and item.mode == mode:
            for value, number in item.values.items():
                if value.startswith(RIGHT_VALUES) and number in (0.0, 1.0):
                    return bool(number)
    return None
