"""A pack of samples computes what its samples compute alone: losses, gradients, work and memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from model.attention.cores import PackedRowParams
from model.attention.plan import make_plan
from model.rows import IGNORE_INDEX, PackedRows
from model.video_mllama import VideoMllamaDecoder
from tests.model.conftest import BuildDecoder
from tests.model.small import lively_weights, packed_rows, random_states, small_config

Samples = list[tuple[int, list[int]]]
MIXED: Samples = [(9, [2, 5, 6]), (6, []), (7, [1]), (1, []), (8, [0, 7]), (5, [])]
"""Text between videos, frames at a sample's first and last row, a sample of one row."""


def sample_alone(rows: PackedRows, states: Tensor, index: int) -> tuple[PackedRows, Tensor | None]:
    """One sample of a pack as a pack of its own, and its frames' states."""
    a, b = int(rows.cu_seqlens[index]), int(rows.cu_seqlens[index + 1])
    low, high = int(rows.cu_frames[index]), int(rows.cu_frames[index + 1])
    alone = PackedRows(
        input_ids=rows.input_ids[a:b], position_ids=rows.position_ids[a:b], cu_seqlens=torch.tensor([0, b - a]).int(),
        cu_frames=torch.tensor([0, high - low]).int(), frame_begin=rows.frame_begin[a:b] - low,
        frame_end=rows.frame_end[a:b] - low, frame_positions=rows.frame_positions[low:high],
        targets=None if rows.targets is None else rows.targets[a:b],
    )  # fmt: skip
    return alone, states[low:high] if high > low else None


def padded(rows: PackedRows, count: int) -> PackedRows:
    """The pack with a sample of padding rows behind it, as the packer makes it."""
    total, frames = rows.num_rows, rows.num_frames
    assert rows.targets is not None
    return replace(
        rows, cache={},
        input_ids=torch.cat([rows.input_ids, torch.zeros(count, dtype=torch.int64)]),
        position_ids=torch.cat([rows.position_ids, torch.arange(count)]),
        cu_seqlens=torch.cat([rows.cu_seqlens, torch.tensor([total + count], dtype=torch.int32)]),
        cu_frames=torch.cat([rows.cu_frames, torch.tensor([frames], dtype=torch.int32)]),
        frame_begin=torch.cat([rows.frame_begin, torch.full((count,), frames, dtype=torch.int32)]),
        frame_end=torch.cat([rows.frame_end, torch.full((count,), frames, dtype=torch.int32)]),
        targets=torch.cat([rows.targets, torch.full((count,), IGNORE_INDEX)]),
    )  # fmt: skip


