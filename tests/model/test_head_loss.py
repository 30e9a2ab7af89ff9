"""Losses of a head in pieces: those of the whole logits, with their gradients, whatever the pieces and what is kept."""

from __future__ import annotations

import weakref

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from model import head_loss
from model.head_loss import HeadLoss
from model.kernels.logit_rows import NOT_HERE, row_statistics, softmax_gradient_
from model.rows import IGNORE_INDEX


class _Alone:
    """A group of one rank."""

    def size(self) -> int:
        return 1

    def rank(self) -> int:
        return 0


ALONE: dist.ProcessGroup = _Alone()  # type: ignore[assignment]


def _numbers(rows: int, columns: int, vocab: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, 12, generator=random, requires_grad=True)
    weight = torch.randn(columns, 12, generator=random, requires_grad=True)
    targets = torch.randint(0, vocab, (rows,), generator=random)
    targets[torch.rand(rows, generator=random) < 0.3] = IGNORE_INDEX
    upstream = torch.rand(rows, generator=random)
    return hidden, weight, targets, upstream


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 23), padding=st.integers(0, 5), piece=st.integers(1, 25), kept=st.sampled_from([0.0, 600.0, 1e9]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_losses_and_gradients_are_those_of_the_whole_logits(rows: int, padding: int, piece: int, kept: float, seed: int) -> None:
    vocab = 17
    hidden, weight, targets, upstream = _numbers(rows, vocab + padding, vocab, seed)
    expected = F.cross_entropy((hidden @ weight.t())[:, :vocab], targets, ignore_index=IGNORE_INDEX, reduction="none")
    expected_gradients = torch.autograd.grad((expected * upstream).sum(), [hidden, weight])

    losses = HeadLoss(vocab, kept, piece)(hidden, weight, targets, ALONE)
    gradients = torch.autograd.grad((losses * upstream).sum(), [hidden, weight])

    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)
    for found, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_weights_gradient_is_added_to_the_buffer_of_ddp(dtype: torch.dtype) -> None:
    hidden, weight, targets, upstream = _numbers(9, 20, 20, seed=3)
    hidden, weight = (x.detach().to(dtype).requires_grad_() for x in (hidden, weight))
    (plain,) = torch.autograd.grad((HeadLoss(20, 0.0, 4)(hidden, weight, targets, ALONE) * upstream).sum(), [weight])
    weight.main_grad = torch.ones(20, 12)  # type: ignore[attr-defined]

    (HeadLoss(20, 0.0, 4)(hidden, weight, targets, ALONE) * upstream).sum().backward()

    assert weight.grad is None, "DDP would add it once more"
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(weight.main_grad - 1, plain.float(), rtol=tolerance, atol=tolerance)  # type: ignore[attr-defined]


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_what_does_not_train_gets_no_gradient(frozen: str) -> None:
    hidden, weight, targets, _ = _numbers(9, 20, 20, seed=4)
    {"hidden": hidden, "weight": weight}[frozen].requires_grad_(False)
    HeadLoss(20, 1e9, 4)(hidden, weight, targets, ALONE).sum().backward()
    assert (hidden.grad is None) == (frozen == "hidden")
    assert (weight.grad is None) == (frozen == "weight")


def test_logits_are_kept_only_within_the_room_and_only_for_a_backward_pass() -> None:
    hidden, weight, targets, _ = _numbers(12, 20, 20, seed=5)
    one = 4 * 20 * 4  # bytes of a piece
    for room, pieces in ((0.0, 0), (one - 1.0, 0), (2.0 * one, 2), (1e9, 3)):
        losses = HeadLoss(20, room, 4)(hidden, weight, targets, ALONE)
        assert len(losses.grad_fn.kept) == pieces  # type: ignore[union-attr]
        losses.sum().backward()
        assert not losses.grad_fn.kept  # type: ignore[union-attr]
    with torch.no_grad():
        assert HeadLoss(20, 1e9, 4)(hidden, weight, targets, ALONE).grad_fn is None


def test_without_autograd_logits_of_one_piece_exist_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, targets, _ = _numbers(12, 20, 20, seed=5)
    seen: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []

    def watched(logits: torch.Tensor, own: torch.Tensor, columns: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        alive.append(sum(reference() is not None for reference in seen))
        seen.append(weakref.ref(logits))
        return row_statistics(logits, own, columns)

    monkeypatch.setattr(head_loss, "row_statistics", watched)
    with torch.no_grad():
        HeadLoss(20, 1e9, 4)(hidden, weight, targets, ALONE)
    assert alive == [0, 0, 0]


def test_shares_of_a_vocabulary_add_up() -> None:
    hidden, weight, targets, _ = _numbers(11, 20, 18, seed=6)
    logits = (hidden @ weight.t()).detach()
    whole = row_statistics(logits, targets.clamp(min=0), 18)
    shares = []
    for begin in (0, 10):
        own = torch.where((targets >= begin) & (targets < begin + 10), targets - begin, torch.full_like(targets, NOT_HERE))
        shares.append((own, row_statistics(logits[:, begin : begin + 10], own, 10 if begin == 0 else 8)))
    most = torch.maximum(shares[0][1][0], shares[1][1][0])
    torch.testing.assert_close(most, whole[0])
    total = sum(s[1] * (s[0] - most).exp() for _, s in shares)
    torch.testing.assert_close(total, whole[1])
    nothing = row_statistics(logits, torch.full_like(targets, NOT_HERE), 0)
    assert bool((nothing[0] == -torch.inf).all()) and bool((nothing[1] == 0).all())
    log_total = most + torch.log(torch.as_tensor(total))
    gradient = softmax_gradient_(logits.clone(), shares[0][0], log_total, torch.ones(11), 18)
    assert bool((gradient[:, 18:] == 0).all())


@pytest.mark.gpu
@pytest.mark.parametrize("columns", [128_256, 5_000])
def test_kernels_on_a_gpu_give_what_torch_gives(columns: int) -> None:
    random = torch.Generator("cuda").manual_seed(0)
    logits = (4 * torch.randn(70, columns + 8, generator=random, device="cuda")).bfloat16()
    targets = torch.randint(0, columns, (70,), generator=random, device="cuda")
    targets[::7] = NOT_HERE
    factor = torch.rand(70, generator=random, device="cuda")
    expected = row_statistics(logits, targets, columns, form="torch")
    found = row_statistics(logits, targets, columns, form="triton")
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    log_total = expected[0] + expected[1].log()
    wanted = softmax_gradient_(logits.clone(), targets, log_total, factor, columns, form="torch")
    gradient = softmax_gradient_(logits.clone(), targets, log_total, factor, columns, form="triton")
    torch.testing.assert_close(gradient, wanted, rtol=1e-2, atol=1e-6)
