"""Cutting samples: the reference's rule, which counts a marker as one token, and ours, which counts every frame."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from data_pipeline.loader import build_loader
from data_pipeline.packing.batch import IGNORE_INDEX
from data_pipeline.packing.plan import DoesNotFit, PlanRules, SamplePlan, plan_sample
from data_pipeline.schema import Media, Message, Sample
from data_pipeline.shards import write_samples
from data_pipeline.text.template import Turn, encode_turns, truncate_turns
from model.errors import InputError
from tests.data_pipeline.helpers import data_config, grey_levels, make_video, model_config, stage_config, tokenizer

T = tokenizer()
MOST_FRAMES = 24


def rules(length: int, truncation: str) -> PlanRules:
    return PlanRules(
        template=None,
        sequence_length=length,
        max_frames=MOST_FRAMES,
        fps=1.0,
        video_min_frames=1,
        video_max_frames=8,
        jitter=0.0,
        label_eot_realtime=False,
        truncation=truncation,
    )


def plan(sample: Sample, length: int, truncation: str) -> SamplePlan:
    return plan_sample(sample, T, rules(length, truncation), random.Random(0))


def clip(**values: object) -> Media:
    return Media(type="video", file="0.mp4", width=8, height=8, **values)  # type: ignore[arg-type]


def watched(words: int, seconds: int = 6) -> Sample:
    """A clip of one marker and a long answer."""
    messages = [Message(role="user", content="<|video|>what ?"), Message(role="assistant", content=" red" * words)]
    media = [clip(rate=4.0, duration=float(seconds), num_frames=4 * seconds)]
    return Sample(kind="video", messages=messages, media=media)


def unexpanded(sample: Sample) -> int:
    return sum(len(t.source) + len(t.target) for t in encode_turns(sample.messages, T))


@given(lengths=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=6), limit=st.integers(1, 150))
def test_turns_are_cut_at_their_ends_and_fill_the_limit(lengths: list[tuple[int, int]], limit: int) -> None:
    turns = [Turn(list(range(s)), list(range(100, 100 + t))) for s, t in lengths]
    kept = truncate_turns(turns, limit)
    assert sum(len(t.source) + len(t.target) for t in kept) == min(limit, sum(s + t for s, t in lengths))
    for whole, part in zip(turns, kept, strict=False):
        assert whole.source[: len(part.source)] == part.source and whole.target[: len(part.target)] == part.target
    whole_turns = [t for t in kept[:-1] if t.source or t.target]
    assert whole_turns == [t for t in turns[: len(kept) - 1] if t.source or t.target]  # only the last kept turn is cut


def test_the_reference_counts_a_marker_as_one_token() -> None:
    long = watched(200)
    made = plan(long, 124, "reference")
    assert made.num_frames == 6 and made.num_rows == (124 - MOST_FRAMES) + 5  # five rows more than tokens before expansion
    assert plan(long, 124, "expanded").num_rows == 124
    short = watched(3)
    assert plan(short, 124, "reference").num_rows == unexpanded(short) + 5 == plan(short, 124, "expanded").num_rows


def test_the_reference_s_rule_needs_room_for_frames() -> None:
    with pytest.raises(InputError, match=r"stage.sequence_length \(24\) must be above stage.max_frames_per_pack \(24\)"):
        rules(MOST_FRAMES, "reference")
    assert rules(MOST_FRAMES + 1, "reference").cutoff_length == 1


@pytest.mark.parametrize(("truncation", "rows"), [("expanded", 128), ("reference", 128 - 12 + 3)])
def test_the_stage_chooses_the_rule(tmp_path: Path, truncation: str, rows: int) -> None:
    messages = [Message(role="user", content="<|video|>what ?"), Message(role="assistant", content=" red" * 200)]
    media = [Media(type="video", file="0.mp4", fps=8.0)]  # four frames for one marker
    sample = Sample(kind="video", messages=messages, media=media)
    write_samples(tmp_path / "video", [("a", sample, {"0.mp4": make_video(grey_levels(4))})])
    stage = stage_config(truncation=truncation)  # 128 rows and 12 frames
    batch = next(build_loader(data_config(tmp_path, ("video",)), stage, model_config(), T))
    assert int(batch.cu_seqlens[1]) == rows and int(batch.cu_frames[1]) == 4


turn = st.tuples(st.integers(0, 12), st.lists(st.sampled_from("vvswww"), min_size=1, max_size=14))


def timed(turns: list[tuple[int, list[str]]]) -> Sample:
    """A real-time dialogue: v is a frame, s a silence, w a word."""
    pieces = {"v": "<|video|>", "s": "<|silence|>", "w": " red"}
    messages = []
    for words, said in turns:
        messages.append(Message(role="user", content=" what" * words))
        messages.append(Message(role="assistant", content="".join(pieces[p] for p in said)))
    count = sum(said.count("v") for _, said in turns)
    times = [float(i) for i in range(count)]
    media = [clip(rate=2.0, duration=float(count), num_frames=2 * count, markers="per_frame", frame_times=times)]
    return Sample(kind="realtime", messages=messages, media=media if count else [])


def events(turns: list[tuple[int, list[str]]]) -> Sample:
    """The same text, each marker an event of two frames."""
    sample = timed(turns)
    for media in sample.media:
        times = media.frame_times or []
        media.markers, media.fps, media.frame_times = "per_event", 1.0, [2 * t + 1 for t in times]
        media.duration, media.num_frames = 2.0 * len(times), 4 * len(times)
    return sample


@given(
    turns=st.lists(turn, min_size=1, max_size=4),
    make=st.sampled_from([timed, events]),
    length=st.integers(MOST_FRAMES + 1, 160),
    truncation=st.sampled_from(["expanded", "reference"]),
)
def test_what_is_cut_fits_and_keeps_its_rules(turns, make, length: int, truncation: str) -> None:  # type: ignore[no-untyped-def]
    sample = make(turns)
    try:
        made = plan(sample, length, truncation)
    except DoesNotFit:
        assume(False)
    is_frame = made.rows.input_ids == T.image_id
    per_marker = 2 if make is events else 1
    frames = [(s.time, s.frame) for s in made.slots]
    assert frames == [(float(i), 2 * i) for i in range(len(frames))] and len(frames) % per_marker == 0
    assert is_frame.sum() == len(frames) == made.num_frames
    assert (made.rows.labels[is_frame] == IGNORE_INDEX).all() and T.eot_id not in made.rows.targets
    assert made.rows.visible_frames.tolist() == np.cumsum(is_frame).tolist()
    assert made.num_rows <= length
    markers = len(frames) // per_marker
    before = made.num_rows - len(frames) + markers  # tokens in front of expansion
    total, owed = unexpanded(sample), sum(said.count("v") for _, said in turns)
    if truncation == "reference":
        assert before == min(total, length - MOST_FRAMES)
    else:
        assert before == min(total, length - owed * (per_marker - 1))
