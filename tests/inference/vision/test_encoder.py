"""Exact mode gives the numbers of the published module, whatever the calls it is cut into."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inference.vision.blocks import embed, pool_region
from inference.vision.encoder import FrameEncoder
from inference.vision.mode import vision_mode
from inference.vision.region import whole
from model.errors import InputError
from tests.inference.vision.towers import published, random_frames, vision_encoder

EXACT = 1e-5


@given(
    frames=st.integers(0, 7),
    chunk=st.integers(1, 5),
    sizes=st.none() | st.sets(st.integers(1, 4), max_size=3),
    keep_pad=st.booleans(),
    pool_mode=st.sampled_from(["average", "max", "none"]),
    real=st.lists(st.sampled_from([0, 1, 1, 2]), min_size=7, max_size=7),
    attention=st.sampled_from(["auto", "plain"]),
)
def test_exact_mode_is_the_published_tower(
    frames: int,
    chunk: int,
    sizes: set[int] | None,
    keep_pad: bool,
    pool_mode: str,
    real: list[int],
    attention: str,
) -> None:
    vision = vision_encoder(keep_pad, pool_mode)
    encoder = FrameEncoder(vision, chunk=chunk, graph_sizes=None if sizes is None else sorted(sizes), attention=attention)
    pixels, ids = random_frames(frames), torch.tensor(real[:frames], dtype=torch.int64)
    assert encoder.encode(pixels).shape == (frames, vision.config.vision.tokens_per_frame, vision.config.text.hidden_size)
    assert torch.equal(encoder.encode(pixels[:0]), encoder.encode(pixels)[:0])
    if frames:
        torch.testing.assert_close(encoder.encode(pixels), published(vision, pixels), atol=EXACT, rtol=0)
        torch.testing.assert_close(encoder.encode(pixels, ids), published(vision, pixels, ids), atol=EXACT, rtol=0)


def test_normalised_frames_are_taken_as_they_are() -> None:
    vision = vision_encoder()
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(FrameEncoder(vision).encode(pixels), published(vision, pixels), atol=EXACT, rtol=0)


def test_joint_matrices_leave_the_module_as_it_was_and_hold_nothing_twice() -> None:
    vision = copy.deepcopy(vision_encoder())
    before, owner = published(vision, random_frames(2)), vision.vision_model.transformer.layers[0].self_attn.q_proj.weight
    weights = FrameEncoder(vision).tower.weights
    assert torch.equal(published(vision, random_frames(2)), before)
    attention = vision.vision_model.transformer.layers[0].self_attn
    assert attention.k_proj.weight.untyped_storage().data_ptr() == weights.local[0].qkv.weight.untyped_storage().data_ptr()
    assert owner is not attention.q_proj.weight  # a training run's own parameter is left alone


def test_one_compiled_layer_serves_all_layers() -> None:
    """What the device compiles can be traced whole, and is traced once for each size, not once for each layer.

    Here with the product that has gelu inside, which is one node of the graph.
    """
    from torch._dynamo.testing import CompileCounter

    vision, counter = vision_encoder(), CompileCounter()
    tower = FrameEncoder(vision, attention="sdpa", joint_gelu=True).tower
    tower._block = torch.compile(tower._block, backend=counter, dynamic=False, fullgraph=True)
    tower._embed = torch.compile(embed, backend="eager", dynamic=False, fullgraph=True)
    tower._pool = torch.compile(pool_region, backend="eager", dynamic=False, fullgraph=True)
    frames, region = random_frames(2), whole(vision.config.vision)
    torch.testing.assert_close(tower.run(frames, region), published(vision, frames), atol=EXACT, rtol=0)
    assert counter.frame_count == 1
    tower.run(random_frames(3), region)
    assert counter.frame_count == 2


def test_a_fast_layer_can_be_traced_too() -> None:
    """With fp8 products and borrowed keys; the layer before the post norm, whose output is not rounded, is a second form."""
    from torch._dynamo.testing import CompileCounter

    vision, counter = vision_encoder(), CompileCounter()
    encoder = FrameEncoder(vision, mode=vision_mode("fast"), attention="sdpa")
    frames = random_frames(3, height=18)
    expected = encoder.encode(frames)
    tower, clip = encoder.tower, encoder.new_clip()
    encoder.encode(frames, clip=clip)
    tower._block = torch.compile(tower._block, backend=counter, dynamic=False, fullgraph=True)
    torch.testing.assert_close(encoder.encode(frames, clip=clip), expected, atol=EXACT, rtol=0)
    assert counter.frame_count == 2


@pytest.mark.parametrize("shape", [(2, 3, 32, 16), (3, 32, 32), (2, 1, 32, 32)])
def test_frames_of_another_size_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"frames have the shape .*takes \[F, 3, 32, 32\]"):
        FrameEncoder(vision_encoder()).encode(torch.zeros(shape, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"chunk": 0}, "chunk is 0"),
        ({"attention": "best"}, "'best' is not known"),
        ({"compile_layers": "all"}, "compile is 'all'"),
    ],
)
def test_arguments_that_cannot_be(arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        FrameEncoder(vision_encoder(), **arguments)  # type: ignore[arg-type]
