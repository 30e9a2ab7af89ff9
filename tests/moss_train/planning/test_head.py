"""Bytes from the head to the losses and back, as the head's own functions allocate them."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.config import TextConfig, VideoMllamaConfig
from model.head_loss import GIB, HeadLoss
from moss_train.config.schema import ParallelConfig
from moss_train.planning import activations
from moss_train.planning.activations import LayerShape, head, logits_again
from tests.model.test_head_loss import ALONE
from tests.moss_train.planning.live import Live

FULL = LayerShape(VideoMllamaConfig(), ParallelConfig(), 2, True)
WIDTH, COLUMNS = 32, 2048
SMALL = LayerShape(
    VideoMllamaConfig(text=TextConfig(hidden_size=WIDTH, num_attention_heads=4, num_key_value_heads=2, vocab_size=COLUMNS)),
    ParallelConfig(), 2, True,
)  # fmt: skip


@pytest.mark.parametrize("targets", [32, 64, 100, 256])
@pytest.mark.parametrize("pieces_kept", [0, 1, 2.5, 100])
def test_logits_take_what_is_counted(targets: int, pieces_kept: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activations, "PIECE", 32)
    kept = pieces_kept * 32 * COLUMNS * 2
    torch.manual_seed(0)
    hidden = torch.randn(targets, WIDTH, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(COLUMNS, WIDTH, dtype=torch.bfloat16)  # its gradient is added in place on a GPU, and made apart here
    wanted = torch.randint(0, COLUMNS, (targets,))
    with Live(after=("mm",)) as live:
        losses = HeadLoss(COLUMNS, kept, 32)(hidden, weight, wanted, ALONE)
        losses.sum().backward()
    _, logits = head(SMALL, targets, targets, True, kept / GIB)
    small = 16 * 8 * targets  # numbers by row
    assert logits <= live.most + 1 and live.most <= logits + small


@given(st.integers(1, 20000), st.floats(0, 4), st.floats(0, 4))
def test_more_room_for_logits_is_more_memory_and_less_work(targets: int, one: float, other: float) -> None:
    less, more = sorted((one, other))
    assert logits_again(FULL, targets, less) >= logits_again(FULL, targets, more) >= 0
    assert head(FULL, targets, targets, True, less)[1] <= head(FULL, targets, targets, True, more)[1]
    assert logits_again(FULL, targets, 100.0) == 0
    every = targets * FULL.model.text.vocab_size * 2
    assert head(FULL, targets, targets, True, more)[1] <= every + targets * FULL.model.text.hidden_size * 2
    split = dataclasses.replace(FULL, parallel=ParallelConfig(tensor=2))
    assert logits_again(split, targets, less) <= logits_again(FULL, targets, less)
