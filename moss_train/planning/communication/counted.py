"""Records every collective and every transfer that this rank really asks for, with its place in the code.

It listens at torch's dispatcher, where all of them pass: those of megatron-core, of autograd's backward passes, of objects that
are sent as bytes. What a library does inside one call is not seen: gloo's reduce-scatter is an all-reduce inside.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from torch.utils._python_dispatch import TorchDispatchMode

from moss_train.planning.communication.calls import Calls, Kind, Traffic

PLACES: tuple[tuple[str, str, str], ...] = (
    ("feed/agreement.py", "", "feed"),
    ("frames/pixels.py", "gather_pixels", "pixels"),
    ("frames/distribution.py", "_encode_window", "features"),
    ("frames/distribution.py", "_exchange_gradients", "features"),
    ("frames/distribution.py", "gather_counts", "control"),
    ("moss_train/step.py", "_count_targets", "control"),
    ("moss_train/statistics.py", "reduce", "control"),
    ("guards/", "", "control"),
    ("monitors/", "", "control"),
    ("attention/context.py", "", "context"),
    ("moss_train/dense_step.py", "_gather_labels", "labels"),
    ("moss_train/dense_step.py", "_reduce", "control"),
    ("model/head_loss.py", "", "loss"),
    ("pipeline_parallel/p2p_communication.py", "", "pipeline"),
    ("optimizer/clip_grads.py", "", "norm"),
    ("optimizer/optimizer.py", "get_grad_norm", "norm"),
    ("distributed/param_and_grad_buffer.py", "start_grad_sync", "gradients"),
    ("distributed/param_and_grad_buffer.py", "start_param_sync", "weights"),
    ("distributed/finalize_model_grads.py", "", "finish"),
    ("tensor_parallel/mappings.py", "", "activations"),
    ("tensor_parallel/layers.py", "", "activations"),
    ("optimizer/muon.py", "", "muon"),
)  # fmt: skip
"""End of a file's path, a function or "" for any -> purpose. The first row that fits any frame of the stack counts."""


def _size(tensors: Any) -> int:
    """Bytes of a tensor or of lists of them."""
    if isinstance(tensors, torch.Tensor):
        return tensors.numel() * tensors.element_size()
    return sum(_size(tensor) for tensor in tensors)


def _all_to_all(arguments: Sequence[Any]) -> tuple[Kind, int, int]:
    output, given, _, sizes_out, sizes_in, *_ = arguments
    return ("exchange" if sizes_out or sizes_in else "all-to-all"), _size(given), _size(output)


_READERS: dict[str, Callable[[Sequence[Any]], tuple[Kind, int, int]]] = {
    "allreduce_": lambda a: ("all-reduce", _size(a[0]), _size(a[0])),
    "allreduce_coalesced_": lambda a: ("all-reduce", _size(a[0]), _size(a[0])),
    "_allgather_base_": lambda a: ("all-gather", _size(a[1]), _size(a[0])),
    "allgather_into_tensor_coalesced_": lambda a: ("all-gather", _size(a[1]), _size(a[0])),
    "allgather_": lambda a: ("all-gather", _size(a[1]), _size(a[0])),
    "_reduce_scatter_base_": lambda a: ("reduce-scatter", _size(a[1]), _size(a[0])),
    "reduce_scatter_tensor_coalesced_": lambda a: ("reduce-scatter", _size(a[1]), _size(a[0])),
    "reduce_scatter_": lambda a: ("reduce-scatter", _size(a[1]), _size(a[0])),
    "alltoall_base_": _all_to_all,
    "alltoall_": lambda a: ("exchange", _size(a[1]), _size(a[0])),
    "broadcast_": lambda a: ("broadcast", _size(a[0]), _size(a[0])),
    "reduce_": lambda a: ("reduce", _size(a[0]), _size(a[0])),
    "send": lambda a: ("send", _size(a[0]), 0),
    "recv_": lambda a: ("receive", 0, _size(a[0])),
    "barrier": lambda a: ("barrier", 0, 0),
}
"""Operator of torch's `c10d` -> kind, bytes that this rank gives, bytes that it gets, from its arguments."""


def _purpose() -> str:
    """Why the call that is under way is made, from the stack."""
    frame, files = sys._getframe(1), []
    while frame is not None:
        files.append((frame.f_code.co_filename, frame.f_code.co_name))
        frame = frame.f_back  # type: ignore[assignment]
    for file, function in files:
        for end, name, purpose in PLACES:
            if (file.endswith(end) or (end.endswith("/") and f"/{end}" in file)) and name in ("", function):
                return purpose
    return "elsewhere"


class Counter(TorchDispatchMode):
    """While it is entered, adds up the calls of this thread and of the backward passes that it starts.

    Args:
        groups: the role of a process group by its name; others are called "elsewhere".
    """

    def __init__(self, groups: Mapping[str, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._groups = dict(groups)
        self.traffic = Traffic()

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        if func.namespace == "c10d":
            self._note(func.overloadpacket.__name__, args)
        return func(*args, **(kwargs or {}))

    def _note(self, operator: str, arguments: Sequence[Any]) -> None:
        handle = next(a for a in arguments if type(a).__name__ == "ScriptObject" and "ProcessGroup" in str(a._type()))
        group = dist.ProcessGroup.unbox(handle)
        if group.size() == 1:
            return
        if operator not in _READERS:
            raise RuntimeError(f"the counter does not know torch's c10d::{operator}")
        kind, gives, gets = _READERS[operator](arguments)
        role, ranks, purpose = self._groups.get(group.group_name, "elsewhere"), group.size(), _purpose()
        if purpose == "pipeline":  # with two stages megatron-core sends half of them through the world's group
            role, ranks = "pipeline", 2
        self.traffic.add("context" if role == "context" else purpose, kind, role, ranks, Calls(1, gives, gets))


def names_of_groups(layout: Any, agreement: Any = None) -> dict[str, str]:
    """The role of every process group of a layout, by the group's name.

    Args:
        layout: a `ParallelLayout`.
        agreement: its `Agreement`, whose groups are for data.
    """
    vision = layout.vision_groups
    roles = [
        ("world", dist.group.WORLD),
        ("world", vision.dp_cp),
        ("world", vision.intra_dist_opt),
        ("world", parallel_state.get_intra_distributed_optimizer_instance_group()),
        ("tensor", parallel_state.get_tensor_model_parallel_group()),
        ("context", parallel_state.get_context_parallel_group()),
        ("pipeline", parallel_state.get_pipeline_model_parallel_group()),
        ("model", parallel_state.get_model_parallel_group()),
        ("data", parallel_state.get_data_parallel_group()),
        ("data", parallel_state.get_data_parallel_group(with_context_parallel=True)),
        ("data", parallel_state.get_data_parallel_group(with_context_parallel=True, partial_data_parallel=True)),
    ]
    if agreement is not None:
        roles += [("world", agreement._world), ("replica", agreement._replica)]
    return {group.group_name: role for role, group in roles if group is not None}
