"""Frames that show the same take the features of the last encoded one; what moves, however small or slow, does not."""

from __future__ import annotations

import torch

from inference.vision.duplicates import DuplicateFilter, difference, thumbnail
from inference.vision.encoder import FrameEncoder
from inference.vision.mode import vision_mode
from tests.inference.vision.towers import published, random_frames, vision_encoder


def test_noise_averages_out_and_a_small_object_does_not() -> None:
    generator = torch.Generator().manual_seed(0)
    frame = torch.full((3, 560, 560), 100, dtype=torch.uint8)
    noisy = frame + torch.randint(-2, 3, frame.shape, generator=generator)
    moved = frame.clone()
    moved[:, 100:112, 200:212] = 200  # 0.05 % of the picture
    assert thumbnail(frame).shape == (3, 64, 64)
    assert difference(thumbnail(noisy.to(torch.uint8)), thumbnail(frame)) < 1.5
    assert difference(thumbnail(moved), thumbnail(frame)) > 50


def test_slow_changes_add_up() -> None:
    found = DuplicateFilter(threshold=8.0)
    levels = [found.is_duplicate(torch.full((3, 32, 32), level, dtype=torch.uint8)) for level in range(100, 130, 3)]
    assert levels == [False, True, True, False, True, True, False, True, True, False]


def test_duplicates_share_features_in_clips_and_streams() -> None:
    vision = vision_encoder()
    base = random_frames(3)
    order = [0, 0, 1, 1, 1, 2, 0, 0]
    frames = base[order]
    frames[1] ^= 1  # one level off everywhere
    encoder = FrameEncoder(vision, mode=vision_mode("exact", near_duplicate=4.0), chunk=3)
    shown = base[order]
    torch.testing.assert_close(encoder.encode(frames), published(vision, shown), atol=1e-5, rtol=0)
    clip = encoder.new_clip()
    tickets = [encoder.submit(frame, clip=clip) for frame in frames]
    torch.testing.assert_close(torch.cat([t.features() for t in tickets]), published(vision, shown), atol=1e-5, rtol=0)
    assert tickets[0]._job is tickets[1]._job
    # Another session's first frame is nobody's duplicate.
    assert encoder.submit(frames[-1], clip=encoder.new_clip())._job is not tickets[-1]._job


def test_a_clip_in_pieces_goes_on_where_it_was() -> None:
    vision, frames = vision_encoder(), random_frames(2)
    encoder = FrameEncoder(vision, mode=vision_mode("exact", near_duplicate=4.0))
    clip = encoder.new_clip()
    first = encoder.encode(frames[:1], clip=clip)
    assert torch.equal(encoder.encode(frames[:1] ^ 1, clip=clip), first)
    assert not torch.equal(encoder.encode(frames[1:], clip=clip), first)
