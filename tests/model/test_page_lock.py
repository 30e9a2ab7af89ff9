"""Host memory is locked, refused and given back without an error left behind."""

from __future__ import annotations

import pytest
import torch

from model.page_lock import lock_pages, unlock_pages


@pytest.mark.gpu
def test_memory_that_cannot_be_locked_leaves_no_error_for_the_next_kernel() -> None:
    memory = torch.empty(1 << 20, dtype=torch.uint8)
    assert lock_pages(memory)
    try:
        assert not lock_pages(memory), "it is locked already"
        assert torch.ones(4, device="cuda").add_(1).sum().item() == 8
    finally:
        unlock_pages(memory)
    unlock_pages(memory)  # is not locked any more
    assert torch.ones(4, device="cuda").add_(1).sum().item() == 8
