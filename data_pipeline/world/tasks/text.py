"""Text without pictures in the vocabulary of the world: what the decoder reads before it ever sees a frame."""

from __future__ import annotations

from data_pipeline.assets import real
from data_pipeline.schema import Message, Sample
from data_pipeline.world import scene
from data_pipeline.world.tasks.captions import caption
from data_pipeline.world.tasks.questions import question_sample
from data_pipeline.world.tasks.realtime import draw_prompt, narration, script
from data_pipeline.world.tasks.tracking import tracking_lines


def described_question(seed: int, size: int = scene.FRAME_SIZE) -> Sample:
    """A chat about a clip that is told in words instead of shown."""
    clip, direction = scene.moving(seed, size=size)
    told = " ".join(tracking_lines(clip, direction))
    asked = question_sample(clip, direction)
    first = asked.messages[0]
    messages = [Message(role="user", content=first.content.replace("<|video|>", told + " ")), *asked.messages[1:]]
    return Sample(kind="text", messages=messages)


def story(seed: int, size: int = scene.FRAME_SIZE) -> Sample:
    """Captions or the narration of an eventful clip as running text."""
    if seed % 2:
        text = " ".join(caption(scene.still(seed * 8 + i, size)) for i in range(4))
    else:
        text = " ".join(line.text for line in narration(scene.eventful(seed, size=size)))
    return Sample(
        kind="text",
        messages=[Message(role="user", content=""), Message(role="assistant", content=text)],
        template="mllama_pretrain",
    )


def text_sample(seed: int, size: int = scene.FRAME_SIZE) -> Sample:
    return described_question(seed, size) if seed % 3 else story(seed, size)


def corpus(seed: int, count: int) -> list[str]:
    """Texts from which the demo's tokenizer is trained: all messages of the world and of the bundled real media."""
    texts = real.texts() * 20  # often enough for every word to become one token
    for i in range(count):
        texts += ["user", "assistant", "system", "\n\n"]  # the words of the chat template's headers
        texts += [m.content for m in text_sample(seed + i).messages if m.content]
        clip = scene.eventful(seed + i)
        prompt = draw_prompt(clip)
        texts += [line.text for line in script(clip, prompt)] + ([prompt.text] if prompt else [])
    return texts
