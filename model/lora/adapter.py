"""The adapter of one linear layer, sharded as the layer is.

It is a child of the layer (`linear_qkv.adapter.a`) and adds to the layer's output through a forward hook, so names and
arithmetic of the adapted layer stay what they are, whichever module provider made it.

Under tensor parallelism, with T rows and the layer's own sharding:

* column (rows of W are shared out): A is whole on every rank, B has the rank's rows. The ranks' gradients with respect
  to A x are partial sums; they are added once, in the rank's few columns, so A's gradient is complete everywhere.
* row (columns of W are shared out): A has the rank's columns, B is whole. The partial sums A x are added in the forward pass.
* whole: the layer is not sharded (the vision tower).

Under sequence parallelism a rank holds a share of the rows: the sums become a gather or a scatter along the rows, and the
gradient of the factor that is whole on every rank is partial; it is tagged, and megatron-core adds it up.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.tensor_parallel.layers import set_tensor_model_parallel_attributes
from megatron.core.tensor_parallel.mappings import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
    reduce_from_tensor_model_parallel_region,
    reduce_scatter_to_sequence_parallel_region,
)
from torch import Tensor, nn

from model.lora.names import CHILD

KINDS = ("column", "row", "whole")


class LowRankAdapter(nn.Module):
    """B (A x) times a factor, beside a linear layer.

    Args:
        weight: the layer's matrix on this rank, [out, in] of its share; gives the sizes and the device.
        rank: rows of A and columns of B.
        scale: factor of the output.
        kind: column | row | whole, how the layer is sharded.
        group: tensor-parallel group; None where the layer is whole.
        sequence_parallel: whether the layer takes (column) or gives (row) a share of the rows.
        dtype: dtype of A and B.
    """

    def __init__(
        self, weight: Tensor, rank: int, scale: float, kind: str, group: Any = None, sequence_parallel: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        super().__init__()
        self.scale, self.kind, self.group = scale, kind, group
        self.sequence_parallel = sequence_parallel and group is not None and group.size() > 1
        out_features, in_features = weight.shape
        self.a = nn.Parameter(torch.zeros(rank, in_features, dtype=dtype, device=weight.device))
        self.b = nn.Parameter(torch.zeros(out_features, rank, dtype=dtype, device=weight.device))
        whole, sharded = {"column": (self.a, self.b), "row": (self.b, self.a), "whole": (self.a, None)}[kind]
        if sharded is not None:
            whole.sequence_parallel = self.sequence_parallel  # type: ignore[attr-defined]
            set_tensor_model_parallel_attributes(sharded, True, 0 if kind == "column" else 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x [rows, ..., in of this rank] -> [rows, ..., out of this rank], to be added to the layer's output."""
        low = F.linear(x, self.a)  # [rows, ..., rank]
        if self.kind == "column" and self.sequence_parallel:
            low = gather_from_sequence_parallel_region(low, tensor_parallel_output_grad=True, group=self.group)
        elif self.kind == "column":
            low = copy_to_tensor_model_parallel_region(low, group=self.group)
        elif self.kind == "row" and self.sequence_parallel:
            low = reduce_scatter_to_sequence_parallel_region(low, group=self.group)
        elif self.kind == "row":
            low = reduce_from_tensor_model_parallel_region(low, group=self.group)
        return F.linear(low * self.scale, self.b)


def _add(linear: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
    """The forward hook: megatron-core's layers return the output and a bias, torch's the output."""
    adapter: Any = getattr(linear, CHILD)
    if isinstance(output, tuple):
        return (output[0] + adapter(inputs[0]), *output[1:])
    return output + adapter(inputs[0])


def attach(linear: nn.Module, adapter: LowRankAdapter) -> None:
    """Makes `adapter` a part of `linear`."""
    linear.add_module(CHILD, adapter)
    linear.register_forward_hook(_add)


def start_deviation(in_features: int) -> float:
    """Standard deviation of a fresh A: that of torch's own linear layers, 1 / sqrt(3 in)."""
    return 1 / math.sqrt(3 * in_features)
