"""Work beside: without a second stream it is done at once; with one what follows waits only when it is told to."""

from __future__ import annotations

import pytest
import torch

from moss_train.parallel.beside import Beside


def test_without_a_stream_work_is_done_where_it_stands() -> None:
    done: list[int] = []
    beside = Beside(torch.device("cpu"))
    beside.run(lambda: done.append(1), torch.ones(1), None)
    assert done == [1]
    beside.join()


@pytest.mark.gpu
def test_work_is_behind_what_stood_before_and_what_is_joined_behind_it() -> None:
    device = torch.device("cuda", 0)
    beside = Beside(device)
    before, after = torch.zeros(4, device=device), torch.zeros(4, device=device)
    torch.cuda.synchronize()
    torch.cuda._sleep(100_000_000)
    before.fill_(3)

    def work() -> None:
        torch.cuda._sleep(200_000_000)
        after.copy_(before)

    beside.run(work, before)
    beside.join()
    assert (after * 1).tolist() == [3.0] * 4


@pytest.mark.gpu
def test_what_follows_does_not_wait_for_the_work() -> None:
    """One kernel: a second of the same stream would hold up all streams where CUDA_DEVICE_MAX_CONNECTIONS is 1, as here."""
    device = torch.device("cuda", 0)
    beside, done, follows = Beside(device), torch.cuda.Event(), torch.cuda.Event()
    torch.ones(4, device=device).sum().item()

    def work() -> None:
        torch.cuda._sleep(2_000_000_000)  # about a second
        done.record()

    beside.run(work)
    torch.ones(4, device=device).sum()
    follows.record()
    follows.synchronize()
    assert not done.query()
    beside.join()
    torch.cuda.synchronize()
    assert done.query()


@pytest.mark.gpu
def test_switched_off_all_is_one_stream() -> None:
    device = torch.device("cuda", 0)
    beside, found = Beside(device, on=False), []
    beside.run(lambda: found.append(torch.cuda.current_stream(device)))
    assert found == [torch.cuda.current_stream(device)]
