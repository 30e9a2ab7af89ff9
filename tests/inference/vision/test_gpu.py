"""On a GPU: compiled layers, captured calls, streams and fp8 against the published tower."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F

from inference.vision.encoder import FrameEncoder
from inference.vision.mode import VISION_MODES, VisionMode
from inference.vision.region import Region
from model.vision.encoder import VisionEncoder
from tests.inference.vision.towers import published, random_frames, vision_config
from tests.model.small import lively_weights

pytestmark = pytest.mark.gpu

BF16 = 0.05


def _on_device(dtype: torch.dtype = torch.bfloat16) -> VisionEncoder:
    """Widths that every backend and fp8 product takes: heads of 80, as the published tower's."""
    config = vision_config()
    vision = dataclasses.replace(config.vision, hidden_size=320, num_attention_heads=4, intermediate_size=640)
    config = dataclasses.replace(config, vision=vision)
    encoder = VisionEncoder(config)
    weights = lively_weights(config, seed=1)
    encoder.load_state_dict({name: value for name, value in weights.items() if not name.startswith("language_model.")})
    return encoder.requires_grad_(False).to("cuda", dtype)


def _expected(encoder: VisionEncoder, frames: torch.Tensor) -> torch.Tensor:
    """In fp32 on the device."""
    return published(copy.deepcopy(encoder).float(), frames.cuda(), torch.ones(len(frames), dtype=torch.int64, device="cuda"))


@pytest.mark.parametrize("compile_layers", ["off", "default"])
def test_exact_mode_in_fp32(compile_layers: str) -> None:
    encoder, frames = _on_device(torch.float32), random_frames(7)
    got = FrameEncoder(encoder, chunk=4, graph_sizes=(1, 2), compile_layers=compile_layers).encode(frames)
    torch.testing.assert_close(got, _expected(encoder, frames), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("joint_gelu", [False, True])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("compile_layers", ["off", "default"])
def test_exact_mode_in_bf16(compile_layers: str, fused: bool, joint_gelu: bool) -> None:
    encoder, frames = _on_device(), random_frames(7)
    expected = _expected(encoder, frames)
    vision = FrameEncoder(encoder, chunk=4, graph_sizes=(1, 2), compile_layers=compile_layers, fused=fused, joint_gelu=joint_gelu)
    got = vision.encode(frames).float()
    assert F.cosine_similarity(got.flatten(1), expected.flatten(1)).min() > 0.999
    torch.testing.assert_close(got, expected, atol=BF16 * float(expected.abs().max()), rtol=0)


def test_captured_calls_equal_direct_ones_whatever_ran_before() -> None:
    encoder, frames = _on_device(), random_frames(12)
    plain = FrameEncoder(encoder, chunk=12, graph_sizes=(), compile_layers="off").encode(frames)
    captured = FrameEncoder(encoder, chunk=16, graph_sizes=(1, 2, 4), compile_layers="off")
    for begin, end in ((0, 1), (3, 7), (1, 2), (5, 7), (0, 7)):
        got = captured.encode(frames[begin:end]).float()
        torch.testing.assert_close(got, plain[begin:end].float(), atol=BF16, rtol=BF16)


@pytest.mark.parametrize("name", ["valid_rows", "fp8", "fast"])
def test_fast_modes_stay_close(name: str) -> None:
    encoder = _on_device()
    frames = random_frames(1, height=18).repeat(6, 1, 1, 1)
    expected = _expected(encoder, frames)
    for sizes in ((), (1, 2, 4)):
        got = FrameEncoder(encoder, mode=VISION_MODES[name], chunk=4, graph_sizes=sizes).encode(frames).float()
        assert F.cosine_similarity(got.flatten(1), expected.flatten(1)).min() > 0.995


def test_sessions_of_one_region_share_captured_calls() -> None:
    encoder = _on_device()
    clips = [random_frames(3, height=18, seed=seed) for seed in (1, 2)]
    mode = VisionMode(valid_rows=True)
    direct = [FrameEncoder(encoder, mode=mode, graph_sizes=(), compile_layers="off").encode(frames).float() for frames in clips]
    captured = FrameEncoder(encoder, mode=mode, graph_sizes=(1, 2), compile_layers="off")
    state = [captured.new_clip(), captured.new_clip()]
    for i in range(3):
        tickets = [captured.submit(clips[number][i], clip=state[number]) for number in (0, 1)]
        for number, ticket in enumerate(tickets):
            torch.testing.assert_close(ticket.features().float()[0], direct[number][i], atol=BF16, rtol=BF16)


def test_frames_that_arrive_are_encoded_beside_the_current_stream() -> None:
    encoder, frames = _on_device(), random_frames(9)
    expected = _expected(encoder, frames)
    vision = FrameEncoder(encoder, chunk=4, graph_sizes=(1, 2, 4))
    vision.warm_up()
    tickets = [vision.submit(frame) for frame in frames]
    tickets[8].cancel()
    got = torch.cat([ticket.features() for ticket in tickets[:8]]).float()
    assert F.cosine_similarity(got.flatten(1), expected[:8].flatten(1)).min() > 0.999
    torch.cuda.synchronize()
    assert all(ticket.ready for ticket in tickets[:8]) and not tickets[8].ready


def test_no_memory_is_asked_of_the_device_once_warm() -> None:
    encoder, frames = _on_device(), random_frames(8)
    vision = FrameEncoder(encoder, chunk=8, graph_sizes=(1, 2, 4))
    vision.warm_up()
    for _ in range(2):
        for frame in frames:
            vision.submit(frame).features()
    torch.cuda.synchronize()
    before = torch.cuda.memory_stats()["num_device_alloc"]
    for frame in frames:
        vision.submit(frame).features()
    torch.cuda.synchronize()
    assert torch.cuda.memory_stats()["num_device_alloc"] == before


def test_frames_on_the_device_are_searched_once_for_a_clip_and_never_when_handed_in() -> None:
    encoder, frames = _on_device(), random_frames(3, height=18)
    vision = FrameEncoder(encoder, mode=VisionMode(valid_rows=True), graph_sizes=(), compile_layers="off")
    clip = vision.new_clip()
    here, there = vision.encode(frames), vision.encode(frames.cuda(), clip=clip)
    assert clip.region == Region(3, 4)
    torch.testing.assert_close(there.float(), here.float(), atol=BF16, rtol=BF16)
    torch.testing.assert_close(vision.encode(frames.pin_memory()), here, atol=0, rtol=0)
    taller = random_frames(1).cuda()
    expected = _expected(encoder, taller)
    got = vision.submit(taller[0], clip=clip).features().float()
    assert F.cosine_similarity(got.flatten(1), expected.flatten(1)).min() > 0.999


def test_frames_on_the_device_are_handed_in_without_waiting_for_it() -> None:
    encoder, frames = _on_device(), random_frames(1).repeat(4, 1, 1, 1)
    vision = FrameEncoder(encoder, mode=VisionMode(near_duplicate=4.0), graph_sizes=(1,), compile_layers="off")
    vision.warm_up()
    clip, there = vision.new_clip(), frames.cuda()
    vision.submit(there[0], clip=clip).features()
    torch.cuda.set_sync_debug_mode("error")
    try:
        tickets = [vision.submit(frame, clip=clip) for frame in there]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len({id(ticket._job) for ticket in tickets}) == 4
    assert len(vision.encode(there)) == 4
