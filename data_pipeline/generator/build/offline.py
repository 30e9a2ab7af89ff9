"""Samples of the stages before the last one, from the same timelines: questions about a clip, and its narration."""

from __future__ import annotations

import random
from collections.abc import Sequence

from data_pipeline.generator.build.sources import WINDOW
from data_pipeline.schema import Media, Message, Sample
from data_pipeline.text.tokenizer import VIDEO
from data_pipeline.timeline.timeline import Timeline

MOST_QUESTIONS = 3
"""In one chat."""
LEAST_SALIENCE = 0.5
"""As in dialogues: what the picture hardly shows is not told."""
JOINED = {"en": (" and ", "."), "zh": ("，", "。")}
"""What stands between two events of a frame, and behind them."""


def question_sample(timeline: Timeline, frame_times: Sequence[float], fps: float, rng: random.Random) -> Sample | None:
    """A chat of up to three questions of the timeline; None where it has none.

    The frames are sampled again from the whole file, so that a window of a longer video has no such chat.
    """
    questions = [q for q in timeline.questions if q.evidence is None or q.evidence[1] <= frame_times[-1]]
    if not questions or frame_times[0] > 0 or WINDOW in timeline.meta:
        return None
    messages = []
    for turn, question in enumerate(rng.sample(questions, min(MOST_QUESTIONS, len(questions)))):
        messages.append(Message(role="user", content=(VIDEO if turn == 0 else "") + question.text))
        messages.append(Message(role="assistant", content=question.answer))
    media = Media(type="video", file="0.mp4", fps=fps, min_frames=1, max_frames=len(frame_times))
    return Sample(kind="video", messages=messages, media=[media], source=timeline.source, license=timeline.license)


def narration_sample(timeline: Timeline, frame_times: Sequence[float], fps: float, rng: random.Random) -> Sample | None:
    """Every frame, followed by what can be known from it on; None where that is nothing at all."""
    told: dict[int, list[str]] = {}
    for segment in timeline.segments:
        if segment.level not in ("event", "action") or segment.salience < LEAST_SALIENCE:
            continue
        frame = next((i for i, t in enumerate(frame_times) if t >= segment.known_from - 1e-9), None)
        if frame is not None:
            told.setdefault(frame, []).append(segment.text.rstrip(".。"))
    if not told:
        return None
    between, stop = JOINED[timeline.language]
    texts = [between.join(told[i]) + stop if i in told else "" for i in range(len(frame_times))]
    return Sample(
        kind="video",
        messages=[Message(role="user", content=""), Message(role="assistant", content="".join(VIDEO + t for t in texts))],
        media=[Media(type="video", file="0.mp4", markers="per_frame", frame_times=list(frame_times), fps=fps)],
        template="mllama_pretrain",
        source=timeline.source,
        license=timeline.license,
    )
