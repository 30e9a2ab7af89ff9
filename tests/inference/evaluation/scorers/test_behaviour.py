"""Scores by behaviour, of corrections and of answers that wait, every number computed by hand."""

from __future__ import annotations

import pytest

from inference.evaluation.baselines import BASELINES, run_baseline
from inference.evaluation.schema import PromptEvent, Scenario, Span, Trace, TraceEvent
from inference.evaluation.scorers.behaviour import by_behaviour, by_kind, correction_scores, waiting_scores
from inference.evaluation.scorers.speaking import Matched, match_speech
from inference.evaluation.scorers.summary import score

WATCH = Scenario(
    id="watch",
    video="w.mp4",
    fps=2.0,
    num_frames=12,
    prompts=[PromptEvent(t=0.75, text="Which colour?"), PromptEvent(t=1.25, text="Tell me when it turns blue.")],
    spans=[
        Span(a=1.0, b=1.0, text="red.", kind="answer", prompt=0),  # frame 2, the first one that could answer
        Span(a=3.0, b=3.5, text="now.", kind="alert", prompt=1),  # frames 6 and 7; asked before frame 3
        Span(a=5.0, b=5.0, text="blue, not red.", kind="correction"),  # frame 10
    ],
    meta={"behaviours": ["direct", "alert"]},
)
PLAIN = Scenario(
    id="plain",
    video="p.mp4",
    fps=1.0,
    num_frames=4,
    spans=[Span(a=2.0, b=2.0, text="it turns."), Span(a=3.0, b=3.0, text="no, it spins.", kind="correction")],
    meta={"behaviours": ["narrate"]},
)


def _trace(scenario: Scenario, said: dict[int, str]) -> Trace:
    """One utterance at each of these frames."""
    events = []
    for frame in range(scenario.num_frames):
        t = frame / scenario.fps
        if frame in said:
            events.append(TraceEvent(t=t, kind="token", frame=frame, text=said[frame]))
        events.append(TraceEvent(t=t, kind="silence", frame=frame))
    return Trace(scenario_id=scenario.id, mode="push", events=events)


WATCHED = _trace(WATCH, {2: "Red", 4: "now", 7: "now", 9: "blue", 10: "blue, not green."})
"""Right answer; a guess before the evidence; an alert within its tolerance; a false word; a correction in other words."""
TOLD = _trace(PLAIN, {3: "no, it spins."})


def _streams() -> list[tuple[Matched, Scenario]]:
    return [(match_speech(WATCHED, WATCH), WATCH), (match_speech(TOLD, PLAIN), PLAIN)]


def test_corrections_in_time_with_and_without_the_right_words() -> None:
    assert correction_scores(_streams()) == {"spans": 2, "in_time": 1.0, "in_time_right_words": 0.5}
    none = correction_scores([])
    assert none == {"spans": 0, "in_time": None, "in_time_right_words": None}


def test_only_an_answer_whose_evidence_comes_later_waits_and_a_guess_is_early() -> None:
    scores = waiting_scores(_streams())
    assert scores == {"spans": 1, "in_time": 1.0, "in_time_right_words": 1.0, "early": 1, "early_per_scenario": 1.0}


def test_an_answer_without_an_index_belongs_to_the_prompt_before_it() -> None:
    spans = [Span(a=2.0, b=2.0, text="blue.", kind="answer")]
    scenario = Scenario(id="s", video="v", fps=1.0, num_frames=4, prompts=[PromptEvent(t=0.5, text="Which?")], spans=spans)
    late = [(match_speech(_trace(scenario, {1: "red", 3: "blue"}), scenario), scenario)]
    assert waiting_scores(late) == {"spans": 1, "in_time": 0.0, "in_time_right_words": 0.0, "early": 1, "early_per_scenario": 1.0}
    scenario.prompts[0].t = 1.5
    assert waiting_scores(late)["spans"] == 0
    scenario.prompts.clear()
    assert waiting_scores(late)["early_per_scenario"] is None


def test_a_hit_while_an_answer_waits_is_not_early() -> None:
    spans = [Span(a=1.0, b=1.0, text="it turns."), Span(a=3.0, b=3.0, text="two.", kind="answer", prompt=0)]
    scenario = Scenario(id="s", video="v", fps=1.0, num_frames=4, prompts=[PromptEvent(t=0.5, text="How many?")], spans=spans)
    said = [(match_speech(_trace(scenario, {1: "it turns.", 2: "two.", 3: "two."}), scenario), scenario)]
    assert waiting_scores(said)["early"] == 1


def test_kinds_of_spans() -> None:
    assert by_kind(_streams()) == {
        "alert": {"spans": 1, "in_time": 1.0, "in_time_right_words": 1.0},
        "answer": {"spans": 1, "in_time": 1.0, "in_time_right_words": 1.0},
        "correction": {"spans": 2, "in_time": 1.0, "in_time_right_words": 0.5},
        "event": {"spans": 1, "in_time": 0.0, "in_time_right_words": 0.0},
    }


def test_a_scenario_counts_under_each_of_its_behaviours() -> None:
    scores = by_behaviour(_streams())
    assert list(scores) == ["alert", "direct", "narrate"]
    assert scores["alert"] == scores["direct"]
    assert scores["direct"]["precision"] == pytest.approx(3 / 5) and scores["direct"]["recall"] == 1.0
    # Frames that must be silent: all 12 but 2, 6, 10 and 7, which the alert's span allows; spoken of these: 4 and 9.
    assert scores["direct"]["balanced_accuracy"] == pytest.approx((1 + 6 / 8) / 2)
    assert scores["narrate"] == pytest.approx(
        {
            "scenarios": 1,
            "spans": 2,
            "precision": 1.0,
            "recall": 0.5,
            "f1": 2 / 3,
            "onset_error_median": 0.0,
            "onset_error_median_frames": 0,
            "false_per_minute": 0.0,
            "sentence_accuracy": 1.0,
            "balanced_accuracy": 0.75,
        }
    )


def test_balanced_accuracy_of_who_never_and_who_always_speaks_is_a_half() -> None:
    found = {name: score(run_baseline(name, [WATCH, PLAIN]), [WATCH, PLAIN]) for name in BASELINES}
    assert found["always_silent"]["speak"]["balanced_accuracy"] == 0.5
    every = found["every_frame"]["speak"]
    assert every["balanced_accuracy"] == 0.5 and every["recall"] == 1.0
    assert every["precision"] == pytest.approx(5 / 16)
    assert every["false_per_minute"] == pytest.approx(11 / (10 / 60))
    assert found["every_frame"]["silence"]["f1"] == 0.0
    assert found["every_frame"]["waiting"]["early"] == 3  # frames 3, 4, 5


def test_no_truth_of_one_sort_leaves_balanced_accuracy_open() -> None:
    quiet = Scenario(id="q", video="v", fps=1.0, num_frames=2)
    assert score(run_baseline("always_silent", [quiet]), [quiet])["speak"]["balanced_accuracy"] is None


def test_onset_error_in_frames_does_not_depend_on_the_rate() -> None:
    spans = [Span(a=2.0, b=2.0, text="now."), Span(a=4.0, b=4.0, text="now."), Span(a=5.0, b=5.0, text="now.")]
    scenario = Scenario(id="s", video="v", fps=4.0, num_frames=24, spans=spans)
    scores = score([_trace(scenario, {9: "now.", 18: "now.", 19: "now."})], [scenario])
    assert scores["speak"]["onset_error_median_frames"] == 1  # of 1, 2 and -1
    assert scores["speak"]["onset_error_median"] == pytest.approx(0.25)
