"""Scores of hand-made traces, every number computed by hand."""

from __future__ import annotations

import pytest

from inference.evaluation.baselines import always_silent, class_prior
from inference.evaluation.schema import Question, Scenario, Span, Trace, TraceEvent
from inference.evaluation.scorers.latency import latency_scores
from inference.evaluation.scorers.questions import is_right, normalise, question_scores
from inference.evaluation.scorers.speaking import count_speaking, speaking_scores
from inference.evaluation.scorers.summary import score
from model.errors import InputError

SCENARIO = Scenario(
    id="a",
    video="a.mp4",
    fps=2.0,
    num_frames=10,
    spans=[
        Span(a=1.0, b=1.0, text="red ball appears."),
        Span(a=2.0, b=2.0, text="ball turns blue."),
        Span(a=4.0, b=4.0, text="it leaves."),
    ],
)


def _trace(*said: tuple[float, int | None, str], mode: str = "push") -> Trace:
    """Events from (time, newest frame, text); '' is silence, '>' a new turn."""
    events = []
    for t, frame, text in said:
        kind = {"": "silence", ">": "turn_start"}.get(text, "token")
        events.append(TraceEvent(t=t, kind=kind, frame=frame, text=text if kind == "token" else ""))
    return Trace(scenario_id="a", mode=mode, events=events)


def test_hand_computed_stream() -> None:
    trace = _trace(
        (0.0, None, ""),
        (0.0, 0, ""),
        (1.0, 2, "Red ball"),  # exact hit, right words
        (1.1, 2, " appears"),
        (1.2, 2, ""),
        (2.5, 5, "green flag"),  # one frame (half a second) late, wrong words
        (2.6, 5, ""),
        (3.5, 7, "it leaves."),  # one frame early: near, not exact
        (3.6, 7, ""),
        (4.5, 9, "again"),  # false
        (4.6, 9, ""),
    )
    counts = count_speaking(trace, SCENARIO)
    assert (counts.hits, counts.spoken, counts.spans, counts.near_hits) == (1, 4, 3, 3)
    scores = speaking_scores(counts)
    assert scores["speak"]["precision"] == pytest.approx(1 / 4)
    assert scores["speak"]["recall"] == pytest.approx(1 / 3)
    assert scores["speak"]["f1"] == pytest.approx(2 / 7)
    assert scores["speak_within_one"]["f1"] == pytest.approx(6 / 7)
    assert scores["speak"]["sentence_accuracy"] == 1.0
    assert scores["speak"]["onset_error_median"] == pytest.approx(0.0)  # of 0.0, +0.5, -0.5
    assert scores["speak"]["false_per_minute"] == pytest.approx(3 / (5 / 60))
    # True silence: all but frames 2, 4, 8. Predicted: all but 2, 5, 7, 9. Both: 0, 1, 3, 6.
    assert scores["silence"]["precision"] == pytest.approx(4 / 6)
    assert scores["silence"]["recall"] == pytest.approx(4 / 7)


def test_speech_that_never_stops_is_counted_in_every_frame() -> None:
    trace = _trace((0.0, None, "a"), *((f / 2, f, "b") for f in range(10)))
    counts = count_speaking(trace, SCENARIO)
    assert (counts.hits, counts.spoken) == (3, 11)
    assert counts.silent_predicted == 0
    assert counts.sentences_right == 0


def test_a_lasting_span_allows_a_sentence_to_run_on() -> None:
    scenario = Scenario(id="a", video="a.mp4", fps=1.0, num_frames=6, spans=[Span(a=1.0, b=3.0, text="slowly it rises")])
    counts = count_speaking(_trace((2.0, 2, "slowly"), (3.0, 3, " it rises"), (4.0, 4, "")), scenario)
    assert (counts.hits, counts.spoken, counts.sentences_right) == (1, 1, 1)
    assert counts.onset_errors == [1.0]
    assert (counts.silent_true, counts.silent_predicted, counts.silent_hits) == (3, 4, 3)  # frames 0, 4, 5; and 1


def test_a_prompt_breaks_an_utterance() -> None:
    scenario = Scenario(id="a", video="a.mp4", fps=1.0, num_frames=3, spans=[Span(a=1.0, b=1.0, text="no.")])
    counts = count_speaking(_trace((0.0, 0, "yes"), (0.5, 0, ">"), (1.0, 1, "no.")), scenario)
    assert (counts.hits, counts.spoken, counts.sentences_right) == (1, 2, 1)


def test_nothing_said_and_nothing_true() -> None:
    scores = speaking_scores(count_speaking(_trace((0.0, 0, "")), SCENARIO))
    assert (scores["speak"]["precision"], scores["speak"]["recall"], scores["speak"]["f1"]) == (0.0, 0.0, 0.0)
    assert scores["speak"]["onset_error_median"] is None and scores["speak"]["sentence_accuracy"] is None


@pytest.mark.parametrize(
    ("kind", "answer", "reply", "right"),
    [
        ("colour", "red", " Red.<|eot_id|>", True),
        ("colour", "red", "red ball", False),
        ("kind", "ball", "", False),
        ("direction", "top left to top right, going right", "middle left to middle right, going right", True),
        ("direction", "top left to top right, going right", "top left to top right, going up.", False),
        ("direction", "right", "right", True),
        ("free", "Two cups", "two  cups!", True),
    ],
)
def test_answers(kind: str, answer: str, reply: str, right: bool) -> None:
    assert is_right(reply, Question(text="?", answer=answer, kind=kind)) is right


