"""Questions cannot be answered from their words or choices alone, and have one answer."""

from __future__ import annotations

from collections import Counter

from data_pipeline.world.story import Story, build_story
from data_pipeline.world.story.words import count_words


def stories(level: int, number: int, seconds: float = 24) -> list[Story]:
    return [build_story(level, seed, seconds=seconds) for seed in range(number)]


def test_what_happens_first_stands_as_often_in_front_as_behind() -> None:
    asked = [q for level in (1, 3) for s in stories(level, 30) for q in s.timeline().questions if q.kind == "order"]
    behind = sum(q.text.endswith(f", or {q.answer}?") for q in asked)
    assert len(asked) > 40 and 0.3 * len(asked) < behind < 0.7 * len(asked)


def test_choices_of_signs_do_not_give_the_answer_away() -> None:
    places: dict[str, Counter[int]] = {}
    for seed in range(60):
        story = build_story(2, seed, seconds=10, signs=("counter", "clock"))
        for question in story.timeline().questions:
            if question.kind == "sign":
                assert len(question.choices) == len(set(question.choices)) >= 5 and question.answer in question.choices
                places.setdefault(question.text, Counter())[question.choices.index(question.answer)] += 1
            assert not question.text.startswith("What did the sign say before")  # a counter tells that itself
    assert len(places) == 2 and all(max(found.values()) < 0.45 * found.total() for found in places.values())


def test_choices_of_clocks_hold_the_answer_at_any_hour() -> None:
    hours = set()
    for seed in range(150):
        story = build_story(2, seed, seconds=60, signs=("clock",), objects=1, pace=20)
        assert story.script is not None
        if len({text.split(":")[0] for text in story.script.sign.values} & {"1", "12", "13"}) == 0:
            continue
        for question in story.timeline().questions:
            if question.kind == "sign":
                assert question.answer in question.choices
                hours.add(question.answer.split(":")[0])
    assert {"1", "12", "13"} <= hours


def test_an_object_that_enters_the_box_twice_is_one_object() -> None:
    twice = 0
    for story in stories(4, 30, 40):
        timeline = story.timeline()
        entered = [s.entities for s in timeline.segments if s.level == "event" and s.text.endswith("enters the box")]
        if not entered:
            continue
        twice += len(set(entered)) < len(entered)
        (asked,) = (q for q in timeline.questions if q.text == "How many different objects entered the box?")
        assert asked.answer == count_words(len(set(entered))) == timeline.states("entered")[-1].value
    assert twice > 2


def test_what_goes_behind_the_wall_is_shown_by_the_evidence() -> None:
    asked = 0
    for story in stories(3, 30):
        for question in story.timeline().questions:
            if question.text == "What goes behind the wall first?" and question.evidence is not None:
                asked += 1
                begin, end = question.evidence
                seen = [i for i, t in enumerate(story.record.times) if begin <= t <= end]
                names = {
                    story.record.name(i, n) for i in seen for n in range(len(story.record.kinds)) if story.record.visible[i, n]
                }
                assert question.answer in names
    assert asked > 5


def test_nothing_is_asked_of_a_kind_of_which_two_are_seen_at_once() -> None:
    doubles = 0
    for story in stories(1, 80, 30):
        record = story.record
        shown = [Counter(k for n, k in enumerate(record.kinds) if record.visible[i, n]) for i in range(len(record.times))]
        for kind in {k for counts in shown for k, number in counts.items() if number > 1}:
            doubles += 1
            asked = [q.text for q in story.timeline().questions if q.kind in ("colour", "place", "before")]
            assert not any(f"the {kind} " in text for text in asked)
    assert doubles > 3


def test_an_object_that_does_several_things_is_not_asked_for_one() -> None:
    found = 0
    for level in (3, 4):
        for story in stories(level, 20):
            told = [s for s in story.timeline().segments if s.level in ("event", "action") and s.entities]
            for question in story.timeline().questions:
                if question.kind == "action":
                    kind = question.text.removeprefix("What does the ").removesuffix(" do?")
                    done = {s.text.split(f"{kind} ", 1)[1].split(" ")[0] for s in told if s.entities[0].startswith(f"{kind}#")}
                    assert done - {"appears", "leaves", "turns"} == {question.answer}
                    found += 1
    assert found > 10
