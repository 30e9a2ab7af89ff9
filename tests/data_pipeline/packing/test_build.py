"""The packed micro-batch."""

from __future__ import annotations

import random

import torch
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.packing.batch import IGNORE_INDEX, PackedMicroBatch
from data_pipeline.packing.build import PackedSample, build_micro_batch
from data_pipeline.packing.plan import PlanRules, SamplePlan, Slot, plan_sample
from data_pipeline.schema import Media, Message, Sample
from data_pipeline.text.labels import expand_markers, token_classes
from data_pipeline.text.realtime import unlabel_end_of_turn
from tests.data_pipeline.helpers import tokenizer

T = tokenizer()
RULES = PlanRules(
    template=None,
    sequence_length=1000,
    max_frames=100,
    fps=1.0,
    video_min_frames=1,
    video_max_frames=100,
    jitter=0.5,
    label_eot_realtime=False,
)
SIZE = 4


def packed(pieces: list[int], index: int) -> PackedSample:
    """A dialogue: 0 is a frame, 1 a silence, 2 a word."""
    text = "<|silence|>" + "".join(("<|video|>", "<|silence|>", " red")[p] for p in pieces)
    count = pieces.count(0)
    media = [Media(type="video", file="0.mp4", markers="per_frame", frame_times=[float(i) for i in range(count)])]
    for item in media:
        item.rate, item.duration, item.num_frames = 1.0, float(count), count
    messages = [Message(role="user", content=""), Message(role="assistant", content=text)]
    sample = Sample(kind="realtime", messages=messages, media=media if count else [])
    plan = plan_sample(sample, T, RULES, random.Random(index))
    return PackedSample(f"set/{index}", index, plan, torch.full((count, 3, SIZE, SIZE), index, dtype=torch.uint8))


dialogues = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=5)


@given(dialogues=dialogues, spare=st.integers(0, 9))
def test_rows_see_the_frames_of_their_own_past_only(dialogues: list[list[int]], spare: int) -> None:
    samples = [packed(d, i) for i, d in enumerate(dialogues)]
    rows = sum(s.plan.num_rows for s in samples) + spare
    batch = build_micro_batch(samples, rows, T.pad_id, SIZE)
    assert batch.num_rows == rows and int(batch.cu_seqlens[-1]) == rows and int(batch.cu_frames[-1]) == batch.num_frames
    for n in range(len(batch.cu_seqlens) - 1):
        a, b = int(batch.cu_seqlens[n]), int(batch.cu_seqlens[n + 1])
        first = int(batch.cu_frames[n])
        seen = torch.cumsum(batch.input_ids[a:b] == T.image_id, 0)  # image tokens of this sample at or before a row
        assert batch.frame_begin[a:b].tolist() == [first] * (b - a)
        assert torch.equal(batch.frame_end[a:b].long(), first + seen)
        assert int(batch.frame_end[b - 1]) == int(batch.cu_frames[n + 1])
        assert batch.position_ids[a:b].tolist() == list(range(b - a))
        assert batch.targets[b - 1] == IGNORE_INDEX
        where = torch.nonzero(batch.input_ids[a:b] == T.image_id).flatten()
        assert torch.equal(batch.frame_positions[first : int(batch.cu_frames[n + 1])], where)
        shifted = batch.targets[a : b - 1]
        known = shifted != IGNORE_INDEX
        assert torch.equal(shifted[known], batch.input_ids[a + 1 : b][known])
    assert not (batch.targets == T.image_id).any() and not (batch.targets == T.eot_id).any()
    assert ((batch.token_class == 0) == (batch.targets == IGNORE_INDEX)).all()


@given(dialogues=dialogues)
def test_a_pack_is_its_samples_side_by_side(dialogues: list[list[int]]) -> None:
    samples = [packed(d, i) for i, d in enumerate(dialogues)]
    whole = build_micro_batch(samples, sum(s.plan.num_rows for s in samples), T.pad_id, SIZE)
    alone = [build_micro_batch([s], s.plan.num_rows, T.pad_id, SIZE) for s in samples]
    for name in ("input_ids", "targets", "position_ids", "frame_positions", "frames", "aspect_ratio_ids", "token_class"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(b, name) for b in alone])), name
    assert whole.sample_keys == [k for b in alone for k in b.sample_keys]


