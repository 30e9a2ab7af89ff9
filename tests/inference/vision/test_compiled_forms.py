"""How often layers are compiled: for one frame, for full calls, and once for all sizes between."""

from __future__ import annotations

import functools

import pytest
import torch
from torch._dynamo.utils import counters

from inference.vision.attention.choose import choose_backend
from inference.vision.region import whole
from inference.vision.tower import Tower
from tests.inference.vision.towers import random_frames, vision_encoder

FUNCTIONS = 4
"""Embedding, a layer, what lies between the stacks, pooling."""


@pytest.mark.parametrize(("order", "forms"), [((6, 1, 2, 3, 4, 6), 3), ((1, 2, 4, 6, 3), 2)])
def test_sizes_share_what_is_compiled(order: tuple[int, ...], forms: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Traced, and run as it is: writing kernels takes a minute and changes nothing in what is traced.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    torch.compiler.reset()
    encoder = vision_encoder()
    region, attention = whole(encoder.config.vision), choose_backend("auto", torch.device("cpu"), torch.float32)
    plain, tower = Tower(encoder, attention), Tower(encoder, attention, compile_layers="default", full=6)
    before = counters["stats"]["unique_graphs"]
    for size in order:
        frames = random_frames(size)
        torch.testing.assert_close(tower.run(frames, region), plain.run(frames, region), atol=1e-5, rtol=1e-5)
    assert counters["stats"]["unique_graphs"] - before == forms * FUNCTIONS
    torch.compiler.reset()
