"""Captions say what the record says; the gallery shows every level."""

from __future__ import annotations

import io
from pathlib import Path

import av
import pytest

from data_pipeline.shards.schema import check_sample
from data_pipeline.world.story import build_story
from data_pipeline.world.story.captions import REGISTERS, caption_event, caption_frame, caption_story
from data_pipeline.world.story.gallery import write_gallery
from data_pipeline.world.story.level import LEVELS
from data_pipeline.world.story.samples import caption_sample, question_sample
from data_pipeline.world.story.words import CHINESE, FIGURES, PHOTOS, listed, times_words
from model.errors import InputError


@pytest.mark.parametrize("register", REGISTERS)
def test_a_caption_names_all_that_is_visible_and_nothing_else(register: str) -> None:
    record = build_story(3, 6).record
    for frame in range(len(record.times)):
        text = caption_frame(record, frame, register)
        assert text.endswith(".")
        for n in range(len(record.kinds)):
            if record.visible[frame, n]:
                assert record.name(frame, n) in text.lower()
            elif all(record.kinds[m] != record.kinds[n] for m in range(len(record.kinds)) if record.visible[frame, m]):
                assert f" {record.kinds[n]}" not in text


def test_captions_of_events_and_stories() -> None:
    story = build_story(1, 4)
    told = story.timeline().segments
    first = next(s for s in told if s.level == "event")
    assert caption_event(first, "terse") == first.text + "."
    assert len({caption_event(first, register) for register in REGISTERS}) == 4
    for register in REGISTERS:
        assert first.text in caption_story(story.record, told, register).replace(first.text.capitalize(), first.text)
    with pytest.raises(InputError, match="register"):
        caption_frame(story.record, 0, "grand")


def test_words() -> None:
    assert listed([]) == ""
    assert listed(["a"]) == "a"
    assert listed(["a", "b"]) == "a and b"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert [times_words(n) for n in (0, 1, 2, 3)] == ["never", "once", "twice", "three times"]
    assert all(word in CHINESE for word in (*FIGURES, *PHOTOS))


def test_the_gallery_shows_every_level_with_its_timeline(tmp_path: Path) -> None:
    page = write_gallery(tmp_path / "page.html", (1, *LEVELS), 1, 0, 1, 8, 64).read_text(encoding="utf-8")
    for level in (1, *LEVELS):
        assert f"<h2>Level {level}</h2>" in page
    assert page.count("<img ") == 5 * 8
    story = build_story(1, 0, seconds=8)
    for segment in story.timeline().segments:
        assert segment.text in page or segment.value in page
    with pytest.raises(InputError, match="clips"):
        write_gallery(tmp_path / "page.html", (1,), 0, 0, 1, 8, 64)
    with pytest.raises(InputError, match="level"):
        write_gallery(tmp_path / "other.html", (9,), 1, 0, 1, 8, 64)
    assert not (tmp_path / "other.html").exists()


@pytest.mark.parametrize("level", (1, 4))
def test_samples_hold_the_questions_and_a_video_of_all_frames(level: int) -> None:
    story = build_story(level, 8, fps=2, seconds=8)
    given = {(q.text, q.answer) for q in story.timeline().questions}
    key, sample, files = question_sample(story)
    assert key == f"story-qa-{level}-8"
    check_sample(sample)
    texts = [m.content.removeprefix("<|video|>") for m in sample.messages]
    assert set(zip(texts[::2], texts[1::2], strict=True)) <= given
    assert len(decode(files["0.mp4"])) == 16
    _, told, _ = caption_sample(story)
    check_sample(told)
    assert told.messages[1].content == caption_story(story.record, story.timeline().segments, "terse")


def decode(content: bytes) -> list[object]:
    with av.open(io.BytesIO(content)) as container:
        return list(container.decode(video=0))
