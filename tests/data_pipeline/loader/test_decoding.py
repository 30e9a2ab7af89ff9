"""`data.decode` reaches the decoder of a loader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from data_pipeline.loader import build_loader
from data_pipeline.media.backend import import_problem
from data_pipeline.schema import Media, Message, Sample
from data_pipeline.shards import write_samples
from model.errors import InputError
from moss_train.config.schema import DecodeConfig, FrameConfig
from tests.data_pipeline.helpers import data_config, model_config, stage_config, tokenizer
from tests.data_pipeline.media.clips import moving_clip

COUNT = 12


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    clip = moving_clip(COUNT, preset="medium", **{"x264-params": "bframes=3:b-adapt=0"})
    messages = [Message(role="user", content="<|video|>what ?"), Message(role="assistant", content="a ball")]
    sample = Sample(kind="video", messages=messages, media=[Media(type="video", file="0.mp4", fps=8.0)])
    write_samples(root / "video", [("clip", sample, {"0.mp4": clip})])
    return root


def frames(root: Path, **decode: Any) -> torch.Tensor:
    """uint8 [COUNT, 3, 64, 64] of the one sample."""
    data = data_config(root, ("video",), decode=DecodeConfig(**decode), shuffle_buffer=0, packing_buffer=1, samples_per_pack=1)
    stage = stage_config(frames=FrameConfig(fps=8.0, min_frames=1, max_frames=COUNT), max_frames_per_pack=COUNT)
    batches = build_loader(data, stage, model_config(), tokenizer())
    try:
        return next(batches).frames  # type: ignore[no-any-return]
    finally:
        batches.close()


def test_the_chosen_decoder_is_used_and_frames_stay_the_same(shards: Path) -> None:
    exact = frames(shards)
    assert exact.shape[0] == COUNT and torch.equal(exact, frames(shards, backend="pyav"))
    if import_problem("opencv") is None:
        assert (exact.int() - frames(shards, backend="opencv").int()).abs().max() <= 2


def test_skipped_frames_repeat_their_neighbours(shards: Path) -> None:
    exact, skipped = frames(shards), frames(shards, skip_non_reference=True)
    repeated = [i for i in range(1, COUNT) if torch.equal(skipped[i], skipped[i - 1])]
    assert repeated and not any(torch.equal(exact[i], exact[i - 1]) for i in range(1, COUNT))


@pytest.mark.skipif(import_problem("torchcodec") is None, reason="torchcodec imports here")
def test_a_decoder_that_does_not_import_is_refused_before_anything_is_read(tmp_path: Path, shards: Path) -> None:
    with pytest.raises(InputError, match=r"data\.decode\.backend is torchcodec, but no such decoder imports here"):
        frames(shards, backend="torchcodec")
