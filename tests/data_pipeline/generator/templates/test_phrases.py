from __future__ import annotations

import itertools

import pytest

from data_pipeline.generator.behaviours.alert import targets
from data_pipeline.generator.behaviours.policy import TASKS, told
from data_pipeline.generator.templates import chinese, english
from data_pipeline.generator.templates.phrases import Phrases
from data_pipeline.generator.templates.scene_words import take_apart
from data_pipeline.generator.templates.template_author import speakable
from data_pipeline.generator.templates.translate import Untranslatable, to_chinese
from data_pipeline.generator.templates.vocabulary import corpus
from data_pipeline.world import scene
from data_pipeline.world.story import build_story
from data_pipeline.world.tasks.realtime import sentence
from model.errors import InputError

SUBJECTS = ("visible", "count", "sign", "colour:ball", "place:flag", "action:fence", "mood:cook", "mood")
TARGETS = ("red ball appears", "ball appears", "appears", "ball turns blue", "red ball hits blue flag", "She cuts an onion.")
NEEDS = {
    "ask": "subject",
    "keep": "subject",
    "before": "subject",
    "alert": "target",
    "yet": "target",
    "count_events": "target",
}


def requests(language: str) -> list[tuple[tuple[str, str, str], str]]:
    """((task, subject, target), wording) for every request that the tables know."""
    phrases = Phrases(language, "en")
    found = []
    for task in TASKS:
        if task == "given":
            continue
        for subject in SUBJECTS if NEEDS.get(task) == "subject" else ("",):
            for target in TARGETS if NEEDS.get(task) == "target" else ("",):
                if language == "zh" and ("cook" in subject or "mood" in subject or "onion" in target):
                    continue
                key = (task, subject, target.rstrip("."))
                found += [(key, wording) for wording in phrases.requests(task, subject, target)]
    return found


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_words_alone_tell_what_is_asked_for(language: str) -> None:
    meant: dict[str, tuple[str, str, str]] = {}
    for key, wording in requests(language):
        assert meant.setdefault(wording, key) == key, wording
        assert "{" not in wording and "  " not in wording and wording[-1] in ".?。？"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_request_has_one_to_three_wordings(language: str) -> None:
    numbers = [len(list(group)) for _, group in itertools.groupby(requests(language), key=lambda r: r[0])]
    assert min(numbers) >= 1 and max(numbers) <= 3


def test_requests_in_words() -> None:
    english_phrases, chinese_phrases = Phrases("en", "en"), Phrases("zh", "en")
    assert english_phrases.requests("ask", "colour:ball")[0] == "What colour is the ball?"
    assert english_phrases.requests("keep", "count")[0] == "How many objects are there? Tell me if that changes."
    assert english_phrases.requests("alert", "", "ball appears")[0] == "Tell me when a ball appears."
    assert english_phrases.requests("alert", "", "appears")[0] == "Tell me when something appears."
    assert english_phrases.requests("yet", "", "red ball hits blue flag") == ("Has a red ball hit a blue flag yet?",)
    assert english_phrases.requests("alert", "", "She cuts an onion.")[0] == "Tell me when this happens: She cuts an onion."
    assert english_phrases.requests("ask", "mood:cook")[0] == "What is the mood of the cook?"
    assert chinese_phrases.requests("ask", "colour:ball")[0] == "球是什么颜色？"
    assert chinese_phrases.requests("alert", "", "red ball hits blue flag")[0] == "红球碰到蓝旗时告诉我。"


@pytest.mark.parametrize(
    ("text", "translated"),
    [
        ("red", "红色"),
        ("two objects", "两个物体"),
        ("no object", "没有物体"),
        ("nothing", "什么都没有"),
        ("red ball and blue flag", "红球和蓝旗"),
        ("top center", "上方"),
        ("white fence bounces", "白色栅栏弹跳"),
        ("red star", "红色星星"),
        ("cat", "猫"),
        ("red ball, cat and blue tree", "红球、猫和蓝树"),
        ("purple fence carries white moon", "紫色栅栏搬运白色月亮"),
        ("carries cup", "搬运杯子"),
        ("the camera zooms in", "镜头拉近"),
        ("the sign changes to TAXI", "牌子变成TAXI"),
        ("WAIT", "WAIT"),
        ("ball turns purple", "球变成紫色"),
        ("leaves", "有东西离开"),
        ("12:30", "12:30"),
        ("一辆红色的车", "一辆红色的车"),
    ],
)
def test_the_world_in_chinese(text: str, translated: str) -> None:
    assert to_chinese(text) == translated


