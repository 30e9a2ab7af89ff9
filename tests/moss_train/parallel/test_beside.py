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
def test_work_is_behind_what_stood_before_and_beside_what_follows() -> None:
    device = torch.device("cuda", 0)
    beside = Beside(device)
    before, after = torch.zeros(4, device=device), torch.zeros(4, device=device)
    torch.cuda.synchronize()

    def work() -> None:
        torch.cuda._sleep(2_000_000_000)  # about a second
        after.copy_(before)
        done.record()

    done, follows = torch.cuda.Event(), torch.cuda.Event()
    torch.cuda._sleep(100_000_000)
    before.fill_(3)
    beside.run(work, before)
    (before * 2).sum()
    follows.record()
    follows.synchronize()
    assert not done.query(), "what follows has not waited for the work"
    beside.join()
    assert (after * 1).tolist() == [3.0] * 4 and done.query()


@pytest.mark.gpu
def test_switched_off_all_is_one_stream() -> None:
    device = torch.device("cuda", 0)
    beside, found = Beside(device, on=False), []
    beside.run(lambda: found.append(torch.cuda.current_stream(device)))
    assert found == [torch.cuda.current_stream(device)]
