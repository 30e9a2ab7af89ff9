"""Adapters on one rank: they start as nothing, merge exactly, and get the gradients that the chain rule says."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from model.conversion import gather_hf_weights, load_hf_weights
from model.conversion.fusion import take_apart
from model.conversion.table import decoder_rules
from model.errors import InputError
from model.freeze import PARTS, apply_preset
from model.lora.attach import adapted_layers, attach_adapters, freeze_base
from model.lora.merge import Factors, merge
from model.lora.merge_live import merge_into
from model.lora.spec import MODULES, LoraSpec
from model.rows import PackedRows
from model.video_mllama import VideoMllamaDecoder, build_decoder_chunks, make_transformer_config
from model.vision.encoder import VisionEncoder
from tests.model.small import lively_weights, packed_rows, random_states, small_config, with_text

CONFIG = small_config()
ALL = tuple(MODULES)
WHERE = tuple(part for part in PARTS if part != "projector")
SAMPLES = [(9, [2, 5, 6]), (6, []), (7, [1])]


def spec(rank: int = 3, targets: tuple[str, ...] = ALL, parts: tuple[str, ...] = WHERE) -> LoraSpec:
    """Adapters with a scale of their own."""
    return LoraSpec(rank=rank, alpha=1.5 * rank, targets=targets, parts=parts)


Build = Callable[..., tuple[VideoMllamaDecoder, VisionEncoder]]


@pytest.fixture
def build(solo: None) -> Iterator[Build]:
    """Decoder and encoder with the same lively weights at every call."""

    def make(**options: str) -> tuple[VideoMllamaDecoder, VisionEncoder]:
        (decoder,) = build_decoder_chunks(CONFIG, make_transformer_config(CONFIG, **options))  # type: ignore[arg-type]
        encoder = VisionEncoder(CONFIG)
        load_hf_weights([decoder], encoder, lively_weights(CONFIG, 1))
        return decoder, encoder

    yield make


def fill(decoder: nn.Module, encoder: nn.Module) -> dict[str, Factors]:
    """Gives every B values that matter; returns all factors."""
    generator = torch.Generator().manual_seed(5)
    found = {}
    for layer in adapted_layers([decoder], encoder):
        a, b = layer.adapter.a.data, layer.adapter.b.data
        b.copy_(0.3 * torch.randn(b.shape, generator=generator))
        found[layer.name] = Factors(a.clone(), b.clone())
    return found


def outputs(decoder: nn.Module, encoder: nn.Module) -> list[Tensor]:
    """Logits of packed rows, and features of frames."""
    rows = packed_rows(CONFIG, SAMPLES, 2, targets=False)
    frames = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return [decoder(rows, random_states(CONFIG, rows.num_frames, 2)), encoder(frames, torch.ones(3, dtype=torch.int64))]


def losses(decoder: nn.Module, encoder: nn.Module) -> Tensor:
    """One scalar through tower and decoder."""
    rows: PackedRows = packed_rows(CONFIG, SAMPLES, 4)
    frames = torch.randn(rows.num_frames, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    total: Tensor = decoder(rows, encoder(frames, torch.ones(rows.num_frames, dtype=torch.int64))).sum()
    return total


def test_fresh_adapters_change_nothing(build: Build) -> None:
    decoder, encoder = build()
    before = outputs(decoder, encoder)
    attach_adapters([decoder], encoder, spec(), seed=1)
    assert sum(1 for _ in adapted_layers([decoder], encoder)) == 3 * 4 + 2 * 5 + 4 * 6  # text, cross and tower layers
    assert all(torch.equal(one, two) for one, two in zip(before, outputs(decoder, encoder), strict=True))


def test_merged_weights_compute_what_the_adapted_model_computes(build: Build) -> None:
    decoder, encoder = build()
    base = outputs(decoder, encoder)
    attach_adapters([decoder], encoder, spec(), seed=1)
    factors = fill(decoder, encoder)
    adapted = outputs(decoder, encoder)
    merged_decoder, merged_encoder = build()
    merge_into([merged_decoder], merged_encoder, factors, spec().scale)
    for plain, one, two in zip(base, adapted, outputs(merged_decoder, merged_encoder), strict=True):
        assert (one - two).norm() < 1e-6 * one.norm()
        assert (one - plain).norm() > 0.05 * one.norm(), "the adapters did nothing"


def test_gradients_are_those_of_the_merged_matrix(build: Build) -> None:
    """With W' = W + s B A and G = dL/dW': dL/dB = s G A', dL/dA = s B' G."""
    decoder, encoder = build()
    attach_adapters([decoder], encoder, spec(), seed=1)
    factors = fill(decoder, encoder)
    freeze_base([decoder], encoder)
    losses(decoder, encoder).backward()
    merged_decoder, merged_encoder = build()
    merge_into([merged_decoder], merged_encoder, factors, spec().scale)
    losses(merged_decoder, merged_encoder).backward()
    whole = dict(merged_decoder.named_parameters()) | dict(merged_encoder.named_parameters())
    seen = 0
    for layer in adapted_layers([decoder], encoder):
        gradient, factor = whole[layer.name].grad, factors[layer.name]
        assert gradient is not None and layer.adapter.a.grad is not None and layer.adapter.b.grad is not None
        for got, expected in (
            (layer.adapter.b.grad, spec().scale * gradient @ factor.a.T),
            (layer.adapter.a.grad, spec().scale * factor.b.T @ gradient),
        ):
            assert expected.norm() > 0
            assert (got - expected).norm() < 2e-5 * expected.norm(), layer.name
        seen += 1
    assert seen == 46


@pytest.mark.parametrize(
    ("preset", "train_also", "others"),
    [
        ("all", (), set()),
        ("all", ("projector", "gates"), {"multi_modal_projector.weight", "multi_modal_projector.bias", "gates"}),
        ("vision+projector+xattn", ("projector",), {"multi_modal_projector.weight", "multi_modal_projector.bias"}),
    ],
)
def test_adapters_train_and_little_else(build: Build, preset: str, train_also: tuple[str, ...], others: set[str]) -> None:
    decoder, encoder = build()
    parts = {"all": WHERE, "vision+projector+xattn": ("vision_tower", "cross_layers")}[preset]
    attach_adapters([decoder], encoder, spec(targets=("mlp_fc1", "cross_q"), parts=parts), seed=1)
    apply_preset(preset, [decoder], encoder)
    freeze_base([decoder], encoder, train_also)
    trained = {n for m in (decoder, encoder) for n, p in m.named_parameters() if p.requires_grad}
    layers = range(5) if preset == "all" else (1, 3)
    expected = {f"decoder.layers.{i}.mlp.linear_fc1.adapter.{f}" for i in layers for f in "ab"}
    expected |= {f"decoder.layers.{i}.cross_attention.linear_q.adapter.{f}" for i in (1, 3) for f in "ab"}
    if "gates" in others:
        expected |= {f"decoder.layers.{i}.cross_attn_{kind}_gate" for i in (1, 3) for kind in ("attn", "mlp")}
        expected |= {f"vision_model.global_transformer.layers.0.gate_{kind}" for kind in ("attn", "ffn")}
    assert trained == expected | (others - {"gates"})


def test_norms_can_train_beside_adapters(build: Build) -> None:
    decoder, encoder = build()
    attach_adapters([decoder], encoder, spec(targets=("mlp_fc1",)), seed=1)
    freeze_base([decoder], encoder, ("norms",))
    trained = {n for m in (decoder, encoder) for n, p in m.named_parameters() if p.requires_grad and "adapter" not in n}
    assert len(trained) == 1 + 5 * 2 + 2 * 2 + 2 * 2 + 4 * 4  # final; two a layer; queries, keys; the tower's, with biases
    assert all("norm" in name for name in trained)


def test_recomputed_layers_train_although_the_embedding_is_frozen(build: Build) -> None:
    found = []
    for recompute in ("none", "full"):
        decoder, encoder = build(recompute=recompute)
        attach_adapters([decoder], encoder, spec(targets=("attention_qkv",)), seed=1)
        fill(decoder, encoder)
        freeze_base([decoder], encoder)
        decoder.train()
        decoder(packed_rows(CONFIG, [(8, [])], 6)).sum().backward()
        found.append([layer.adapter.a.grad for layer in adapted_layers([decoder], encoder)])
    for plain, again in zip(*found, strict=True):
        assert plain is not None and again is not None and plain.norm() > 0
        torch.testing.assert_close(plain, again)


def test_fresh_adapters_depend_on_seed_and_name_alone(build: Build) -> None:
    drawn = []
    for seed, targets in ((1, ALL), (1, ("mlp_fc2",)), (2, ("mlp_fc2",))):
        decoder, encoder = build()
        attach_adapters([decoder], encoder, spec(targets=targets), seed=seed)
        drawn.append({layer.name: layer.adapter.a.detach() for layer in adapted_layers([decoder], encoder)})
        assert not any(layer.adapter.b.any() for layer in adapted_layers([decoder], encoder))
    one, same, other = drawn
    assert all(torch.equal(one[name], a) for name, a in same.items())
    assert all(not torch.equal(other[name], a) for name, a in same.items())
    assert len({float(a.sum()) for a in one.values()}) == len(one)
    wide = torch.cat([a.flatten() * (3 * a.shape[1]) ** 0.5 for a in one.values()])
    assert abs(float(wide.std()) - 1) < 0.05


def test_weights_load_into_an_adapted_model_and_come_back_without_adapters(build: Build) -> None:
    decoder, encoder = build()
    attach_adapters([decoder], encoder, spec(), seed=1)
    fill(decoder, encoder)
    other = lively_weights(CONFIG, 9)
    load_hf_weights([decoder], encoder, other)
    back = gather_hf_weights([decoder], encoder)
    assert back is not None and list(back) == list(other)
    assert all(torch.equal(back[name], other[name]) for name in other)


@pytest.mark.parametrize(
    "name", ["layers.0.self_attention.linear_qkv", "layers.1.cross_attention.linear_kv", "layers.2.mlp.linear_fc1"]
)
def test_a_fused_matrix_merges_as_its_published_parts_do(name: str) -> None:
    rule = next(rule for rule in decoder_rules(CONFIG) if rule.megatron == f"decoder.{name}.weight")
    generator = torch.Generator().manual_seed(3)
    rows = {"query_key_value": 64, "key_value": 32, "gate_up": 96}[rule.fusion]
    base, b = torch.randn(rows, 32, generator=generator), torch.randn(rows, 3, generator=generator)
    a = torch.randn(3, 32, generator=generator)
    whole = take_apart(rule, merge(base, a, b, 0.5), CONFIG.text)
    apart = zip(take_apart(rule, base, CONFIG.text), take_apart(rule, b, CONFIG.text), strict=True)
    for got, (part, part_b) in zip(whole, apart, strict=True):
        torch.testing.assert_close(got, part + 0.5 * part_b @ a)


def test_merging_rounds_once() -> None:
    generator = torch.Generator().manual_seed(8)
    base = torch.randn(40, 24, generator=generator).bfloat16()
    a, b = torch.randn(4, 24, generator=generator).bfloat16(), torch.randn(40, 4, generator=generator).bfloat16()
    expected = (base.double() + 0.01 * b.double() @ a.double()).bfloat16()
    merged = merge(base, a, b, 0.01)
    assert merged.dtype == torch.bfloat16
    assert (merged != expected).float().mean() < 1e-2, "only a sum at the edge of two values may fall to the other side"


@pytest.mark.parametrize(
    ("asked", "config", "named"),
    [
        (spec(rank=33), CONFIG, "lora.rank is 33, but the smaller side of attention_qkv is 32"),
        (spec(rank=17, targets=("vision_mlp",)), CONFIG, "vision_mlp is 16"),
        (spec(targets=("cross_q",)), with_text(CONFIG, cross_attention_layers=()), "cross_q, but the model has no such layer"),
        (spec(targets=("vision_mlp",), parts=("text",)), CONFIG, "vision_mlp, whose layers stage.trainable leaves frozen"),
        (spec(targets=("attention_qkv",), parts=()), CONFIG, "it trains nothing with adapters"),
        (spec(targets=("mlp_fc2",), parts=("cross_layers",)), with_text(CONFIG, cross_attention_layers=()), "mlp_fc2, whose"),
    ],
)
def test_adapters_without_a_place_are_refused(asked: LoraSpec, config: object, named: str) -> None:
    with pytest.raises(InputError, match=named.replace("(", r"\(")):
        asked.check(config)  # type: ignore[arg-type]


def test_a_layer_that_norms_its_own_input_is_refused(build: Build) -> None:
    decoder, encoder = build()
    decoder.decoder.layers[2].mlp.linear_fc1.layer_norm_weight = nn.Parameter(torch.ones(32))
    with pytest.raises(InputError, match=r"layers.2.mlp.linear_fc1.*modules=torch"):
        attach_adapters([decoder], encoder, spec(), seed=1)
