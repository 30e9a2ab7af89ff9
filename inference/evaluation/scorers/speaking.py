"""Speak or stay silent: precision, recall and F1 at the exact frame and within one, onset error, false speech, words."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from inference.evaluation.schema import Scenario, Span, Trace
from inference.evaluation.scorers.matching import match_nearest, match_points
from inference.evaluation.scorers.questions import normalise
from inference.evaluation.scorers.utterances import Utterance, read_speech

ONSET_WINDOW = 4
"""Frames within which an utterance is still taken to be about a span, for the onset error."""
_SLACK = 1e-6


@dataclass
class Counts:
    """Sums over scenarios, from which every ratio is taken at the end."""

    hits: int = 0
    spoken: int = 0
    """Predictions: utterances, and frames into which one runs on without need."""
    spans: int = 0
    near_hits: int = 0
    """Pairs within one frame."""
    silent_hits: int = 0
    silent_predicted: int = 0
    silent_true: int = 0
    frames: int = 0
    seconds: float = 0.0
    sentences: int = 0
    """Hits whose span has a text."""
    sentences_right: int = 0
    onset_errors: list[float] = field(default_factory=list)

    def add(self, other: Counts) -> None:
        """Add the counts of another scenario."""
        for name in vars(self):
            setattr(self, name, getattr(self, name) + getattr(other, name))


def span_frames(span: Span, scenario: Scenario) -> tuple[int, int]:
    """First and last frame at which speaking about a span is right."""
    first = math.ceil(span.a * scenario.fps - _SLACK)
    return first, max(first, math.floor(span.b * scenario.fps + _SLACK))


def count_speaking(trace: Trace, scenario: Scenario) -> Counts:
    """Compare one push trace with its scenario.

    A prediction is the frame at which an utterance begins. An utterance that runs on into later frames predicts
    speech there too, unless the truth holds a span that began earlier and still lasts.
    """
    speech = read_speech(trace)
    spans = [span_frames(span, scenario) for span in scenario.spans]
    inside = {frame for first, last in spans for frame in range(first + 1, last + 1)}
    points: list[int] = []
    owners: list[Utterance | None] = []
    for utterance in speech.utterances:
        points.append(utterance.first_frame)
        owners.append(utterance)
        for frame in utterance.frames[1:]:
            if frame not in inside:
                points.append(frame)
                owners.append(None)
    pairs = match_points(points, spans)
    near = match_points(points, [(first - 1, last + 1) for first, last in spans])
    counts = Counts(hits=len(pairs), spoken=len(points), spans=len(spans), near_hits=len(near))
    counts.frames, counts.seconds = scenario.num_frames, scenario.num_frames / scenario.fps
    for point, span in pairs:
        owner, text = owners[point], scenario.spans[span].text
        if text:
            counts.sentences += 1
            counts.sentences_right += owner is not None and normalise(owner.text) == normalise(text)
    for point, span in match_nearest(points, spans, ONSET_WINDOW):
        owner = owners[point]
        if owner is not None:
            counts.onset_errors.append(owner.t - scenario.spans[span].a)
    true_speech = {first for first, _ in spans}
    for frame in range(scenario.num_frames):
        if frame in inside:
            continue  # speaking is allowed here and not asked for
        predicted, true = frame not in speech.spoken_frames, frame not in true_speech
        counts.silent_hits += predicted and true
        counts.silent_predicted += predicted
        counts.silent_true += true
    return counts


def speaking_scores(counts: Counts) -> dict[str, Any]:
    """The numbers of summed counts.

    Returns:
        `speak`, `speak_within_one` and `silence`, each with precision, recall and f1 (0 where nothing was predicted or
        true). `speak` also has onset_error_median (seconds, negative is early), false_per_minute and sentence_accuracy
        (None where nothing was hit).
    """
    speak = ratios(counts.hits, counts.spoken, counts.spans)
    minutes = counts.seconds / 60
    speak |= {
        "onset_error_median": statistics.median(counts.onset_errors) if counts.onset_errors else None,
        "false_per_minute": (counts.spoken - counts.hits) / minutes if minutes else None,
        "sentence_accuracy": counts.sentences_right / counts.sentences if counts.sentences else None,
    }
    return {
        "speak": speak,
        "speak_within_one": ratios(counts.near_hits, counts.spoken, counts.spans),
        "silence": ratios(counts.silent_hits, counts.silent_predicted, counts.silent_true),
    }


def ratios(hits: int, predicted: int, true: int) -> dict[str, Any]:
    """Precision, recall and F1."""
    return {
        "precision": hits / predicted if predicted else 0.0,
        "recall": hits / true if true else 0.0,
        "f1": 2 * hits / (predicted + true) if predicted + true else 0.0,
    }


def sum_speaking(pairs: Sequence[tuple[Trace, Scenario]]) -> Counts:
    """Counts over many scenarios."""
    total = Counts()
    for trace, scenario in pairs:
        total.add(count_speaking(trace, scenario))
    return total