@pytest.mark.parametrize("text", ["A man walks in", "crimson ball appears", "red ball hits", "red balloon"])
def test_other_texts_are_not_translated(text: str) -> None:
    with pytest.raises(Untranslatable):
        to_chinese(text)


def test_all_that_happens_in_the_world_can_be_told_in_chinese() -> None:
    for seed in range(100):
        clip = scene.eventful(seed, two=0.5)
        for event in clip.events:
            text = sentence(clip, event)
            assert take_apart(text) is not None, text
            for said in [text, *targets(text)]:
                assert not any(c.isascii() and c.isalpha() for c in to_chinese(said))


def test_all_that_happens_in_stories_can_be_told_in_chinese() -> None:
    phrases = Phrases("zh", "en")
    for level, seed in itertools.product((2, 3, 4, 5), range(15)):
        timeline = build_story(level, seed).timeline()
        assert speakable(timeline, phrases), timeline.id
        for segment in timeline.segments:
            if told(segment):
                assert take_apart(segment.text) is not None, segment.text


@pytest.mark.parametrize(
    ("text", "clause_in", "asked"),
    [
        ("arrow spins", "an arrow spins", "Has an arrow spun yet?"),
        (
            "yellow heart goes behind the wall",
            "a yellow heart goes behind the wall",
            "Has a yellow heart gone behind the wall yet?",
        ),
        ("ball turns red", "a ball turns red", "Has a ball turned red yet?"),
        ("it gets dark", "it gets dark", "Has it got dark yet?"),
        ("the sign changes to 17", "the sign changes to 17", "Has the sign changed to 17 yet?"),
        ("cat carries red flag", "a cat carries a red flag", "Has a cat carried a red flag yet?"),
    ],
)
def test_events_inside_sentences(text: str, clause_in: str, asked: str) -> None:
    phrases = Phrases("en", "en")
    assert phrases.requests("alert", "", text)[0] == f"Tell me when {clause_in}."
    assert phrases.requests("yet", "", text) == (asked,)


def test_no_english_leaves_a_chinese_timeline() -> None:
    phrases = Phrases("en", "zh")
    with pytest.raises(Untranslatable):
        phrases.events(["红球出现"])
    assert Phrases("zh", "zh").events(["红球出现", "蓝旗离开"]) == "红球出现，蓝旗离开。"
    with pytest.raises(InputError, match="language is 'fr'"):
        Phrases("fr", "en")


def test_the_tables_have_the_same_keys() -> None:
    assert set(english.REQUESTS) == set(chinese.REQUESTS) == set(TASKS) - {"given"}
    assert {task: set(table) for task, table in english.REQUESTS.items()} == {
        task: set(table) for task, table in chinese.REQUESTS.items()
    }
    assert set(english.PLAIN) == set(chinese.PLAIN)


def test_answers_end_once() -> None:
    phrases = Phrases("en", "en")
    assert phrases.events(["She cuts it."]) == "She cuts it." and phrases.given("a cup") == "a cup."
    assert phrases.events(["red ball appears", "red ball appears"]) == "red ball appears."
    assert phrases.number(3) == "three." and phrases.number(25) == "25."


def test_the_corpus_holds_every_word_of_a_dialogue() -> None:
    words = {word for text in corpus("en") for word in text.replace(".", " ").replace("?", " ").replace(",", " ").split()}
    assert {"red", "fence", "colour", "yet", "never", "Never", "two", "center", "bounces", "now", "yes"} - words == {"never"}
    assert all(not any(c.isascii() and c.isalpha() for c in text) for text in corpus("zh"))


@pytest.mark.parametrize(
    ("caption", "said"),
    [
        ("She cuts the tomato", "yes, she cuts the tomato."),
        ("A dog barks", "yes, a dog barks."),
        ("I open the door", "yes, I open the door."),
        ("I'm at the door", "yes, I'm at the door."),
        ("NASA starts a rocket", "yes, NASA starts a rocket."),
        ("red ball appears", "yes, red ball appears."),
    ],
)
def test_a_caption_with_a_capital_letter_stands_inside_a_sentence(caption: str, said: str) -> None:
    assert Phrases("en", "en").happened([caption]) == said
