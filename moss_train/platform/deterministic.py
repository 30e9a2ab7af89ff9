"""`train.deterministic`: a run of the same layout computes the same numbers, bit for bit, each time it is done."""

from __future__ import annotations

import os

import torch

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_WORKSPACES = (":4096:8", ":16:8")
"""Values under which cuBLAS gives the same sums each time (cuBLAS documentation, "Results reproducibility")."""


def set_deterministic(wanted: bool) -> None:
    """Switch the whole process; before the first matrix product on a GPU.

    What adds in an order that changes from run to run is left out then: cuDNN's backward attention and flash-attn-4's over
    block lists; flash-attn's other backward passes take their deterministic forms. Operators of torch that have none raise.

    Args:
        wanted: the run's `train.deterministic`.
    """
    if wanted and os.environ.get(_WORKSPACE) not in _WORKSPACES:
        os.environ[_WORKSPACE] = _WORKSPACES[0]
    torch.use_deterministic_algorithms(wanted)
    # It would write NaN into every tensor made with torch.empty: twice the traffic of each kernel that fills one.
    torch.utils.deterministic.fill_uninitialized_memory = not wanted  # type: ignore[attr-defined]