def test_an_empty_truth_is_never_answered() -> None:
    assert normalise("<|silence|> !") == ""
    assert not is_right("", Question(text="?", answer=".", kind="free"))


ASKING = Scenario(
    id="q",
    video="q.mp4",
    fps=1.0,
    num_frames=2,
    questions=[Question(text="?", answer="red", kind="colour"), Question(text="?", answer="a to b, going up", kind="direction")],
)


def test_question_scores_by_kind() -> None:
    traces = [
        Trace(scenario_id="q", mode="offline", answers=["red", "down"]),
        Trace(scenario_id="q", mode="offline", answers=["red", "UP"]),
    ]
    assert question_scores([(t, ASKING) for t in traces]) == {"colour": 1.0, "direction": 0.5, "all": 0.75}


def test_whole_summary_and_its_errors() -> None:
    traces = [_trace((1.0, 2, "red ball appears.")), Trace(scenario_id="q", mode="offline", answers=["red", "left"])]
    scores = score(traces, [SCENARIO, ASKING])
    assert scores["qa"] == {"colour": 1.0, "direction": 0.0, "all": 0.5}
    assert scores["speak"]["precision"] == 1.0
    assert scores["counts"]["spans"] == 3 and scores["counts"]["questions"] == 2 and scores["counts"]["clips"] == 2
    with pytest.raises(InputError, match="scenario 'a', unknown"):
        score(traces, [ASKING])
    with pytest.raises(InputError, match="1 answers to 2 questions"):
        score([Trace(scenario_id="q", mode="offline", answers=["red"])], [ASKING])


def test_hand_computed_delays() -> None:
    events = [
        TraceEvent(t=0.0, kind="frame_in", frame=0),
        TraceEvent(t=0.2, kind="frame_done", frame=0),
        TraceEvent(t=0.2, kind="token", frame=0, token=1, text="a"),
        TraceEvent(t=1.5, kind="token", frame=0, token=1, text="b"),  # frame 1 came at 1.0 and is not seen yet
        TraceEvent(t=1.0, kind="frame_in", frame=1),
        TraceEvent(t=1.2, kind="prompt", text="what ?"),
        TraceEvent(t=1.6, kind="frame_done", frame=1),
        TraceEvent(t=1.6, kind="silence", frame=1, token=2),
        TraceEvent(t=2.0, kind="frame_in", frame=2),
        TraceEvent(t=2.0, kind="frame_dropped", frame=2, reason="stream_end"),
    ]
    scores = latency_scores(Trace(scenario_id="a", mode="push", events=events))
    assert scores["frame_latency"] == pytest.approx({"p50": 0.4, "p95": 0.58, "max": 0.6})
    assert scores["staleness"] == pytest.approx({"p50": 0.0, "p95": 0.9, "max": 1.0})
    assert scores["first_token"] == pytest.approx({"p50": 0.3, "p95": 0.3, "max": 0.3})
    assert scores["frames"] == {"submitted": 3, "processed": 2, "dropped": 1, "rejected": 0}
    empty = latency_scores(Trace(scenario_id="a", mode="push"))
    assert empty["frame_latency"] is None and empty["frames"]["submitted"] == 0


def test_baselines() -> None:
    silent = score(always_silent([SCENARIO, ASKING]), [SCENARIO, ASKING])
    assert silent["speak"]["f1"] == 0.0 and silent["qa"]["all"] == 0.0
    assert silent["silence"]["recall"] == 1.0 and silent["silence"]["precision"] == pytest.approx(0.7)
    many = [Scenario(id=str(i), video="v", fps=2.0, num_frames=10, spans=SCENARIO.spans) for i in range(200)]
    prior = score(class_prior([*many, ASKING]), [*many, ASKING])
    assert prior["speak"]["precision"] == pytest.approx(0.3, abs=0.05)
    assert prior["speak"]["recall"] == pytest.approx(0.3, abs=0.05)
    assert prior["speak"]["sentence_accuracy"] == pytest.approx(1 / 3, abs=0.1)
    assert prior["qa"] == {"colour": 1.0, "direction": 1.0, "all": 1.0}
    assert class_prior(many) == class_prior(many) != class_prior(many, seed=1)


def test_a_stream_that_failed_was_not_silent() -> None:
    # Ten frames of half a second, three of them with speech. Nothing ran: none of the seven others was left silent.
    nothing = count_speaking(Trace(scenario_id="a", mode="push", error="damaged"), SCENARIO)
    assert (nothing.silent_hits, nothing.silent_predicted, nothing.silent_true, nothing.seconds) == (0, 0, 7, 0.0)
    # It ran for a second: frames 0 and 1 were left silent, at frame 2 (1.0 s) something was to be said.
    events = [TraceEvent(t=t, kind="silence", frame=frame) for frame, t in enumerate((0.0, 0.5, 1.0))]
    begun = count_speaking(Trace(scenario_id="a", mode="push", events=events, error="damaged"), SCENARIO)
    assert (begun.silent_hits, begun.silent_predicted, begun.silent_true, begun.seconds) == (2, 3, 7, 1.0)
    whole = count_speaking(Trace(scenario_id="a", mode="push", events=events), SCENARIO)
    assert (whole.silent_hits, whole.silent_predicted, whole.seconds) == (7, 10, 5.0)
