"""What lies between a layer's products as nodes of our own: the numbers of the separate operations."""

from __future__ import annotations

import functools

import pytest
import torch

from inference.vision.attention.choose import choose_backend
from inference.vision.region import whole
from inference.vision.tower import Tower
from tests.inference.vision.towers import published, random_frames, vision_encoder


@pytest.mark.parametrize("fp8", [False, True])
@pytest.mark.parametrize("joint_gelu", [False, True])
def test_the_numbers_of_separate_operations(fp8: bool, joint_gelu: bool) -> None:
    encoder, frames = vision_encoder(), random_frames(2)
    region, attention = whole(encoder.config.vision), choose_backend("auto", torch.device("cpu"), torch.float32)
    separate = Tower(encoder, attention, fp8=fp8, fused=False).run(frames, region)
    fused = Tower(encoder, attention, fp8=fp8, fused=True, joint_gelu=joint_gelu).run(frames, region)
    torch.testing.assert_close(fused, separate, atol=1e-6, rtol=1e-6)
    if not fp8:
        torch.testing.assert_close(fused, published(encoder, frames), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fp8", [False, True])
def test_the_nodes_are_traced(fp8: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    torch.compiler.reset()
    encoder, frames = vision_encoder(), random_frames(2)
    region, attention = whole(encoder.config.vision), choose_backend("auto", torch.device("cpu"), torch.float32)
    plain = Tower(encoder, attention, fp8=fp8, fused=False).run(frames, region)
    traced = Tower(encoder, attention, fp8=fp8, fused=True, compile_layers="default").run(frames, region)
    torch.testing.assert_close(traced, plain, atol=1e-5, rtol=1e-5)
    torch.compiler.reset()
