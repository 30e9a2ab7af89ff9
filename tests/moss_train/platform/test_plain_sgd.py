"""SGD takes parameter groups without parameters, as a pipeline stage that trains nothing has them."""

from __future__ import annotations

import megatron.core.optimizer as optimizers
import pytest
import torch

from moss_train.platform import plain_sgd


class _ReadsItsFirstParameter(torch.optim.SGD):
    """Like Transformer Engine's FusedSGD."""

    def __init__(self, params: list[dict[str, list[torch.Tensor]]], **options: float) -> None:
        super().__init__(params, **options)
        self.flag = torch.zeros(1, device=self.param_groups[0]["params"][0].device)


def test_an_empty_group_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizers, "SGD", _ReadsItsFirstParameter)
    groups = [{"params": []}, {"params": [torch.ones(2, requires_grad=True)]}]
    with pytest.raises(IndexError):
        optimizers.SGD(groups, lr=0.1)
    plain_sgd.install()
    groups[1]["params"][0].grad = torch.ones(2)
    optimizers.SGD(groups, lr=0.1).step()
    assert groups[1]["params"][0].tolist() == pytest.approx([0.9, 0.9])
