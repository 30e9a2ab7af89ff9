"""Adapters beside Transformer Engine's linear layers (its stand-in: the kernels need a GPU)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from model.conversion import load_hf_weights
from model.errors import InputError
from model.lora.attach import attach_adapters, freeze_base, place_adapters
from model.lora.spec import LoraSpec
from model.text.provider import ModuleProvider, torch_provider, transformer_engine_provider
from model.video_mllama import VideoMllamaDecoder, build_decoder_chunks, make_transformer_config
from model.vision.encoder import VisionEncoder
from tests.model.small import lively_weights, packed_rows, random_states, small_config
from tests.model.text.engine_stand_in import State, stand_in

CONFIG = small_config()
SPEC = LoraSpec(
    rank=3, alpha=6.0, targets=("attention_qkv", "attention_proj", "cross_q", "cross_kv", "cross_proj", "mlp_fc1", "mlp_fc2"),
    parts=("text", "cross_layers"),
)  # fmt: skip


@pytest.fixture
def engine(solo: None) -> Iterator[type[State]]:
    with stand_in() as state:
        yield state


def adapted(provider: ModuleProvider) -> VideoMllamaDecoder:
    """A decoder whose adapters have values of their own, the same for every provider."""
    (decoder,) = build_decoder_chunks(CONFIG, make_transformer_config(CONFIG), provider)
    encoder = VisionEncoder(CONFIG)
    load_hf_weights([decoder], encoder, lively_weights(CONFIG, 1))
    attach_adapters([decoder], encoder, SPEC, seed=1)
    generator = torch.Generator().manual_seed(2)
    place_adapters([decoder], encoder, lambda name, factor, shape: 0.3 * torch.randn(shape, generator=generator))
    freeze_base([decoder], encoder)
    return decoder


def test_losses_and_gradients_are_those_beside_torch_modules(engine: type[State]) -> None:
    rows, states = packed_rows(CONFIG, [(20, [0, 5]), (12, [1])], 3), random_states(CONFIG, 3, 1)
    found = []
    for provider in (torch_provider(), transformer_engine_provider(fuse_norms=False)):
        decoder = adapted(provider)
        losses = decoder(rows, states)
        losses.sum().backward()
        found.append((losses.detach(), {n: p.grad for n, p in decoder.named_parameters() if p.grad is not None}))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-6, atol=1e-6)
    assert found[0][1].keys() == found[1][1].keys() and len(found[0][1]) == 2 * (3 * 4 + 2 * 5)
    for name, gradient in found[0][1].items():
        assert (found[1][1][name] - gradient).norm() <= 1e-5 * gradient.norm(), name


def test_layers_that_norm_their_input_are_refused(engine: type[State]) -> None:
    with pytest.raises(InputError, match=r"self_attention\.linear_qkv, made of EngineNormColumnLinear.*use modules=torch"):
        adapted(transformer_engine_provider(fuse_norms=True))
