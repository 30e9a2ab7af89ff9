"""The decoder against its fp64 restatement, and the properties that packing and freezing rest on."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config import VideoMllamaConfig
from model.conversion import load_hf_weights
from model.errors import InputError
from model.freeze import apply_preset
from model.rows import IGNORE_INDEX, PackedRows
from model.text.stages import layers_per_stage
from model.text.transformer_config import make_transformer_config
from model.video_mllama import VideoMllamaDecoder, build_decoder_chunks
from tests.model.conftest import BuildDecoder
from tests.model.oracle import oracle_logits
from tests.model.small import lively_weights, packed_rows, random_states, small_config, with_text

MIXED = [(9, [2, 5, 6]), (6, []), (7, [1]), (1, []), (8, [0, 7])]
"""Samples with several frames, none, one, and frames at both ends."""


@pytest.mark.parametrize("mode", ["skip", "zero", "attend_all"])
@pytest.mark.parametrize("seed", [1, 2])
def test_logits_equal_the_restatement(build_decoder: BuildDecoder, mode: str, seed: int) -> None:
    config = small_config(no_visible_rows=mode)
    weights = lively_weights(config, seed)
    rows = packed_rows(config, MIXED, seed, targets=False)
    states = random_states(config, rows.num_frames, seed)
    logits = build_decoder(config, weights)(rows, states)
    expected = oracle_logits(rows, states, weights, config)
    assert logits.shape == (31, 99)
    assert (logits - expected).abs().max() < 2e-5 * expected.abs().max()


def test_gradients_equal_the_restatement(build_decoder: BuildDecoder) -> None:
    config = small_config()
    weights = lively_weights(config, 3)
    rows = packed_rows(config, MIXED, 3)
    assert rows.targets is not None
    states = random_states(config, rows.num_frames, 3).requires_grad_()
    decoder = build_decoder(config, weights)
    decoder(rows, states).sum().backward()
    ours = {n: p.grad for n, p in decoder.named_parameters()}

    free = {n: t.double().requires_grad_() for n, t in weights.items()}
    oracle_states = states.detach().double().requires_grad_()
    F.cross_entropy(
        oracle_logits(rows, oracle_states, free, config), rows.targets, ignore_index=IGNORE_INDEX, reduction="sum"
    ).backward()
    layer = "language_model.model.layers.1."
    pairs = [
        (states.grad, oracle_states.grad),
        (ours["decoder.layers.1.cross_attn_attn_gate"], free[f"{layer}cross_attn_attn_gate"].grad),
        (ours["decoder.layers.1.cross_attn_mlp_gate"], free[f"{layer}cross_attn_mlp_gate"].grad),
        (ours["decoder.layers.1.cross_attention.k_layernorm.weight"], free[f"{layer}cross_attn.k_norm.weight"].grad),
        (ours["decoder.layers.1.cross_attention.linear_q.weight"], free[f"{layer}cross_attn.q_proj.weight"].grad),
        (ours["embedding.word_embeddings.weight"][:107], free["language_model.model.embed_tokens.weight"].grad),
        (ours["output_layer.weight"][:99], free["language_model.lm_head.weight"].grad),
    ]
    for got, expected in pairs:
        assert got is not None and expected is not None
        assert (got - expected).norm() < 1e-5 * expected.norm()
    assert not ours["output_layer.weight"][99:].any(), "padding rows of the head entered the softmax"


def test_row_losses_are_the_cross_entropies_of_the_logits(build_decoder: BuildDecoder) -> None:
    config = small_config()
    decoder = build_decoder(config, lively_weights(config, 4))
    rows = packed_rows(config, MIXED, 4)
    states = random_states(config, rows.num_frames, 4)
    plain = packed_rows(config, MIXED, 4, targets=False)
    assert rows.targets is not None
    expected = F.cross_entropy(decoder(plain, states), rows.targets, ignore_index=IGNORE_INDEX, reduction="none")
    torch.testing.assert_close(decoder(rows, states), expected, atol=1e-5, rtol=1e-5)


def _sample(rows: PackedRows, states: torch.Tensor, index: int) -> tuple[PackedRows, torch.Tensor | None]:
    """One sample of a pack as a pack of its own."""
    a, b = int(rows.cu_seqlens[index]), int(rows.cu_seqlens[index + 1])
    low, high = int(rows.cu_frames[index]), int(rows.cu_frames[index + 1])
    alone = PackedRows(
        rows.input_ids[a:b], rows.position_ids[a:b], torch.tensor([0, b - a]), torch.tensor([0, high - low]),
        rows.frame_begin[a:b] - low, rows.frame_end[a:b] - low, rows.frame_positions[low:high],
    )  # fmt: skip
    return alone, states[low:high] if high > low else None


@pytest.mark.parametrize("mode", ["skip", "attend_all"])
def test_a_pack_equals_its_samples_alone(build_decoder: BuildDecoder, mode: str) -> None:
    config = small_config(no_visible_rows=mode)
    decoder = build_decoder(config, lively_weights(config, 5))
    rows = packed_rows(config, MIXED, 5, targets=False)
    states = random_states(config, rows.num_frames, 5)
    packed = decoder(rows, states)
    for index in range(len(MIXED)):
        a, b = int(rows.cu_seqlens[index]), int(rows.cu_seqlens[index + 1])
        assert (decoder(*_sample(rows, states, index)) - packed[a:b]).abs().max() < 1e-5


def test_later_tokens_and_frames_change_nothing_before_them(build_decoder: BuildDecoder) -> None:
    config = small_config()
    decoder = build_decoder(config, lively_weights(config, 6))
    rows = packed_rows(config, [(10, [1, 6])], 6, targets=False)
    states = random_states(config, 2, 6)
    before = decoder(rows, states)
    changed = packed_rows(config, [(10, [1, 6])], 6, targets=False)
    changed.input_ids[7] = (changed.input_ids[7] + 1) % 99
    other_frame = states.clone()
    other_frame[1] += 1
    after = decoder(changed, other_frame)
    assert torch.equal(before[:6], after[:6])
    assert not torch.allclose(before[6], after[6]), "a frame is visible to its own image token"


def test_a_text_only_micro_batch_skips_the_cross_layers_in_every_mode(build_decoder: BuildDecoder) -> None:
    results = []
    for mode in ("skip", "zero", "attend_all"):
        config = small_config(no_visible_rows=mode)
        decoder = build_decoder(config, lively_weights(config, 7))
        results.append(decoder(packed_rows(config, [(6, []), (5, [])], 7, targets=False)))
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


@pytest.mark.parametrize("preset", ["projector_only", "vision+projector+xattn", "all"])
def test_frame_states_receive_their_gradient_under_every_preset(build_decoder: BuildDecoder, preset: str) -> None:
    config = small_config()
    weights = lively_weights(config, 8)
    rows = packed_rows(config, MIXED, 8)
    gradients = []
    for trained in ("all", preset):
        decoder = build_decoder(config, weights)
        apply_preset(trained, [decoder], None)
        states = random_states(config, rows.num_frames, 8).requires_grad_()
        decoder(rows, states).sum().backward()
        gradients.append(states.grad)
        has_gradient = {n for n, p in decoder.named_parameters() if p.grad is not None}
        assert has_gradient == {n for n, p in decoder.named_parameters() if p.requires_grad}
    assert gradients[0] is not None and gradients[1] is not None
    assert torch.equal(gradients[0], gradients[1])


def test_bf16_follows_fp32(solo: None) -> None:
    config = small_config()
    weights = {n: t for n, t in lively_weights(config, 11).items() if n.startswith("language_model.")}
    rows = packed_rows(config, MIXED, 11)
    states = random_states(config, rows.num_frames, 11)
    found = []
    for dtype in ("fp32", "bf16"):
        (decoder,) = build_decoder_chunks(config, make_transformer_config(config, dtype=dtype))
        load_hf_weights([decoder], None, weights)
        leaf = states.detach().to(decoder.output_layer.weight.dtype).requires_grad_()
        losses = decoder(rows, leaf)
        assert losses.dtype == torch.float32
        losses.sum().backward()
        assert leaf.grad is not None and leaf.grad.dtype == leaf.dtype
        found.append((losses.detach(), leaf.grad.float()))
    (loss, gradient), (loss16, gradient16) = found
    assert (loss - loss16).norm() < 0.02 * loss.norm()
    assert (gradient - gradient16).norm() < 0.05 * gradient.norm()


def test_a_micro_batch_without_targets_has_zero_loss(build_decoder: BuildDecoder) -> None:
    config = small_config()
    rows = packed_rows(config, MIXED, 9)
    assert rows.targets is not None
    rows.targets.fill_(IGNORE_INDEX)
    losses = build_decoder(config, lively_weights(config, 9))(rows, random_states(config, rows.num_frames, 9))
    assert torch.equal(losses, torch.zeros(31))


def test_frame_states_that_do_not_match_the_rows_are_refused(build_decoder: BuildDecoder) -> None:
    config = small_config()
    rows = packed_rows(config, MIXED, 10)
    with pytest.raises(InputError, match="6 frames but 5 frame states"):
        build_decoder(config, lively_weights(config, 10))(rows, random_states(config, 5, 10))


@given(layers=st.integers(1, 60), stages=st.integers(1, 12))
def test_stages_share_all_layers_evenly(layers: int, stages: int) -> None:
    if stages > layers:
        with pytest.raises(InputError, match="num_hidden_layers"):
            layers_per_stage(layers, stages)
        return
    counts = layers_per_stage(layers, stages)
    assert sum(counts) == layers and len(counts) == stages and max(counts) - min(counts) <= 1


@pytest.mark.parametrize(
    ("sizes", "named"),
    [
        ({"tensor": 3}, "num_attention_heads 4"),
        ({"tensor": 4}, "num_key_value_heads 2"),
        ({"pipeline": 6}, "num_hidden_layers is 5"),
        ({"virtual_pipeline": 2}, "parallel.virtual_pipeline is 2"),
        ({"pipeline": 2, "stage_layers": [2, 2, 1]}, r"stage_layers is \[2, 2, 1\], 3 entries for 2 stages"),
        ({"pipeline": 2, "stage_layers": [5, 0]}, "every stage needs at least 1 layer"),
        ({"pipeline": 2, "stage_layers": [2, 2]}, "sums to 4, but text.num_hidden_layers is 5"),
        ({"stage_layers": [4]}, "sums to 4"),
    ],
)
def test_sizes_that_do_not_fit_are_named(sizes: dict[str, object], named: str) -> None:
    with pytest.raises(InputError, match=named):
        make_transformer_config(small_config(), **sizes)  # type: ignore[arg-type]


def test_an_intermediate_size_that_tensor_parallel_does_not_divide_is_named() -> None:
    with pytest.raises(InputError, match="intermediate_size 49"):
        make_transformer_config(with_text(small_config(), intermediate_size=49), tensor=2)


def test_stages_hold_the_layers_they_are_given() -> None:
    config = make_transformer_config(small_config(), pipeline=2, stage_layers=[1, 4])
    stages = [stage for (stage,) in config.pipeline_model_parallel_layout.layout]
    assert [[layer.name for layer in stage].count("decoder") for stage in stages] == [1, 4]


def test_full_recompute_trains_layers_behind_a_frozen_embedding(solo: None) -> None:
    config = small_config()
    rows = packed_rows(config, MIXED, 3)
    gradients = []
    for recompute, layers in (("none", None), ("full", None), ("full", 2)):
        decoder = _recomputing(config, recompute, layers)
        decoder.embedding.requires_grad_(False)
        decoder(rows, random_states(config, rows.num_frames, 3)).sum().backward()
        gradients.append(decoder.decoder.layers[0].mlp.linear_fc2.weight.grad)
    for gradient in gradients[1:]:
        assert gradient is not None, "recomputation lost the first layer's gradient"
        torch.testing.assert_close(gradients[0], gradient)


def _note(runs: list[int], index: int, *_: object) -> None:
    runs.append(index)


def _recomputing(config: VideoMllamaConfig, recompute: str, layers: int | None) -> VideoMllamaDecoder:
    made = make_transformer_config(config, recompute=recompute, recompute_layers=layers)
    (decoder,) = build_decoder_chunks(config, made)
    weights = lively_weights(config, 1)
    load_hf_weights([decoder], None, {n: t for n, t in weights.items() if n.startswith("language_model.")})
    return decoder


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**16), layers=st.sampled_from([None, 1, 2, 3, 5, 9]))
def test_recomputed_layers_run_twice_and_change_nothing(solo: None, seed: int, layers: int | None) -> None:
    config = small_config()
    rows = packed_rows(config, MIXED, seed)
    found = []
    for recompute in ("none", "full"):
        decoder = _recomputing(config, recompute, layers if recompute == "full" else None)
        runs: list[int] = []
        for index, layer in enumerate(decoder.decoder.layers):
            layer.register_forward_hook(partial(_note, runs, index))
        states = random_states(config, rows.num_frames, seed).requires_grad_()
        losses = decoder(rows, states)
        losses.sum().backward()
        again = [] if recompute == "none" else list(range(config.text.num_hidden_layers))[:layers]
        assert runs == [*range(config.text.num_hidden_layers), *reversed(again)]
        found.append({"losses": losses.detach(), "states": states.grad, **{n: p.grad for n, p in decoder.named_parameters()}})
    for name, gradient in found[0].items():
        assert gradient is not None and found[1][name] is not None, name
        torch.testing.assert_close(gradient, found[1][name], msg=name)