def losses_and_gradients(
    decoder: VideoMllamaDecoder, packs: Sequence[tuple[PackedRows, Tensor | None]]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses of all rows, and the summed loss's gradients by parameter name."""
    decoder.zero_grad(set_to_none=True)
    losses = torch.cat([decoder(rows, states) for rows, states in packs])
    losses.sum().backward()
    return losses.detach(), {n: p.grad.clone() for n, p in decoder.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("mode", ["skip", "zero", "attend_all"])
@pytest.mark.parametrize("padding", [0, 5])
def test_a_pack_has_the_losses_and_gradients_of_its_samples(build_decoder: BuildDecoder, mode: str, padding: int) -> None:
    config = small_config(no_visible_rows=mode)
    decoder = build_decoder(config, lively_weights(config, 5))
    rows = packed_rows(config, MIXED, 5)
    states = random_states(config, rows.num_frames, 5)
    found = []
    for together in (True, False):
        leaf = states.clone().requires_grad_()
        packs = [(padded(rows, padding) if padding else rows, leaf)] if together else []
        packs += [] if together else [sample_alone(rows, leaf, i) for i in range(len(MIXED))]
        losses, gradients = losses_and_gradients(decoder, packs)
        assert leaf.grad is not None
        found.append((losses, gradients | {"frames": leaf.grad}))
    (packed, packed_gradients), (alone, alone_gradients) = found
    assert not packed[rows.num_rows :].any(), "padding rows have no loss"
    assert (packed[: rows.num_rows] - alone).norm() <= 1e-6 * alone.norm()
    assert packed_gradients.keys() == alone_gradients.keys()
    for name, expected in alone_gradients.items():
        assert (packed_gradients[name] - expected).norm() <= 1e-6 * expected.norm(), name


@st.composite
def any_samples(draw: st.DrawFn) -> Samples:
    """Up to five samples with frames anywhere."""
    lengths = draw(st.lists(st.integers(1, 9), min_size=2, max_size=5))
    return [(n, sorted(draw(st.sets(st.integers(0, n - 1), max_size=min(n, 3))))) for n in lengths]


@settings(max_examples=12)
@given(samples=any_samples(), seed=st.integers(0, 2**16), data=st.data())
def test_nothing_of_a_sample_reaches_another(solo: None, samples: Samples, seed: int, data: st.DataObject) -> None:
    """Other tokens and frames in one sample leave every bit of the others' logits, and change its own."""
    config = small_config()
    decoder = _decoder(seed % 3)
    rows = packed_rows(config, samples, seed, targets=False)
    states = random_states(config, rows.num_frames, seed)
    chosen = data.draw(st.integers(0, len(samples) - 1))
    other, _ = packed_rows(config, samples, seed + 1, targets=False), None
    a, b = int(rows.cu_seqlens[chosen]), int(rows.cu_seqlens[chosen + 1])
    low, high = int(rows.cu_frames[chosen]), int(rows.cu_frames[chosen + 1])
    changed = replace(rows, cache={}, input_ids=torch.cat([rows.input_ids[:a], other.input_ids[a:b], rows.input_ids[b:]]))
    changed_states = torch.cat([states[:low], states[low:high] + 1, states[high:]])
    with torch.no_grad():
        before = decoder(rows, states if rows.num_frames else None)
        after = decoder(changed, changed_states if rows.num_frames else None)
    outside = torch.ones(rows.num_rows, dtype=torch.bool)
    outside[a:b] = False
    assert torch.equal(before[outside], after[outside])
    if not torch.equal(rows.input_ids[a:b], changed.input_ids[a:b]):
        assert not torch.equal(before[a:b], after[a:b])


_BUILT: dict[int, VideoMllamaDecoder] = {}


def _decoder(seed: int) -> VideoMllamaDecoder:
    from model.conversion import load_hf_weights
    from model.video_mllama import build_decoder_chunks, make_transformer_config

    if seed not in _BUILT:
        config = small_config()
        (decoder,) = build_decoder_chunks(config, make_transformer_config(config))
        load_hf_weights(
            [decoder], None, {n: t for n, t in lively_weights(config, seed).items() if n.startswith("language_model.")}
        )
        _BUILT[seed] = decoder
    return _BUILT[seed]


@settings(max_examples=30)
@given(samples=any_samples(), seed=st.integers(0, 2**16))
def test_plans_state_who_sees_what(samples: Samples, seed: int) -> None:
    """Against the rule itself: a row sees earlier rows of its sample and the frames at or before it in its sample."""
    config = small_config()
    rows = packed_rows(config, samples, seed)
    plan = make_plan(rows, config, torch.float32)
    owner = [i for i, (length, _) in enumerate(samples) for _ in range(length)]
    frames = [(i, at) for i, (_, markers) in enumerate(samples) for at in markers]
    within = torch.cat([torch.arange(length) for length, _ in samples])
    inside = torch.zeros(rows.num_rows, rows.num_rows, dtype=torch.bool)
    for a, b in plan.segments:
        inside[a:b, a:b] = True
    assert inside.tolist() == [[one == other for other in owner] for one in owner]
    expected = [[i == owner[t] and at <= int(within[t]) for i, at in frames] for t in range(rows.num_rows)]
    seen = torch.zeros(rows.num_rows, rows.num_frames, dtype=torch.bool)
    for t, (begin, end) in enumerate(zip(plan.cross.begin, plan.cross.end, strict=True)):
        seen[t, begin:end] = True
    assert seen.tolist() == expected
    visible = torch.ones(rows.num_rows) if plan.visible is None else plan.visible.flatten()
    assert visible.tolist() == [float(any(row)) for row in expected]
    torch.testing.assert_close(plan.angles[:, 0], within.float())
    assert plan.num_rows == rows.num_rows


@pytest.mark.parametrize(
    ("samples", "padding", "longest"),
    [([(9, [2]), (6, [])], 0, 9), ([(9, [2])], 3, 9), ([(9, [2])], 0, 9), ([(4, []), (9, [])], 20, 20)],
)
def test_the_longest_sample_is_stated_and_never_the_pack(samples: Samples, padding: int, longest: int) -> None:
    """Kernels take max_seqlen for the length of a sample; at the pack's length megatron-core turns rows by their place in it.

    One sample without padding is the pack: there the two mean the same.
    """
    config = small_config()
    rows = packed_rows(config, samples, 1)
    rows = padded(rows, padding) if padding else rows
    params = PackedRowParams.of(rows, make_plan(rows, config, torch.float32))
    assert params.max_seqlen_q == params.max_seqlen_kv == longest
    assert (params.max_seqlen_q == rows.num_rows) == (len(samples) == 1 and not padding)
    assert torch.equal(params.cu_seqlens_q, rows.cu_seqlens) and params.qkv_format == "thd"


TEXT: Samples = [(24, []), (8, []), (32, [])]
HEADS, HEAD_DIM, SELF_LAYERS, CROSS_LAYERS = 4, 8, 3, 2


@pytest.fixture
def explicit_scores() -> Iterator[None]:
    """Attention as two matrix products and a softmax, so that products and scores can be counted."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


def products(decoder: VideoMllamaDecoder, packs: Sequence[tuple[PackedRows, Tensor | None]]) -> int:
    """Floating-point operations of all matrix products, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        losses_and_gradients(decoder, packs)
    return int(counter.get_total_flops())


def saved_bytes(decoder: VideoMllamaDecoder, rows: PackedRows, states: Tensor | None = None) -> int:
    """Bytes that the forward pass keeps for the backward pass, parameters apart, each storage once."""
    parameters = {p.untyped_storage().data_ptr() for p in decoder.parameters()}
    kept: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        losses = decoder(rows, states).sum()
    held = sum(t.untyped_storage().nbytes() for address, t in kept.items() if address not in parameters)
    losses.backward()
    return held


def one_sample_of(rows: PackedRows) -> PackedRows:
    """The same rows as one sample: dense causal attention over the whole pack."""
    return replace(
        rows, cache={}, cu_seqlens=torch.tensor([0, rows.num_rows], dtype=torch.int32), position_ids=torch.arange(rows.num_rows),
        cu_frames=torch.tensor([0, rows.num_frames], dtype=torch.int32),
    )  # fmt: skip


def test_self_attention_s_work_falls_from_the_square_of_the_pack_to_the_sum_of_squares(
    build_decoder: BuildDecoder, explicit_scores: None
) -> None:
    """Two products of 2 * heads * n * n * d operations a layer, three times with the backward pass."""
    config = small_config()
    decoder = build_decoder(config, lively_weights(config, 1))
    rows = packed_rows(config, TEXT, 1)
    packed, dense = products(decoder, [(rows, None)]), products(decoder, [(one_sample_of(rows), None)])
    alone = products(decoder, [sample_alone(rows, torch.empty(0), i) for i in range(len(TEXT))])
    squares = sum(length**2 for length, _ in TEXT)
    assert (64**2, squares) == (4096, 1664)
    assert dense - packed == SELF_LAYERS * 3 * 2 * 2 * HEADS * HEAD_DIM * (64**2 - squares)
    assert packed == alone, "packing adds no product"


def test_scores_kept_fall_from_the_square_of_the_pack_to_the_sum_of_squares(
    build_decoder: BuildDecoder, explicit_scores: None
) -> None:
    config = small_config()
    decoder = build_decoder(config, lively_weights(config, 1))
    rows = packed_rows(config, TEXT, 1)
    fallen = saved_bytes(decoder, one_sample_of(rows)) - saved_bytes(decoder, rows)
    probabilities = SELF_LAYERS * HEADS * 4 * (64**2 - sum(length**2 for length, _ in TEXT))
    assert fallen == probabilities


def test_cross_attention_s_work_is_that_of_the_samples(build_decoder: BuildDecoder, explicit_scores: None) -> None:
    """Rows times frames of each sample, not rows times all frames of the pack."""
    config = small_config()
    decoder = build_decoder(config, lively_weights(config, 1))
    samples: Samples = [(20, [0, 1, 2, 3]), (12, []), (20, [0, 1])]
    rows = packed_rows(config, samples, 1)
    states = random_states(config, 6, 1)
    packed = products(decoder, [(rows, states)])
    alone = products(decoder, [sample_alone(rows, states, i) for i in range(3)])
    everything = {"frame_begin": torch.zeros(52).int(), "frame_end": torch.full((52,), 6).int()}
    dense = products(decoder, [(replace(one_sample_of(rows), **everything), states)])
    width, inner, keys = 32, 48, config.vision.tokens_per_frame
    self_pairs = 52**2 - sum(length**2 for length, _ in samples)
    cross_pairs = 52 * 6 - ((dense - packed) // (3 * 4 * HEADS * HEAD_DIM) - SELF_LAYERS * self_pairs) / (CROSS_LAYERS * keys)
    visible = int((rows.frame_end - rows.frame_begin).sum())
    assert visible <= cross_pairs <= sum(length * len(frames) for length, frames in samples) < 52 * 6
    # Beside frames, rows of a text sample pass the cross layers' other products: query, output and the three of the MLP.
    assert packed - alone == 3 * CROSS_LAYERS * 2 * 12 * width * (2 * width + 3 * inner)
