"""Muon against its definition."""

from __future__ import annotations

import pytest
import torch

from model.conversion.fusion import fuse, take_apart
from model.conversion.table import decoder_rules
from moss_train.engines.optimizer.muon import Matrix, Muon, muon_matrix, muon_update, orthogonalised
from tests.moss_train.packs import tiny_config


@pytest.mark.parametrize("shape", [(16, 48), (48, 16), (32, 32)])
def test_singular_values_come_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 7
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    got = orthogonalised(matrix)
    values = torch.linalg.svdvals(got)
    large = s > 0.02 * s.norm()  # five steps do not lift what is almost 0
    assert values[: int(large.sum())].min() > 0.6 and values.max() < 1.3
    assert torch.nn.functional.cosine_similarity(got.flatten(), (u @ v).flatten(), dim=0) > 0.95


def test_queries_keys_and_values_are_made_orthogonal_apart() -> None:
    config = tiny_config()
    rule = next(rule for rule in decoder_rules(config) if rule.megatron.endswith("linear_qkv.weight"))
    text = config.text
    rows = (text.num_attention_heads + 2 * text.num_key_value_heads) * text.head_dim
    momentum = torch.randn(rows, text.hidden_size, generator=torch.Generator().manual_seed(2))
    parts = take_apart(rule, muon_update(momentum, Matrix(rule, text, None)), text)
    expected = [orthogonalised(part) * 0.2 * max(part.shape) ** 0.5 for part in take_apart(rule, momentum, text)]
    assert len(parts) == 3 and all(torch.allclose(a, b, atol=1e-6) for a, b in zip(parts, expected, strict=True))
    assert not torch.allclose(fuse(rule, parts, text, 1), orthogonalised(momentum) * 0.2 * rows**0.5, atol=1e-2)


def test_everything_else_is_adamw() -> None:
    ours, theirs = (torch.nn.Parameter(torch.linspace(-1, 1, 30)) for _ in range(2))
    group = {"params": [ours], "muon": False, "lr": 1e-2, "weight_decay": 0.1}
    first = Muon([group], {}, 0.95, (0.9, 0.99), 1e-8)
    second = torch.optim.AdamW([theirs], lr=1e-2, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1)
    for i in range(5):
        for parameter, optimizer in ((ours, first), (theirs, second)):
            parameter.grad = torch.sin(torch.arange(30.0) + i)
            optimizer.step()
    assert torch.allclose(ours, theirs, atol=1e-7)


def test_which_parameters_are_its_own() -> None:
    config = tiny_config()
    chosen = {rule.megatron for rule in decoder_rules(config) if muon_matrix(rule.megatron, 2)}
    assert "decoder.layers.1.cross_attention.linear_kv.weight" in chosen and "output_layer.weight" not in chosen
    assert "embedding.word_embeddings.weight" not in chosen
    assert not muon_matrix("decoder.layers.0.mlp.linear_fc1.adapter.a", 2)
    assert not muon_matrix("vision_model.gated_positional_embedding.embedding", 2)
    assert muon_matrix("multi_modal_projector.weight", 2) and not muon_matrix("multi_modal_projector.bias", 1)
