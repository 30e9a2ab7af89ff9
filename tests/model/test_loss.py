"""Sums of the loss: weights in the numerator only, classes, ignored rows."""

from __future__ import annotations

import torch

from model.loss import mask_padded_columns, sum_losses


def test_silence_weighs_in_the_sum_and_counts_fully() -> None:
    losses = torch.tensor([1.0, 2.0, 4.0, 8.0], requires_grad=True)
    targets = torch.tensor([5, 31, -100, 31])
    classes = torch.tensor([1, 2, 0, 2], dtype=torch.int8)
    sums = sum_losses(losses, targets, classes, silence_id=31, silence_weight=0.1)
    assert sums.total.item() == 1.0 + 0.1 * 10.0
    assert sums.count.dtype == torch.int64 and int(sums.count) == 3
    assert sums.class_sums.tolist() == [0.0, 1.0, 10.0, 0.0]
    assert sums.class_counts.tolist() == [0, 1, 2, 0]
    sums.total.backward()
    assert losses.grad is not None
    torch.testing.assert_close(losses.grad, torch.tensor([1.0, 0.1, 0.0, 0.1]))


def test_without_targets_everything_is_zero() -> None:
    sums = sum_losses(torch.zeros(3, requires_grad=True), torch.full((3,), -100))
    assert sums.total.item() == 0 and int(sums.count) == 0 and sums.class_counts.tolist() == [0, 0, 0, 0]
    sums.total.backward()


def test_padded_columns_never_reach_a_softmax() -> None:
    logits = torch.zeros(2, 4)
    assert mask_padded_columns(logits, 8, 1) is logits
    last = mask_padded_columns(logits, 6, 1)
    torch.testing.assert_close(last.softmax(-1), torch.tensor([[0.5, 0.5, 0.0, 0.0]]).expand(2, 4))
    assert bool((mask_padded_columns(logits, 3, 1) < -1e30).all()), "a rank may hold padding only"
