"""Scores of StreamingBench, worked out by hand."""

from __future__ import annotations

import pytest

from inference.evaluation.schema import Poll, PollReply, PollRound, PromptEvent, Question, Scenario, Span, Trace, TraceEvent
from inference.evaluation.suites.streamingbench import SUITE
from inference.evaluation.suites.streamingbench.tasks import task_of

OPTIONS = ["A red one.", "A blue one.", "None.", "Two."]


def _choices(name: str, replies: list[tuple[str, str, str]]) -> tuple[Trace, Scenario]:
    """(task, true letter, reply) of each question."""
    questions = [Question(text="?", answer=answer, kind=task, choices=OPTIONS) for task, answer, _ in replies]
    scenario = Scenario(id=name, video="v.mp4", fps=1.0, num_frames=4, questions=questions, suite="streamingbench")
    return Trace(scenario_id=name, mode="offline", answers=[reply for _, _, reply in replies]), scenario


def _proactive(name: str, due: float, output: str) -> Scenario:
    meta = {"due": due, "output": output}
    return Scenario(
        id=name,
        video=f"{name}.mp4",
        fps=1.0,
        num_frames=20,
        prompts=[PromptEvent(t=0.0, text="?")],
        spans=[Span(a=due, b=due + 2)],
        polls=[Poll(text="now?", begin=1.0, end=due + 4, then="what?", prompt=0, meta=meta)],
        suite="streamingbench",
    )


def _polled(name: str, due: float, output: str, replies: list[tuple[float, str]], final: str) -> tuple[Trace, Scenario]:
    asked = PollRound(poll=0, replies=[PollReply(t=t, text=text) for t, text in replies], stopped=bool(final), final=final)
    return Trace(scenario_id=name, mode="poll", polls=[asked]), _proactive(name, due, output)


CHOICES = [
    ("counting", "B", "B"),
    ("counting", "C", "The answer is C."),
    ("counting", "A", "A pity, I cannot tell."),
    ("counting", "D", ""),
    ("scene_understanding", "B", "B. A blue one."),
    ("sequential_question_answering", "C", "D"),
]
POLLS = [
    ("p0", 5.0, "3", [(1.0, "No"), (2.0, "no."), (3.0, "Yes.")], "3"),
    ("p1", 5.0, "3", [(5.0, "No"), (6.0, "Yes")], "The score is 13"),
    ("p2", 5.0, "lamp", [(2.0, "Yes")], "lamp"),
    ("p3", 5.0, "lamp", [(8.0, "no"), (9.0, "no")], ""),
    ("p4", 5.0, "lamp", [(4.0, "I see eyes"), (7.0, "yes")], "a lamp"),
]


def test_by_hand() -> None:
    """The official `count` (src/data/count.py of github.com/THUNLP-MT/StreamingBench), run on the same replies, gave: counting 2
    of 3 (it cannot read the empty reply), scene understanding 1 of 1, sequential 0 of 1; of the dialogues p0 to p3 time_correct 2
    and answer_correct 2 of 4. In p4 its runner would have ended at "eyes", which holds "yes"."""
    pairs = [_choices("choices", CHOICES), *(_polled(*poll) for poll in POLLS)]
    metrics = SUITE.aggregate(SUITE.score(pairs, None))
    # counting: first characters B, T, A, nothing against B, C, A, D: 2 of 4. Strict: B, C, none, none: 2 of 4, others than these.
    assert metrics["counting.accuracy_official"] == 2 / 4 and metrics["counting.accuracy_strict"] == 2 / 4
    assert metrics["scene_understanding.accuracy_official"] == 1.0 == metrics["omni.accuracy_strict"]
    # official moments: p0 3 s (2 early), p1 6 s, p2 2 s (3 early), p3 none, p4 4 s ("eyes"): p0, p1, p4 of 5.
    assert metrics["proactive_output.poll.time_accuracy_official"] == 3 / 5
    # strict moments: 3, 6, 2, none, 7 s (2 late): p0, p1, p4 as well.
    assert metrics["proactive_output.poll.time_accuracy_strict"] == 3 / 5
    # official text: "3" in "3", "3" in "The score is 13"; p4 was not asked at 4 s. strict: p0 and p4, 13 does not say 3.
    assert metrics["proactive_output.poll.answer_accuracy_official"] == 2 / 5
    assert metrics["proactive_output.poll.answer_accuracy_strict"] == 2 / 5
    # contextual: sequential 0 of 1 and proactive 3 of 5. overall: 2 + 1 + 0 + 3 of 4 + 1 + 1 + 5.
    assert metrics["contextual.accuracy_official"] == 3 / 6 and metrics["overall.accuracy_official"] == 6 / 11
    assert metrics["realtime.accuracy_official"] == 2 / 4


def test_items_say_which_replies_count() -> None:
    items = SUITE.score([_choices("choices", CHOICES)], None)
    assert [(item.values["official"], item.values["strict"]) for item in items] == [
        (1, 1),
        (0, 1),  # the letter comes later
        (1, 0),  # an article
        (0, 0),
        (1, 1),
        (0, 0),
    ]
    assert items[1].details["chosen"] == "C" and items[0].cluster == "v.mp4" and items[0].item == "q0"


def _token(t: float, text: str) -> TraceEvent:
    return TraceEvent(t=t, kind="token", frame=int(t), text=text)


@pytest.mark.parametrize(
    ("events", "values"),
    [
        # 5.5 s less 5 s
        ([_token(5.5, "the "), _token(5.6, "lamp")], {"time": 1, "answer_official": 1, "answer_strict": 1, "onset_error": 0.5}),
        # The first word counts, at 2.9 s: 2.1 s early.
        ([_token(2.9, "well"), TraceEvent(t=3.5, kind="silence"), _token(5.0, "lamp")], {"time": 0, "onset_error": 2.1}),
        ([_token(7.0, "lamps")], {"time": 1, "answer_official": 1, "answer_strict": 0, "onset_error": 2.0}),
        ([TraceEvent(t=1.0, kind="silence")], {"spoke": 0, "time": 0, "answer_official": 0}),
    ],
)
def test_streams(events: list[TraceEvent], values: dict[str, float]) -> None:
    (item,) = SUITE.score([(Trace(scenario_id="p", mode="push", events=events), _proactive("p", 5.0, "lamp"))], None)
    assert {name: item.values.get(name) for name in values} == pytest.approx(values)
    metrics = SUITE.aggregate([item])
    assert metrics["proactive_output.push.time_accuracy"] == values["time"]
    assert metrics["proactive_output.push.onset_error"] == pytest.approx(values.get("onset_error"))
    assert metrics["overall.accuracy_official"] is None  # nothing was asked


def test_a_poll_that_was_never_asked_is_wrong() -> None:
    trace = Trace(scenario_id="p", mode="poll", error="damaged")
    metrics = SUITE.aggregate(SUITE.score([(trace, _proactive("p", 5.0, "lamp"))], None))
    assert metrics["proactive_output.poll.time_accuracy_official"] == 0.0 == metrics["overall.accuracy_strict"]


def test_both_releases_name_the_same_tasks() -> None:
    assert task_of("Text-Rich Understanding") == "text_rich_understanding"
    assert task_of("Misleading Context Recognition") == task_of("Misleading Context Understanding")
    assert task_of("Object Recognition") == task_of("Object Perception") == "object_perception"
    assert SUITE.aggregate([]) == {"overall.accuracy_official": None, "overall.accuracy_strict": None}
