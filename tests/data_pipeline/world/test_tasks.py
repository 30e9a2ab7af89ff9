"""What is asked: counts of markers and silences, answers that follow from the clip."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.shards.schema import check_sample
from data_pipeline.world import scene
from data_pipeline.world.tasks import captions, questions, realtime, tracking
from data_pipeline.world.tasks.sample import SAMPLE_TASKS, build_sample
from data_pipeline.world.tasks.text import corpus

SEEDS = st.integers(min_value=0, max_value=10**9)
SILENCE, FRAME = "<|silence|>", "<|video|>"


@given(SEEDS)
def test_realtime_layout(seed: int) -> None:
    """A silence before the first frame; one marker a frame; each followed by words or none and one silence."""
    clip = scene.eventful(seed)
    prompt = realtime.draw_prompt(clip, share=0.5)
    messages = realtime.realtime_messages(clip, prompt)
    replies = [m.content for m in messages if m.role == "assistant"]
    assert len(replies) == (1 if prompt is None else 2)
    assert all(reply.startswith(SILENCE) for reply in replies)
    assert sum(reply.count(FRAME) for reply in replies) == clip.num_frames
    cut = prompt is not None and prompt.cut
    assert sum(reply.count(SILENCE) for reply in replies) == clip.num_frames + len(replies) - int(cut)
    if prompt is not None:
        assert replies[0].count(FRAME) == prompt.frame
        assert messages[2].content == prompt.text
        assert replies[0].endswith(SILENCE) != prompt.cut


@given(SEEDS)
def test_words_stand_at_their_frame(seed: int) -> None:
    clip = scene.eventful(seed)
    reply = realtime.realtime_messages(clip, None)[1].content
    slots = [slot.removesuffix(SILENCE) for slot in reply.removeprefix(SILENCE).split(FRAME)[1:]]
    told = {frame: text for frame, text in enumerate(slots) if text}
    assert told == {line.frame: line.text for line in realtime.narration(clip)}
    assert set(told) == {e.frame for e in clip.events if e.kind in realtime.NARRATED}


def test_sentences_name_what_is_seen() -> None:
    for seed in range(200):
        clip = scene.eventful(seed, two=0.0)
        for event in clip.events:
            text, thing = realtime.sentence(clip, event), clip.things[event.thing]
            if event.kind == "appear":
                assert text == f"{thing.name(event.frame)} appears"
            if event.kind == "leave":
                assert text == f"{thing.name(event.frame - 1)} leaves"
            if event.kind == "turn":
                before, after = thing.name(event.frame - 1), thing.name(event.frame)
                assert before != after and text == f"{after.split()[1]} turns {after.split()[0]}"


@given(SEEDS)
def test_prompts_change_what_is_said(seed: int) -> None:
    clip = scene.eventful(seed)
    middle = clip.num_frames // 2
    quiet = realtime.script(clip, realtime.Prompt(middle, realtime.QUIET))
    assert all(line.frame < middle for line in quiet)
    counted = [n for n in realtime.script(clip, realtime.Prompt(middle, realtime.COUNT)) if n.kind == "count"]
    spoken = {line.frame: line.text for line in counted}
    current = ""
    for frame in range(middle, clip.num_frames):
        current = spoken.get(frame, current)
        assert current == ["no object.", "one object.", "two objects."][clip.count(frame)]
    seen = realtime.script(clip, realtime.Prompt(middle, realtime.SEE))
    answer = next(line for line in seen if line.kind == "answer")
    assert answer.frame == middle
    assert answer.text == (" and ".join(t.name(middle) for t in clip.seen(middle)) or "nothing") + "."
    assert len({line.frame for line in seen}) == len(seen)


@given(SEEDS)
def test_scenario_spans_are_what_training_says(seed: int) -> None:
    clip = scene.eventful(seed)
    prompt = realtime.draw_prompt(clip, share=0.5)
    values = realtime.scenario(clip, prompt, "a", "a.mp4")
    assert [(s["a"], s["b"], s["text"]) for s in values["spans"]] == [
        (float(n.frame), float(n.frame), n.text) for n in realtime.script(clip, prompt)
    ]
    assert all(0 <= s["a"] < clip.num_frames for s in values["spans"])


def test_questions_are_answered_from_the_clip() -> None:
    for seed in range(50):
        clip, direction = scene.moving(seed)
        asked = {q["kind"]: q for q in questions.questions(clip, direction)}
        assert clip.things[0].name(0) == f"{asked['colour']['answer']} {asked['kind']['answer']}"
        first, rest = asked["direction"]["answer"].split(" to ")
        cells = tracking.tracking_lines(clip, direction)
        assert cells[0].endswith(f" {first}.")
        assert cells[-1] == f"{rest}."
        assert all(q["answer"].split()[-1] in q["choices"] for q in asked.values())


def test_captions_name_every_object() -> None:
    for seed in range(50):
        clip = scene.still(seed)
        text = captions.caption(clip)
        assert all(thing.name(0) in text for thing in clip.things)
        assert text.count(" and ") == len(clip.things) - 1


def test_every_task_gives_a_valid_sample() -> None:
    for task in SAMPLE_TASKS:
        key, sample, files = build_sample(task, 1000, 2)
        check_sample(sample, key)
        assert set(files) == {m.file for m in sample.media}
        assert build_sample(task, 1000, 2)[2] == files
        assert build_sample(task, 1000, 3)[0] != key


def test_corpus_holds_the_words_of_all_tasks() -> None:
    words = set(" ".join(corpus(0, 60)).replace(".", " ").replace(",", " ").replace("?", " ").split())
    assert {"appears", "turns", "leaves", "quiet", "going", "assistant", "rabbit", "purple", "fence", "objects"} <= words
