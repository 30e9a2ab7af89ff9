"""Speak or stay silent: precision, recall and F1 at the exact frame and within one, onset error, false speech, words."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import Any

from inference.evaluation.schema import Scenario, Span, Trace
from inference.evaluation.scorers.matching import match_nearest, match_points
from inference.evaluation.scorers.questions import normalise
from inference.evaluation.scorers.utterances import Speech, Utterance, read_speech

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
    onset_frames: list[int] = field(default_factory=list)

    def add(self, other: Counts) -> None:
        """Add the counts of another scenario."""
        for name, value in vars(other).items():
            if isinstance(value, list):
                getattr(self, name).extend(value)
            else:
                setattr(self, name, getattr(self, name) + value)


def span_frames(span: Span, scenario: Scenario) -> tuple[int, int]:
    """First and last frame at which speaking about a span is right."""
    first = math.ceil(span.a * scenario.fps - _SLACK)
    return first, max(first, math.floor(span.b * scenario.fps + _SLACK))


@dataclass(frozen=True)
class Matched:
    """What was said in one stream, paired with what was to be said."""

    speech: Speech
    spans: list[tuple[int, int]]
    """First and last frame of each span."""
    inside: set[int]
    """Frames at which speech that began earlier may go on: those of a span, without its first."""
    points: list[int]
    """Frames of the predictions."""
    owners: list[Utterance | None]
    """The utterance that begins at each point; None where one runs on without need."""
    pairs: list[tuple[int, int]]
    """(point, span), one to one."""
    until: float = math.inf
    """Stream time to which a run that failed came, in seconds: what it did not see it was not silent about."""

    def hit_by(self, scenario: Scenario) -> dict[int, bool]:
        """Whether the words were right too, by index of each span that was hit in time; a span without a text takes any."""
        found = {}
        for point, span in self.pairs:
            owner, text = self.owners[point], scenario.spans[span].text
            found[span] = owner is not None and (not text or normalise(owner.text) == normalise(text))
        return found


def match_speech(trace: Trace, scenario: Scenario) -> Matched:
    """Pair the predictions of a push trace with the spans of its scenario.

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
    until = max((event.t for event in trace.events), default=-1.0) if trace.error else math.inf
    return Matched(speech, spans, inside, points, owners, match_points(points, spans), until)


def count_speaking(trace: Trace, scenario: Scenario) -> Counts:
    """Compare one push trace with its scenario, as `match_speech` pairs them."""
    return count_matched(match_speech(trace, scenario), scenario)


def count_matched(matched: Matched, scenario: Scenario) -> Counts:
    """The counts of one stream."""
    points, owners, spans = matched.points, matched.owners, matched.spans
    near = match_points(points, [(first - 1, last + 1) for first, last in spans])
    counts = Counts(hits=len(matched.pairs), spoken=len(points), spans=len(spans), near_hits=len(near))
    counts.frames = scenario.num_frames
    counts.seconds = max(0.0, min(scenario.num_frames / scenario.fps, matched.until))
    right = matched.hit_by(scenario)
    told = [span for span in right if scenario.spans[span].text]
    counts.sentences, counts.sentences_right = len(told), sum(right[span] for span in told)
    for point, span in match_nearest(points, spans, ONSET_WINDOW):
        owner = owners[point]
        if owner is not None:
            counts.onset_errors.append(owner.t - scenario.spans[span].a)
            counts.onset_frames.append(owner.first_frame - spans[span][0])
    true_speech = {first for first, _ in spans}
    for frame in range(scenario.num_frames):
        if frame in matched.inside:
            continue  # speaking is allowed here and not asked for
        seen, true = frame / scenario.fps <= matched.until + _SLACK, frame not in true_speech
        predicted = seen and frame not in matched.speech.spoken_frames
        counts.silent_hits += predicted and true
        counts.silent_predicted += predicted
        counts.silent_true += true
    return counts


def speaking_scores(counts: Counts) -> dict[str, Any]:
    """The numbers of summed counts.

    Returns:
        `speak`, `speak_within_one` and `silence`, each with precision, recall and f1 (0 where nothing was predicted or
        true). `speak` also has onset_error_median (seconds, negative is early), onset_error_median_frames, false_per_minute,
        sentence_accuracy (None where nothing was hit) and balanced_accuracy: the mean of the share of spans that were hit and
        the share of frames without speech that were left silent, 0.5 for whoever always or never speaks (None where the truth
        lacks either).
    """
    speak = ratios(counts.hits, counts.spoken, counts.spans)
    minutes = counts.seconds / 60
    speak |= {
        "onset_error_median": statistics.median(counts.onset_errors) if counts.onset_errors else None,
        "onset_error_median_frames": statistics.median(counts.onset_frames) if counts.onset_frames else None,
        "false_per_minute": (counts.spoken - counts.hits) / minutes if minutes else None,
        "sentence_accuracy": counts.sentences_right / counts.sentences if counts.sentences else None,
        "balanced_accuracy": (
            (counts.hits / counts.spans + counts.silent_hits / counts.silent_true) / 2
            if counts.spans and counts.silent_true
            else None
        ),
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
