"""torch's SGD for megatron-core, whatever fused one is installed."""

from __future__ import annotations

from typing import Any

import torch


def install() -> None:
    """Give megatron-core `torch.optim.SGD`.

    Transformer Engine's FusedSGD reads the first parameter of its first group, which has none where a pipeline stage
    trains only vectors or nothing at all.
    """
    import megatron.core.optimizer as optimizers

    module: Any = optimizers
    module.SGD = torch.optim.SGD
