"""Layout: who speaks when, what is cut, and that a rate is kept."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.realtime.dialogue import Dialogue, UserTurn, Utterance
from data_pipeline.realtime.emission import SlotBudget
from data_pipeline.realtime.layout import Slot, frame_at, lay_out, slots_of
from data_pipeline.realtime.words import CountCache, units_of
from model.errors import InputError
from tests.data_pipeline.realtime.dialogues import RATES, count, raw_dialogue

SEEDS = st.integers(0, 10_000)


def words(text: str) -> int:
    """One token a word, whatever its length."""
    return len(text.split())


def dialogue(*utterances: Utterance, users: tuple[UserTurn, ...] = (), frames: int = 10, fps: float = 1.0) -> Dialogue:
    times = tuple(i / fps for i in range(frames))
    return Dialogue(id="d", frame_times=times, fps=fps, users=users, utterances=utterances)


def say(t: float, text: str, **values: object) -> Utterance:
    return dataclasses.replace(Utterance(t=t, text=text, evidence=(0.0, t)), **values)  # type: ignore[arg-type]


def texts(laid: Dialogue) -> list[str]:
    return [slot.text for slot in slots_of(laid, words)]


def test_words_go_on_in_the_next_slots_and_the_last_one_ends_with_silence() -> None:
    laid = lay_out(dialogue(say(2.0, "one two three four five")), words, 2.0)
    assert laid.utterances[0].span == (2.0, 4.0) and laid.utterances[0].said == "one two three four five"
    assert not laid.utterances[0].preempted and laid.emission_tps == 2.0
    assert slots_of(laid, words)[1:6] == [
        Slot(1),
        Slot(2, "one two", 0, False),
        Slot(3, " three four", 0, False),
        Slot(4, " five", 0, True),
        Slot(5),
    ]


def test_those_that_wait_keep_their_order_and_begin_in_a_slot_of_their_own() -> None:
    laid = lay_out(dialogue(say(1.0, "a b c"), say(2.0, "d"), say(2.0, "e f")), words, 1.0)
    assert [one.span for one in laid.utterances] == [(1.0, 3.0), (4.0, 4.0), (5.0, 6.0)]


def test_one_that_replaces_cuts_off_and_goes_before_those_that_wait() -> None:
    laid = lay_out(dialogue(say(1.0, "a b c d e f"), say(2.0, "later"), say(3.0, "no g", replaces_running=True)), words, 1.0)
    cut, later, new = laid.utterances
    assert (cut.said, cut.preempted, cut.span) == ("a b", True, (1.0, 2.0))
    assert (new.span, new.preempted) == ((3.0, 4.0), False) and later.span == (5.0, 5.0)
    assert [slot.silent for slot in slots_of(laid, words)[1:5]] == [False, False, False, True]


def test_a_user_cuts_off_what_is_said_and_drops_what_waits() -> None:
    users = (UserTurn(t=2.5, text="stop"),)
    laid = lay_out(dialogue(say(1.0, "a b c"), say(2.0, "waits"), say(3.0, "new"), users=users), words, 1.0)
    cut, dropped, new = laid.utterances
    assert (cut.said, cut.preempted, cut.span) == ("a b", True, (1.0, 2.0))
    assert (dropped.said, dropped.preempted, dropped.span) == ("", False, None)
    assert new.span == (3.0, 3.0)


def test_a_text_that_is_finished_is_not_cut_off_by_the_user_behind_it() -> None:
    laid = lay_out(dialogue(say(1.0, "a b"), users=(UserTurn(t=2.5, text="stop"),)), words, 1.0)
    assert not laid.utterances[0].preempted and slots_of(laid, words)[2].silent


def test_the_end_of_the_video_cuts_off() -> None:
    laid = lay_out(dialogue(say(8.0, "a b c d"), say(9.0, "never")), words, 1.0)
    assert (laid.utterances[0].said, laid.utterances[0].preempted) == ("a b", True)
    assert laid.utterances[1].span is None


def test_a_rate_below_one_token_a_slot_leaves_silent_slots_between_words() -> None:
    laid = lay_out(dialogue(say(0.0, "a b c"), frames=16, fps=8.0), words, 4.0)
    assert [t.strip() for t in texts(laid) if t] == ["a", "b", "c"]
    assert laid.utterances[0].said == "a b c" and slots_of(laid, words)[1].silent
    begin, end = laid.utterances[0].span or (0.0, 0.0)
    assert begin == 0.0 and end == pytest.approx(0.5, abs=0.126)


def test_a_word_longer_than_a_slot_is_said_in_pieces() -> None:
    laid = lay_out(dialogue(say(1.0, "extraordinarily so")), lambda text: -(-len(text) // 4), 2.0)
    parts = [slot.text for slot in slots_of(laid, lambda text: -(-len(text) // 4)) if slot.text]
    assert parts[:2] == ["extraord", "inarily"] and "".join(parts) == "extraordinarily so"


def test_chinese_is_cut_between_characters_and_marks_stay_behind_theirs() -> None:
    assert units_of("红球，出现了 ok then。") == ["红", "球，", "出", "现", "了", " ok", " then。"]
    laid = lay_out(dialogue(say(1.0, "红球出现了。")), len, 2.0)
    assert [slot.text for slot in slots_of(laid, len) if slot.text] == ["红球", "出现", "了。"]


@given(st.text())
def test_pieces_joined_are_the_text(text: str) -> None:
    assert "".join(units_of(text)) == text


@given(SEEDS, st.sampled_from(RATES), st.sampled_from(RATES))
def test_laying_out_again_at_another_rate_is_laying_out_the_raw_one(seed: int, first: float, second: float) -> None:
    raw = raw_dialogue(seed)
    laid = lay_out(raw, count(), first)
    assert lay_out(laid, count(), second) == lay_out(raw, count(), second)
    assert lay_out(laid, count(), first) == laid


@given(SEEDS, st.sampled_from(RATES))
def test_slots_hold_what_was_said_where_the_span_says(seed: int, rate: float) -> None:
    laid = lay_out(raw_dialogue(seed), count(), rate)
    slots = slots_of(laid, count())
    assert [slot.frame for slot in slots] == list(range(len(laid.frame_times)))
    for index, one in enumerate(laid.utterances):
        own = [slot for slot in slots if slot.utterance == index and slot.text]
        assert "".join(slot.text for slot in own) == one.said and one.text.startswith(one.said or "")
        if one.span is None:
            assert not own
            continue
        assert (laid.frame_times[own[0].frame], laid.frame_times[own[-1].frame]) == one.span
        assert own[-1].silent is not one.preempted and not any(slot.silent for slot in own[:-1])
        assert one.span[0] >= one.t
        budget = SlotBudget(rate, laid.fps)
        spoken = 0
        for number, frame in enumerate(range(own[0].frame, own[-1].frame + 1), start=1):
            room, tokens = budget.open_slot(), count()(slots[frame].text) if slots[frame].text else 0
            assert tokens <= room or len(slots[frame].text.strip()) == 1
            budget.close_slot(tokens, True)
            spoken += tokens
            longest = max(count()(unit) for unit in units_of(one.text))
            assert spoken <= number * rate / laid.fps + max(1, longest)  # the mean rate


def test_the_mean_rate_is_kept_over_a_long_text() -> None:
    long = " ".join(["word"] * 6000)
    for rate, fps in ((2.6, 1.0), (7.3, 4.0), (3.9, 8.0), (25.0, 2.0)):
        laid = lay_out(dialogue(say(0.0, long), frames=400, fps=fps), words, rate)
        said = words(laid.utterances[0].said or "")
        assert said == pytest.approx(rate * 400 / fps, abs=1.01)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"said": "zzz"}, "not how its text begins"),
        ({"span": (1.5, 2.0)}, "times of two frames"),
        ({"span": (1.0, 1.0)}, "not what"),
        ({"span": (1.0, 7.0)}, "not what"),
    ],
)
def test_what_does_not_belong_together_is_refused(change: dict[str, object], text: str) -> None:
    laid = lay_out(dialogue(say(1.0, "a b c")), words, 1.0)
    broken = dataclasses.replace(laid, utterances=(dataclasses.replace(laid.utterances[0], **change),))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=text):
        slots_of(broken, words)
    with pytest.raises(InputError, match="emission_tps"):
        slots_of(dialogue(say(1.0, "a")), words)
    with pytest.raises(InputError, match="above 0"):
        lay_out(broken, words, 0.0)


def test_frames_are_found_by_their_time() -> None:
    assert frame_at((0.0, 0.1, 0.2), 0.1 + 1e-9) == 1 and frame_at((0.0, 0.1), 0.15) is None and frame_at((), 0.0) is None


def test_counts_are_remembered_within_bounds() -> None:
    asked: list[str] = []
    cache = CountCache(lambda text: asked.append(text) or len(text), entries=2)  # type: ignore[func-returns-value]
    assert [cache(text) for text in ("a", "a", "bb", "a", "ccc", "a")] == [1, 1, 2, 1, 3, 1]
    assert asked == ["a", "bb", "ccc", "a"]


def test_a_turn_at_the_time_of_a_frame_cuts_off_behind_that_frame() -> None:
    speech = Utterance(t=0.0, text="one two three four", evidence=(0.0, 0.0))
    raw = Dialogue(id="d", frame_times=(0.0, 1.0, 2.0, 3.0), fps=1.0, users=(UserTurn(t=1.0, text="stop"),), utterances=(speech,))
    (laid,) = lay_out(raw, words, 1.0).utterances
    assert (laid.said, laid.span, laid.preempted) == ("one two", (0.0, 1.0), True)
