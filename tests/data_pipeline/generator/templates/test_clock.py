from __future__ import annotations

import pytest

from data_pipeline.generator.templates.clock import spoken_clock
from data_pipeline.generator.templates.phrases import Phrases
from data_pipeline.realtime.rules.texts import leaked_time


@pytest.mark.parametrize(
    ("text", "english", "chinese"),
    [
        ("10:12", "ten twelve", "十点十二分"),
        ("9:05", "nine oh five", "九点零五分"),
        ("21:40", "twenty one forty", "二十一点四十分"),
        ("7:00", "seven o'clock", "七点整"),
        ("score 3:10:2", "score 3:10:2", "score 3:10:2"),
        ("17", "17", "17"),
    ],
)
def test_times_are_spoken(text: str, english: str, chinese: str) -> None:
    assert (spoken_clock(text, "en"), spoken_clock(text, "zh")) == (english, chinese)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_sentence_about_a_clock_looks_like_a_time_of_the_video(language: str) -> None:
    phrases = Phrases(language, "en")
    target = "the sign changes to 10:12"
    said = [phrases.state("10:12"), phrases.now("9:05"), phrases.events([target]), phrases.happened([target])]
    for text in [*said, *phrases.requests("alert", "", target), *phrases.requests("yet", "", target)]:
        assert leaked_time(text) is None and ":" not in text.replace("：", ""), text


def test_letters_of_a_sign_stand_in_a_chinese_sentence() -> None:
    phrases = Phrases("zh", "en")
    assert (phrases.state("WAIT"), phrases.now("GO"), phrases.state("17")) == ("写着WAIT。", "现在写着GO。", "17。")
