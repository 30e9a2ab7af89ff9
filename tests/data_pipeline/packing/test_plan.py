"""Planning a sample: which frames, which rows, and what does not fit."""

from __future__ import annotations

import dataclasses
import random

import pytest

from data_pipeline.packing.batch import IGNORE_INDEX
from data_pipeline.packing.plan import DoesNotFit, PlanRules, SamplePlan, plan_sample
from data_pipeline.schema import Media, Message, Sample
from model.errors import InputError
from tests.data_pipeline.helpers import tokenizer

T = tokenizer()
RULES = PlanRules(
    template=None,
    sequence_length=64,
    max_frames=16,
    fps=1.0,
    video_min_frames=4,
    video_max_frames=8,
    jitter=0.0,
    label_eot_realtime=False,
)


def video(**values: object) -> Media:
    fields = {"type": "video", "file": "0.mp4", "rate": 8.0, "duration": 6.0, "num_frames": 48, "width": 8, "height": 8}
    return Media(**{**fields, **values})  # type: ignore[arg-type]


def sample(user: str, assistant: str, *media: Media, kind: str = "video", **values: object) -> Sample:
    messages = [Message(role="user", content=user), Message(role="assistant", content=assistant)]
    return Sample(kind=kind, messages=messages, media=list(media), **values)  # type: ignore[arg-type]


def plan(item: Sample, **rules: object) -> SamplePlan:
    return plan_sample(item, T, dataclasses.replace(RULES, **rules), random.Random(0))  # type: ignore[arg-type]


def frames(item: SamplePlan) -> list[tuple[int, int]]:
    return [(s.media, s.frame) for s in item.slots]


def learned(item: SamplePlan) -> str:
    return T.decode(item.rows.targets[item.rows.targets != IGNORE_INDEX])


def test_the_stage_says_how_a_video_is_sampled() -> None:
    assert frames(plan(sample("<|video|>what ?", "red", video()))) == [(0, i) for i in (0, 8, 16, 24, 32, 40)]
    assert len(plan(sample("<|video|>what ?", "red", video()), fps=0.5).slots) == 4  # spread: the minimum


def test_the_sample_s_own_rate_and_bounds_come_first() -> None:
    own = plan(sample("<|video|>what ?", "red", video(fps=2.0, max_frames=16)))
    assert frames(own) == [(0, 4 * i) for i in range(12)]


def test_a_clip_slower_than_the_stage_s_rate_gives_all_its_frames() -> None:
    slow = video(rate=0.5, duration=12.0, num_frames=6)
    assert frames(plan(sample("<|video|>what ?", "red", slow))) == [(0, i) for i in range(6)]


def test_images_and_videos_come_in_the_order_of_their_markers() -> None:
    item = sample(
        "<|image|>a<|video|>b<|image|>",
        "red",
        Media(type="image", file="0.png"),
        video(file="1.mp4"),
        Media(type="image", file="2.png"),
    )
    planned = plan(item)
    assert [s.media for s in planned.slots] == [0, 1, 1, 1, 1, 1, 1, 2]
    assert planned.num_rows == len(planned.rows.input_ids) and len(planned.rows.frame_rows) == 8


def test_a_frame_for_each_marker() -> None:
    dialogue = "<|silence|><|video|>the red<|video|> ball<|silence|>"
    item = sample("", dialogue, video(markers="per_frame", frame_times=[0.0, 1.5]), kind="realtime")
    planned = plan(item)
    assert frames(planned) == [(0, 0), (0, 12)]
    assert learned(planned) == "<|silence|>the red ball<|silence|>"  # the end of a real-time turn is not learned
    assert learned(plan(item, label_eot_realtime=True)).endswith("<|silence|><|eot_id|>")


def test_markers_move_in_realtime_samples_only() -> None:
    text = "the red<|video|> ball"
    media = video(markers="per_frame", frame_times=[0.0])
    still = plan(sample("", text, media, kind="video"), jitter=1.0).rows.frame_rows[0]
    moved = plan(sample("", text, media, kind="realtime"), jitter=1.0).rows.frame_rows[0]
    assert moved == still - 1