def test_padding_is_a_sample_that_sees_and_teaches_nothing() -> None:
    batch = build_micro_batch([packed([0, 2], 7)], 40, T.pad_id, SIZE)
    start = int(batch.cu_seqlens[1])
    assert batch.sample_keys == ["set/7", ""] and batch.dataset_index == [7, -1]
    assert (batch.input_ids[start:] == T.pad_id).all() and (batch.targets[start:] == IGNORE_INDEX).all()
    assert torch.equal(batch.frame_begin[start:], batch.frame_end[start:])
    assert batch.position_ids[start:].tolist() == list(range(40 - start))
    assert batch.aspect_ratio_ids.tolist() == [1]


def test_a_micro_batch_of_padding_alone() -> None:
    batch = build_micro_batch([], 8, T.pad_id, SIZE)
    assert batch.num_rows == 8 and batch.num_frames == 0 and batch.num_targets == 0
    assert batch.cu_seqlens.tolist() == [0, 8] and batch.frames.shape == (0, 3, SIZE, SIZE)


def dtypes(batch: PackedMicroBatch) -> dict[str, torch.dtype]:
    return {n: v.dtype for n, v in vars(batch).items() if isinstance(v, torch.Tensor)}


def test_types_are_those_of_the_contract() -> None:
    batch = build_micro_batch([packed([0, 1, 2], 0)], 40, T.pad_id, SIZE)
    longs = ("input_ids", "targets", "position_ids", "frame_positions", "aspect_ratio_ids")
    ints = ("cu_seqlens", "cu_frames", "frame_begin", "frame_end")
    expected = dict.fromkeys(longs, torch.int64) | dict.fromkeys(ints, torch.int32)
    assert dtypes(batch) == expected | {"frames": torch.uint8, "token_class": torch.int8}


def test_dense_samples_are_not_padded() -> None:
    media = [Media(type="video", file="0.mp4", rate=1.0, duration=2.0, num_frames=2, fps=1.0)]
    sample = Sample(kind="dense", messages=[], media=media, dense=[[[1, 2], [3, 4]]] * 2)
    plan = plan_sample(sample, T, RULES, random.Random(0))
    frames = torch.zeros(2, 3, SIZE, SIZE, dtype=torch.uint8)
    batch = build_micro_batch([PackedSample("d/0", 0, plan, frames)] * 2, 64, T.pad_id, SIZE)
    assert batch.num_rows == 2 and batch.num_frames == 4 and batch.num_targets == 0
    assert batch.dense_labels is not None and batch.dense_labels.shape == (4, 2, 2)
    mixed = build_micro_batch([PackedSample("d/0", 0, plan, frames), packed([0, 2], 1)], 64, T.pad_id, SIZE)
    assert mixed.num_rows == 64 and mixed.dense_labels is not None
    assert (mixed.dense_labels[2] == IGNORE_INDEX).all() and mixed.dense_labels[0].tolist() == [[1, 2], [3, 4]]


def test_the_worked_example_in_a_padded_batch() -> None:
    """The specification's five seconds: S I S I w1 w2 I w3 w4 w5 I S I S eot behind a header of ten, and four rows of padding."""
    a, b, c = (T.id_of(letter) for letter in "abc")
    header = [T.bos_id, T.start_header_id, a, T.end_header_id, b, T.eot_id, T.start_header_id, c, T.end_header_id, b]
    s, v = T.silence_id, T.video_id
    answer = [s, v, s, v, a, b, v, c, a, b, v, s, v, s, T.eot_id]
    labels = [IGNORE_INDEX] * 10 + answer
    unlabel_end_of_turn(labels, T)
    rows = expand_markers(header + answer, labels, [1] * 5, T)
    plan = SamplePlan(rows, token_classes(rows, T), [Slot(0, i, float(i)) for i in range(5)])
    frames = torch.zeros(5, 3, SIZE, SIZE, dtype=torch.uint8)
    batch = build_micro_batch([PackedSample("set/0", 0, plan, frames)], 29, T.pad_id, SIZE)
    seen = [0] * 11 + [1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 5]
    assert (batch.frame_end - batch.frame_begin).tolist() == seen + [0] * 4
    assert batch.position_ids.tolist() == [*range(25), *range(4)]
    assert batch.frame_positions.tolist() == [11, 13, 16, 20, 22]
    hidden = IGNORE_INDEX
    shown = [s, hidden, s, hidden, a, b, hidden, c, a, b, hidden, s, hidden, s, hidden]
    assert batch.targets.tolist() == [hidden] * 9 + shown + [hidden] * 5  # row t predicts the token behind it
    assert batch.input_ids.tolist() == header + [T.image_id if t == v else t for t in answer] + [T.pad_id] * 4
    assert batch.aspect_ratio_ids.tolist() == [1] * 5
