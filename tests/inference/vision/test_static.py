"""Calls on static buffers, as a CUDA graph replays them."""

from __future__ import annotations

import torch

from inference.vision.encoder import FrameEncoder
from tests.inference.vision.towers import random_frames, vision_encoder


def test_a_static_call_reads_its_buffer_each_time() -> None:
    encoder = FrameEncoder(vision_encoder(), graph_sizes=(1, 2), chunk=2)
    a, b = random_frames(2, seed=1), random_frames(2, seed=2)
    first, second = encoder.encode(a), encoder.encode(b)
    kept = first.clone()
    assert not torch.equal(first, second)
    torch.testing.assert_close(torch.cat([encoder.encode(a[:1]), encoder.encode(a[1:])]), kept, atol=1e-5, rtol=0)
    assert torch.equal(first, kept)  # results are no views of buffers
