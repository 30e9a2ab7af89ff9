"""Hard rules: seeded faults are caught by the rule meant for them, sound dialogues by none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.realtime.dialogue import Dialogue, UserTurn, Utterance
from data_pipeline.realtime.layout import lay_out
from data_pipeline.realtime.render import to_messages
from data_pipeline.realtime.rules import RULES, CheckOptions, check_dialogue
from data_pipeline.realtime.rules.texts import leaked_time, script_of
from tests.data_pipeline.realtime.dialogues import RATES, count, sound_dialogue, tokenizer
from tests.data_pipeline.realtime.mutations import KINDS, Case, count_caught

SEEDED = 12


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_seeded_fault_is_caught_by_its_rule(kind: Callable[[Case], None]) -> None:
    found, made = count_caught(kind, SEEDED)
    assert found == made == SEEDED


def test_every_rule_has_a_seeded_fault() -> None:
    assert set(KINDS.values()) == set(RULES) and len(KINDS) >= 20


@given(st.integers(0, 100_000), st.sampled_from(RATES))
def test_sound_dialogues_are_never_flagged(seed: int, rate: float) -> None:
    laid = sound_dialogue(seed, rate)
    options = CheckOptions(tokenizer=tokenizer(), cutoff=100_000)
    assert check_dialogue(laid, count(), options) == []
    assert check_dialogue(laid, None, options, to_messages(laid, count())) == []


@pytest.mark.parametrize(
    "text",
    ["At 3 seconds a ball appears.", "It happens at 00:05.", "after two seconds it stops", "5 seconds in", "second 3 shows it",
     "the 7-second mark", "at the 3rd second", "frame 12", "在第3秒出现", "第十二秒", "3秒后离开", "时间戳"],
)  # fmt: skip
def test_moments_named_by_their_number_are_leaks(text: str) -> None:
    assert leaked_time(text)


@pytest.mark.parametrize(
    "text",
    ["Two objects.", "A second ball appears.", "The timer shows 10.", "the score is 3 to 2", "The third person sits.",
     "one moment later it falls", "The frame of the window is red.", "两个物体。", "第二个球出现。", "过了一会儿它离开了。"],
)  # fmt: skip
def test_numbers_that_are_no_moments_are_none(text: str) -> None:
    assert leaked_time(text) is None


@pytest.mark.parametrize(
    ("text", "script"),
    [("a ball", "en"), ("一个球", "zh"), ("12 + 3 = 15!", None), ("The sign says 出口.", "en"), ("屏幕上写着 exit。", "zh"),
     ("Это красный мяч", "other")],
)  # fmt: skip
def test_scripts(text: str, script: str | None) -> None:
    assert script_of(text) == script


def test_faults_say_where_and_what() -> None:
    laid = sound_dialogue(1, 5.0)
    (fault,) = check_dialogue(laid, count(), CheckOptions(tokenizer=tokenizer(), cutoff=3))
    assert fault.rule == "length" and str(fault).startswith("length: the stream has ")


def test_what_is_never_said_is_late_unless_a_turn_or_the_end_came_first() -> None:
    long, short = "one two three four five six seven eight", "nine"
    utterances = (Utterance(t=1.0, text=long, evidence=(1.0, 1.0)), Utterance(t=2.0, text=short, evidence=(2.0, 2.0)))
    words = lambda text: len(text.split())  # noqa: E731
    options = CheckOptions(max_wait=2.0)

    def late(frames: int, *users: UserTurn) -> list[str]:
        raw = Dialogue(id="d", frame_times=tuple(map(float, range(frames))), fps=1.0, users=users, utterances=utterances)
        laid = lay_out(raw, words, 1.0)
        assert laid.utterances[1].span is None
        return [fault.text for fault in check_dialogue(laid, words, options) if fault.rule == "late"]

    assert late(8) == ["is never said but had to begin by 4 s"]
    assert late(5) == []  # the last frame is at 4 s: it might have begun there
    assert late(8, UserTurn(t=3.5, text="Stop.")) == []
    assert late(8, UserTurn(t=5.5, text="Stop.")) == ["is never said but had to begin by 4 s"]


def test_a_turn_at_the_time_of_a_frame_comes_behind_that_frame() -> None:
    early = Utterance(t=2.0, text="red.", evidence=(1.0, 1.0), kind="answer", answers=0)
    users = (UserTurn(t=2.0, text="Which colour is it?"),)
    raw = Dialogue(id="a", frame_times=(0.0, 1.0, 2.0, 3.0), fps=1.0, users=users, utterances=(early,))
    faults = check_dialogue(lay_out(raw, count(), 20.0), count())
    assert [fault.rule for fault in faults] == ["answer-before-question"]

    before = Utterance(t=0.0, text="red.", evidence=(0.0, 0.0), kind="answer")
    again = Utterance(t=2.0, text="red.", evidence=(0.0, 0.0), kind="answer")
    raw = Dialogue(id="b", frame_times=(0.0, 1.0, 2.0, 3.0), fps=1.0, users=users, utterances=(before, again))
    faults = check_dialogue(lay_out(raw, count(), 20.0), count())
    assert [fault.rule for fault in faults] == ["repeated"]
