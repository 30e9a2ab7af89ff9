"""Samples for the stages before the last one, from the same timelines."""

from __future__ import annotations

import dataclasses
import random

from hypothesis import given

from data_pipeline.generator.build.offline import MOST_QUESTIONS, narration_sample, question_sample
from data_pipeline.generator.build.sources import windows
from data_pipeline.text.tokenizer import VIDEO
from data_pipeline.timeline.timeline import GivenQuestion
from tests.data_pipeline.generator.randoms import timelines
from tests.data_pipeline.generator.samples import FRAMES, event, kitchen, world


def test_questions_of_a_clip() -> None:
    sample = question_sample(kitchen(), FRAMES, 1.0, random.Random(0))
    assert sample is not None and sample.kind == "video" and sample.template == "mllama"
    assert [(m.role, m.content) for m in sample.messages] == [("user", VIDEO + "What does she cut?"), ("assistant", "A tomato")]
    (media,) = sample.media
    assert (media.markers, media.fps, media.max_frames) == ("one", 1.0, 16)


def test_one_marker_and_no_question_twice() -> None:
    asked = tuple(GivenQuestion(text=f"Question {i}?", answer=f"{i}", evidence=(0.0, 1.0)) for i in range(9))
    for seed in range(20):
        sample = question_sample(dataclasses.replace(kitchen(), questions=asked), FRAMES, 1.0, random.Random(seed))
        assert sample is not None and len(sample.messages) == 2 * MOST_QUESTIONS
        assert sum(m.content.count(VIDEO) for m in sample.messages) == 1 and sample.messages[0].content.startswith(VIDEO)
        texts = [m.content.removeprefix(VIDEO) for m in sample.messages]
        assert len(set(texts)) == len(texts)
        assert all(q.removesuffix("?").split()[1] == a for q, a in zip(texts[::2], texts[1::2], strict=True))


def test_nothing_is_asked_that_the_frames_do_not_show() -> None:
    late = dataclasses.replace(kitchen(), questions=(GivenQuestion(text="Who?", answer="Ann", evidence=(15.2, 15.9)),))
    assert question_sample(late, FRAMES, 1.0, random.Random(0)) is None
    assert question_sample(world(), FRAMES, 1.0, random.Random(0)) is None  # it has none
    first, second = windows(kitchen(), 1.0, 8)  # frames would be sampled from all of the file
    assert all(question_sample(clip.timeline, clip.frame_times, 1.0, random.Random(0)) is None for clip in (first, second))


def test_a_narration_tells_each_event_at_its_frame() -> None:
    sample = narration_sample(world(), FRAMES, 1.0, random.Random(0))
    assert sample is not None and sample.template == "mllama_pretrain" and sample.messages[0].content == ""
    slots = sample.messages[1].content.split(VIDEO)[1:]
    assert {i: text for i, text in enumerate(slots) if text} == {
        3: "red ball appears.",
        6: "blue flag appears.",
        9: "ball turns green.",
        12: "green ball leaves.",
    }
    assert sample.media[0].markers == "per_frame" and sample.media[0].frame_times == list(FRAMES)


def test_events_of_one_frame_and_what_is_hardly_seen() -> None:
    both = dataclasses.replace(
        world(), segments=(event(2.5, "a cat sits."), event(3, "a dog runs"), event(3, "it blinks", salience=0.3))
    )
    sample = narration_sample(both, FRAMES, 1.0, random.Random(0))
    assert sample is not None and VIDEO + "a cat sits and a dog runs." + VIDEO in sample.messages[1].content
    chinese = dataclasses.replace(both, language="zh", segments=(event(3, "猫坐下。"), event(3, "狗在跑")))
    sample = narration_sample(chinese, FRAMES, 1.0, random.Random(0))
    assert sample is not None and VIDEO + "猫坐下，狗在跑。" + VIDEO in sample.messages[1].content
    assert (
        narration_sample(
            dataclasses.replace(both, segments=(event(3, "it blinks", salience=0.3),)), FRAMES, 1.0, random.Random(0)
        )
        is None
    )


@given(timelines())
def test_nothing_is_told_before_it_is_known(timeline: object) -> None:
    times = FRAMES[:12]
    sample = narration_sample(timeline, times, 1.0, random.Random(0))  # type: ignore[arg-type]
    if sample is None:
        return
    slots = sample.messages[1].content.split(VIDEO)[1:]
    assert len(slots) == len(times)
    for s in timeline.segments:  # type: ignore[attr-defined]
        if s.level in ("event", "action") and s.known_from <= times[-1]:
            frame = next(i for i, t in enumerate(times) if t >= s.known_from)
            assert s.text in slots[frame]
    assert not any(text for i, text in enumerate(slots) if not any(i - 1 < s.known_from <= i for s in timeline.segments))  # type: ignore[attr-defined]
