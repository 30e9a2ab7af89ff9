"""The workload is fixed: the same samples everywhere, with the published shares, within the stages' limits."""

from __future__ import annotations

import hashlib
import itertools
import json
import math

import pytest

from moss_train.config.compose import compose
from moss_train.planning.workload import STAGES, TEXT_TOKENS, draw_packs, draw_samples

DIGESTS = {
    "pt1": "9736cd4fd73559ea",
    "pt2": "6103c4e96df76b6c",
    "sft_offline": "b02c803f9275a221",
    "sft_realtime": "01ef9404f8f3da32",
}
"""Of the first 200 samples: whoever changes the workload changes every number made on it."""


@pytest.mark.parametrize("stage", STAGES)
def test_samples_are_those_of_every_other_machine(stage: str) -> None:
    drawn = [list(sample) for sample in itertools.islice(draw_samples(stage), 200)]
    assert hashlib.sha256(json.dumps(drawn).encode()).hexdigest()[:16] == DIGESTS[stage]
    assert drawn != [list(sample) for sample in itertools.islice(draw_samples(stage, seed=1), 200)]


@pytest.mark.parametrize("stage", STAGES)
def test_shares_and_limits(stage: str) -> None:
    load, samples = STAGES[stage], list(itertools.islice(draw_samples(stage), 5000))
    for kind in ("text", "image", "video"):
        assert sum(s.kind == kind for s in samples) / 50 == pytest.approx(getattr(load, kind), abs=2)
    videos = [s.frames for s in samples if s.kind == "video"]
    assert min(videos) == load.min_frames and max(videos) >= 0.95 * load.max_frames and max(videos) <= load.max_frames
    middle = math.sqrt(load.min_frames * load.max_frames)  # of a logarithmic scale
    assert sum(v < middle for v in videos) / len(videos) == pytest.approx(0.5, abs=0.08)
    assert all(TEXT_TOKENS[0] <= s.tokens <= TEXT_TOKENS[1] for s in samples)
    assert {s.frames for s in samples if s.kind == "image"} == {1}


@pytest.mark.parametrize("stage", STAGES)
def test_table_agrees_with_the_stages_that_are_trained(stage: str) -> None:
    config, load = compose([f"stage={stage}", "run_dir=unused"]), STAGES[stage]
    mixture, limits = config.data.mixture, config.stage
    video = mixture.get("video", 0) + mixture.get("realtime", 0)
    assert [round(100 * share) for share in (mixture["text"], mixture["image"], video)] == [load.text, load.image, load.video]
    assert (limits.frames.min_frames, limits.frames.max_frames) == (load.min_frames, load.max_frames)
    assert (limits.sequence_length, limits.max_frames_per_pack) == (load.sequence_length, load.max_frames_per_pack)
    assert load.trains == ("projector" if limits.trainable == "projector_only" else "tower")


@pytest.mark.parametrize("stage", STAGES)
def test_packs_hold_the_samples_within_the_bounds(stage: str) -> None:
    load, packs = STAGES[stage], list(itertools.islice(draw_packs(stage), 50))
    for pack in packs:
        assert sum(s.rows for s in pack) <= load.sequence_length
        assert sum(s.frames for s in pack) <= load.max_frames_per_pack
    drawn = list(itertools.islice(draw_samples(stage), sum(map(len, packs)) + 16))
    assert all(sample in drawn for pack in packs for sample in pack)
