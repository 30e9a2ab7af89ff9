"""Stories as training samples: the video with questions about it, or with a caption."""

from __future__ import annotations

import numpy as np

from data_pipeline.schema import Media, Message, Sample
from data_pipeline.world.story.captions import REGISTERS, caption_story
from data_pipeline.world.story.story import LICENSE, Story

MOST_QUESTIONS = 4
"""Questions in one sample."""


def question_sample(story: Story) -> tuple[str, Sample, dict[str, bytes]]:
    """(key, sample, files): a chat about a video, with questions of different kinds in an order drawn from the seed."""
    timeline = story.timeline()
    rng = np.random.default_rng((story.seed, 41))
    asked = [timeline.questions[i] for i in rng.permutation(len(timeline.questions))]
    kinds: dict[str, int] = {}
    for index, question in enumerate(asked):
        kinds.setdefault(question.kind, index)
    chosen = [asked[i] for i in kinds.values()][:MOST_QUESTIONS]
    messages = []
    for turn, question in enumerate(chosen):
        messages.append(Message(role="user", content=("" if turn else "<|video|>") + question.text))
        messages.append(Message(role="assistant", content=question.answer))
    listed = [
        {"text": q.text, "answer": q.answer, "kind": q.kind, "choices": list(q.choices), "evidence": list(q.evidence or ())}
        for q in chosen
    ]
    return _with_video(story, "qa", messages, {"questions": listed})


def caption_sample(story: Story) -> tuple[str, Sample, dict[str, bytes]]:
    """(key, sample, files): a video and a caption of it; the request names the register."""
    timeline = story.timeline()
    register = REGISTERS[story.seed % len(REGISTERS)]
    text = caption_story(story.record, timeline.segments, register)
    messages = [
        Message(role="user", content=f"<|video|>Describe the video ({register})."),
        Message(role="assistant", content=text),
    ]
    return _with_video(story, "caption", messages, {"register": register})


def _with_video(
    story: Story, name: str, messages: list[Message], meta: dict[str, object]
) -> tuple[str, Sample, dict[str, bytes]]:
    from data_pipeline.world.video import encode_mp4

    frames = story.render()
    media = Media(type="video", file="0.mp4", fps=story.fps, min_frames=1, max_frames=len(frames))
    media.width = media.height = story.size
    media.rate, media.duration, media.num_frames = story.fps, story.duration, len(frames)
    sample = Sample(kind="video", messages=messages, media=[media], meta=meta)
    sample.dataset, sample.license = f"story_{name}", LICENSE
    sample.source = f"moss-train world, level {story.level}, seed {story.seed}"
    return f"story-{name}-{story.level}-{story.seed}", sample, {"0.mp4": encode_mp4(frames, story.fps)}
