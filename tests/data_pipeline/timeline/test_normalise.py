"""Rules that clean rough annotations."""

from __future__ import annotations

import copy

from hypothesis import given

from data_pipeline.timeline.normalise import normalise, same_text
from data_pipeline.timeline.timeline import GivenQuestion, Segment, Timeline, check_timeline
from tests.data_pipeline.timeline.strategies import rough_timelines


def of(*segments: Segment, duration: float = 10.0) -> tuple[Segment, ...]:
    return normalise(Timeline(id="v", duration=duration, segments=segments)).segments


def state(begin: float, end: float | None, value: str, **more: object) -> Segment:
    return Segment(begin=begin, end=end, text=value, level="state", subject="colour:ball", value=value, **more)  # type: ignore[arg-type]


@given(rough_timelines())
def test_sound_idempotent_and_pure(timeline: Timeline) -> None:
    before = copy.deepcopy(timeline)
    clean = normalise(timeline)
    check_timeline(clean)
    assert normalise(clean) == clean
    assert timeline == before


@given(rough_timelines())
def test_order_of_the_rows_does_not_matter(timeline: Timeline) -> None:
    turned = Timeline(id="v", duration=timeline.duration, segments=timeline.segments[::-1])
    assert normalise(turned).segments == normalise(timeline).segments


@given(rough_timelines())
def test_no_text_is_made_up_and_none_known_earlier_than_given(timeline: Timeline) -> None:
    for clean in normalise(timeline).segments:
        rough = [s for s in timeline.segments if " ".join(s.text.split()) == clean.text]
        assert rough
        if all(s.evident is not None and s.begin >= 0 for s in rough):
            assert clean.known_from >= min(s.known_from for s in rough)


@given(rough_timelines())
def test_nothing_that_lasts_goes_across_a_cut(timeline: Timeline) -> None:
    clean = normalise(timeline).segments
    cuts = [s.begin for s in clean if s.change == "scene"]
    for s in clean:
        if s.level in ("state", "text"):
            assert s.end is not None and not any(s.begin < c < s.end for c in cuts)


def test_doubles_become_one_known_as_early_as_any() -> None:
    found = of(
        Segment(begin=2.0, end=6.0, text="A dog runs.", level="action"),
        Segment(begin=1.0, end=4.0, text="a dog  runs", level="action", salience=0.5),
        Segment(begin=7.0, end=8.0, text="a dog runs", level="action"),
    )
    assert [(s.begin, s.end, s.known_from, s.text) for s in found] == [
        (1.0, 6.0, 4.0, "a dog runs"),
        (7.0, 8.0, 8.0, "a dog runs"),
    ]
    assert found[0].salience == 1.0


def test_events_that_follow_each_other_stay_apart() -> None:
    found = of(Segment(begin=1.0, end=2.0, text="ball bounces"), Segment(begin=2.0, end=3.0, text="ball bounces"))
    assert len(found) == 2


def test_a_cut_splits_states_and_keeps_events_whole() -> None:
    cut = Segment(begin=4.0, end=4.0, text="another room", change="scene")
    found = of(state(0.0, 8.0, "red", change="appear"), Segment(begin=2.0, end=6.0, text="a dog runs", level="action"), cut)
    assert [(s.begin, s.end, s.change) for s in found if s.level == "state"] == [(0.0, 4.0, "appear"), (4.0, 8.0, "")]
    assert [(s.begin, s.end) for s in found if s.level == "action"] == [(2.0, 6.0)]
    again = of(*found)
    assert again == found


def test_equal_actions_on_both_sides_of_a_cut_do_not_become_one() -> None:
    cut = Segment(begin=4.0, end=4.0, text="another room", change="scene")
    runs = [Segment(begin=b, end=b + 3, text="a dog runs", level="action") for b in (2.0, 4.5)]
    assert [s.begin for s in of(*runs, cut) if s.level == "action"] == [2.0, 4.5]


def test_columns_of_values_become_states_that_follow_each_other() -> None:
    rows = [Segment(begin=b, end=b, text=f"ball: {v}", subject="colour:ball", value=v) for b, v in [(0.0, "red"), (3.0, "blue")]]
    assert [(s.level, s.begin, s.end, s.value) for s in of(*rows)] == [("state", 0.0, 3.0, "red"), ("state", 3.0, 10.0, "blue")]


def test_an_action_with_a_value_stays_unknown_until_its_end() -> None:
    (only,) = of(Segment(begin=2.0, end=5.0, text="score: 3", level="action", subject="score", value="3"))
    assert (only.level, only.known_from) == ("state", 5.0)


def test_the_next_state_ends_the_one_before() -> None:
    found = of(state(0.0, 6.0, "red"), state(4.0, 8.0, "blue"), state(8.0, None, "blue"), state(9.0, 9.0, "green"))
    assert [(s.begin, s.end, s.value) for s in found] == [(0.0, 4.0, "red"), (4.0, 9.0, "blue")]


def test_clipped_to_the_video() -> None:
    found = of(
        Segment(begin=-1.0, end=2.0, text="a"),
        Segment(begin=9.0, end=12.0, text="b", level="action"),
        Segment(begin=11.0, end=12.0, text="c"),
        Segment(begin=3.0, end=None, text="d", level="speech"),
        Segment(begin=3.0, end=4.0, text="  "),
    )
    assert [(s.begin, s.end, s.text) for s in found] == [(0.0, 2.0, "a"), (3.0, 10.0, "d"), (9.0, 10.0, "b")]


def test_questions_lose_doubles_and_evidence_beyond_the_end() -> None:
    asked = GivenQuestion(text=" who? ", answer="Ann", evidence=(8.0, 12.0))
    late = GivenQuestion(text="why?", answer="so", evidence=(11.0, 12.0))
    found = normalise(Timeline(id="v", duration=10.0, questions=(asked, asked, late))).questions
    assert found == (GivenQuestion(text="who?", answer="Ann", evidence=(8.0, 10.0)),)


def test_same_text() -> None:
    assert same_text(" A dog  runs. ") == same_text("a dog runs") != same_text("a dog runs home")
    assert same_text("狗跑。") == same_text("狗跑")


def test_a_piece_behind_a_cut_is_not_known_before_it_begins() -> None:
    cut = Segment(begin=5, end=5, text="another room", change="scene")
    pieces = [s for s in of(state(0, 10, "red", evident=2), cut) if s.level == "state"]
    assert [(s.begin, s.end, s.evident) for s in pieces] == [(0, 5, 2), (5, 10, 5)]
