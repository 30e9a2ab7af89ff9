"""The config's choice of backend reaches the attention of every cross layer."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch

from model.attention import cores
from model.attention.cross.attention import check_training, cross_attention
from model.errors import InputError
from model.text.transformer_config import make_transformer_config
from model.video_mllama import build_decoder_chunks
from tests.model.small import packed_rows, small_config


@pytest.mark.parametrize("backend", ["torch", "varlen", "dense"])
def test_the_decoder_attends_with_the_chosen_backend(backend: str, solo: None) -> None:
    config = small_config()
    (chunk,) = build_decoder_chunks(config, make_transformer_config(config, cross_attention=backend))
    rows = packed_rows(config, [(24, [0, 5, 11])], 1)
    states = torch.randn(3, config.vision.tokens_per_frame, config.text.hidden_size)
    with patch.object(cores, "cross_attention", wraps=cross_attention) as called:
        losses = chunk(rows, states)
    assert len(called.call_args_list) == len(config.text.cross_attention_layers)
    assert all(call.kwargs["backend"] == backend for call in called.call_args_list)
    assert torch.isfinite(losses).all()


@pytest.mark.parametrize("backend", ["varlen", "dense"])
def test_a_backend_that_cannot_merge_is_refused_under_context_parallelism(backend: str) -> None:
    with pytest.raises(InputError, match=f"attention.cross is {backend} with parallel.context 2"):
        make_transformer_config(small_config(), context=2, cross_attention=backend)


@pytest.mark.skipif(torch.cuda.is_available(), reason="flex trains on CUDA")
@pytest.mark.parametrize(("backend", "named"), [("flex", "no backward pass without a CUDA device"), ("flash", "flash-attn-4")])
def test_a_backend_that_cannot_train_here_is_refused_before_the_first_step(backend: str, named: str) -> None:
    with pytest.raises(InputError, match=f"attention.cross is {backend}.*{named}"):
        make_transformer_config(small_config(), dtype="bf16", cross_attention=backend)


def test_varlen_is_refused_for_fp32_on_a_gpu() -> None:
    check_training("varlen", torch.device("cpu"), torch.float32, 128)
    check_training("varlen", torch.device("cuda"), torch.bfloat16, 128)
    with pytest.raises(InputError, match=r"varlen, whose kernels take bf16, not torch.float32"):
        check_training("varlen", torch.device("cuda"), torch.float32, 128)