def test_events_take_the_frames_up_to_their_end() -> None:
    item = sample(
        "", "<|video|>a<|video|>b", video(markers="per_event", frame_times=[1.0, 5.0], fps=1.0, min_frames=1), kind="realtime"
    )
    planned = plan(item)
    assert [s.time for s in planned.slots] == [0, 1, 2, 3, 4, 5]
    runs = planned.rows.frame_rows.tolist()
    assert runs[1] - runs[0] == 1 and runs[2] - runs[1] == 2  # two frames, the word, four frames


def test_the_stage_may_force_a_template() -> None:
    planned = plan(sample("", "<|video|>red", video()), template="mllama_pretrain")
    assert planned.rows.input_ids[0] == T.bos_id and planned.rows.input_ids[1] == T.image_id
    assert learned(planned) == "red<|end_of_text|>"


def test_truncation_counts_frames() -> None:
    long = sample("<|video|>what ?", "red ball " * 40, video())
    planned = plan(long)
    assert planned.num_rows == 64 and planned.num_frames == 6


def test_frames_whose_marker_was_cut_are_not_read() -> None:
    turns = "<|silence|>" + "<|video|>red ball<|silence|>" * 6
    item = sample("", turns, video(markers="per_frame", frame_times=[0, 1, 2, 3, 4, 5]), kind="realtime")
    planned = plan(item, sequence_length=24)
    assert planned.num_rows == 24
    assert 0 < planned.num_frames < 6
    assert frames(planned) == [(0, 8 * i) for i in range(planned.num_frames)]


def test_a_turn_that_lost_its_marker_leaves_later_frames_where_they_belong() -> None:
    item = Sample(
        kind="image",
        messages=[
            Message(role="user", content="b" * 200 + "<|image|>"),
            Message(role="assistant", content="a"),
            Message(role="user", content="<|image|>c"),
            Message(role="assistant", content="d"),
        ],
        media=[Media(type="image", file="0.png"), Media(type="image", file="1.png")],
    )
    short = plan(item, sequence_length=64)
    assert short.num_rows <= 64 and frames(short) == []
    whole = plan(item, sequence_length=400)
    assert frames(whole) == [(0, 0), (1, 0)]


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(DoesNotFit, match="more than the 4 of a pack"):
        media = video(markers="per_frame", frame_times=[0, 1, 2, 3, 4])
        plan(sample("", "<|video|>" * 5 + "a", media, kind="realtime"), max_frames=4)
    with pytest.raises(DoesNotFit, match="leave no room for text in 6 rows"):
        plan(sample("<|video|>what ?", "red", video(max_frames=16, fps=2.0)), sequence_length=6)
    with pytest.raises(DoesNotFit, match="no learned token is left"):
        plan(sample("<|video|>what ?", "", video(), kind="realtime"), label_eot_realtime=False)


def test_a_watched_clip_is_thinned_to_what_a_pack_holds() -> None:
    assert plan(sample("<|video|>what ?", "red", video(fps=8.0, max_frames=48)), max_frames=10).num_frames == 10


def test_a_video_that_was_never_described_is_an_error() -> None:
    with pytest.raises(InputError, match="lacks rate, duration and num_frames"):
        plan(sample("<|video|>what ?", "red", Media(type="video", file="0.mp4")))


def dense(frames: int, grid: int = 8) -> Sample:
    labels = [[[i] * grid for _ in range(grid)] for i in range(frames)]
    return Sample(kind="dense", messages=[], media=[video(num_frames=4, duration=0.5)], dense=labels)


def test_dense_samples_give_frames_and_one_row() -> None:
    planned = plan(dense(4))
    assert planned.num_rows == 1 and planned.num_frames == 4 and planned.dense is not None
    assert planned.dense[:, 0, 0].tolist() == [0, 1, 2, 3]
    assert (planned.rows.labels == IGNORE_INDEX).all()


def test_dense_labels_must_match_the_frames() -> None:
    with pytest.raises(InputError, match="dense labels of 3 frames but 4 frames are sampled"):
        plan(dense(3))
