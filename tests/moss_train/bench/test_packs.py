"""Packs of given rows and frames."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.packing.batch import IGNORE_INDEX
from model.errors import InputError
from moss_train.bench.packs import PackSample, pack_of, stage_pack, stage_samples
from moss_train.feed.work import batch_work
from moss_train.planning.workload import STAGES
from tests.moss_train.packs import tiny_config

STAGE = st.sampled_from(sorted(STAGES))


@given(STAGE, st.integers(0, 128), st.integers(0, 4000), st.integers(0, 3))
def test_samples_fill_the_pack_exactly(stage: str, frames: int, more: int, seed: int) -> None:
    rows = max(8, 2 * frames) + more
    samples = stage_samples(stage, rows, frames, seed)
    assert (sum(s.rows for s in samples), sum(s.frames for s in samples)) == (rows, frames)
    assert all(s.rows >= s.frames + 1 for s in samples)
    assert {s.kind for s in samples} <= {"text", "image", "stream" if stage == "sft_realtime" else "video"}
    assert samples == stage_samples(stage, rows, frames, seed)


@given(STAGE, st.integers(0, 24), st.integers(0, 400), st.integers(0, 3))
def test_a_pack_is_what_the_loader_could_have_made(stage: str, frames: int, more: int, seed: int) -> None:
    rows = max(8, 2 * frames) + more
    config = tiny_config()
    pack = stage_pack(config, stage, rows, frames, seed)
    assert (pack.num_rows, pack.num_frames) == (rows, frames)
    marker = pack.input_ids == config.image_token_id
    for n in range(len(pack.sample_keys)):
        first, last = (int(x) for x in pack.cu_seqlens[n : n + 2])
        begin, end = (int(x) for x in pack.cu_frames[n : n + 2])
        own = marker[first:last]
        assert int(own.sum()) == end - begin
        assert (pack.frame_begin[first:last] == begin).all()
        assert torch.equal(pack.frame_end[first:last].long(), begin + own.long().cumsum(0))  # a row sees the frames so far
        assert torch.equal(pack.position_ids[first:last], torch.arange(last - first))
        assert torch.equal(pack.frame_positions[begin:end], own.nonzero().flatten())
        assert pack.targets[last - 1] == IGNORE_INDEX
    learned = pack.targets != IGNORE_INDEX
    following = torch.cat([pack.input_ids[1:], pack.input_ids[:1]])
    assert torch.equal(pack.targets[learned], following[learned])
    assert not (learned & torch.cat([marker[1:], marker[:1]])).any()  # frames are not predicted


def test_offline_text_sees_its_whole_video_and_a_stream_what_has_passed() -> None:
    config = tiny_config()
    offline = pack_of(config, [PackSample("video", 40, 8)])
    assert offline.frame_positions.tolist() == list(range(1, 9)) and (offline.frame_end[8:] == 8).all()
    stream = pack_of(config, [PackSample("stream", 40, 8)], asked=0.25)
    assert stream.frame_positions.tolist() == [8 + 4 * i for i in range(8)]
    assert batch_work(stream).cross_pairs < 0.6 * batch_work(offline).cross_pairs


def test_the_users_turn_is_not_learned() -> None:
    config = tiny_config()
    everything, answers = (pack_of(config, [PackSample("text", 40, 0)], asked=asked) for asked in (0.0, 0.25))
    assert (everything.num_targets, answers.num_targets) == (39, 30)
    assert (answers.targets[:9] == IGNORE_INDEX).all() and answers.targets[9] != IGNORE_INDEX


def test_without_pixels_the_work_is_the_same() -> None:
    config = tiny_config()
    with_pixels, without = (stage_pack(config, "pt2", 200, 12, pixels=pixels) for pixels in (True, False))
    assert batch_work(with_pixels) == batch_work(without) and without.frames.numel() == 0


@pytest.mark.parametrize(
    ("stage", "rows", "frames", "message"),
    [
        ("pt3", 64, 0, "the stage is 'pt3'; use one of pt1"),
        ("pt2", 64, 40, "64 rows do not hold 40 frames"),
        ("pt2", 4, 0, "4 rows"),
    ],
)
def test_bad_sizes_are_named(stage: str, rows: int, frames: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        stage_samples(stage, rows, frames)
