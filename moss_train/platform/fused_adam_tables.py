"""One pass over gradients for their norm and one for the update, in place of Transformer Engine's step and its clip before it.

The states are those of the optimizer that is driven, by its names and in its dtypes: checkpoints of one go on with the other.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.errors import InputError
from moss_train.platform.fused_adam import MASTER
from moss_train.platform.fused_adam_triton import ALONE, CHUNK, COLUMNS, KINDS, REMAINDER, WHOLE, launch_adam, launch_squares

_ALIGNMENT, _MULTIPLE = 16, 8


class _Kind(NamedTuple):
    """What one launch needs all its tensors to have alike."""

    dtypes: tuple[torch.dtype, ...]
    beside: int
    aligned: bool


def _aligned(tensors: Sequence[Tensor]) -> bool:
    return tensors[0].numel() % _MULTIPLE == 0 and all(tensor.data_ptr() % _ALIGNMENT == 0 for tensor in tensors)


def table_of(members: Sequence[Sequence[Tensor]]) -> Tensor:
    """The table of tensors that belong together.

    Args:
        members: for every weight at most five contiguous tensors of as many elements, in the table's order.

    Returns:
        int64 [pieces, COLUMNS], on the tensors' device.
    """
    for group in members:
        if any(not tensor.is_contiguous() or tensor.numel() != group[0].numel() for tensor in group):
            raise InputError(f"an optimizer's tensors of shapes {[list(t.shape) for t in group]} must be contiguous and alike")
    counts = np.array([group[0].numel() for group in members], dtype=np.int64)  # [weights]
    pieces = -(-counts // CHUNK)  # [weights]
    owner = np.repeat(np.arange(len(members)), pieces)  # [pieces]
    begin = (np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)) * CHUNK  # [pieces]
    rows = np.zeros((len(owner), COLUMNS), dtype=np.int64)
    rows[:, 0] = np.minimum(counts[owner] - begin, CHUNK)
    for column in range(len(members[0])):
        addresses = np.array([group[column].data_ptr() for group in members], dtype=np.int64)
        sizes = np.array([group[column].element_size() for group in members], dtype=np.int64)
        rows[:, column + 1] = addresses[owner] + begin * sizes[owner]
    return torch.from_numpy(rows).to(members[0][0].device)


class _Tables:
    """Tables by kind, made anew when a tensor lies elsewhere: a loaded checkpoint brings new ones."""

    def __init__(self) -> None:
        self._places: list[tuple[Any, ...]] = []
        self._tables: dict[_Kind, Tensor] = {}

    def of(
        self, places: list[tuple[Any, ...]], members: Callable[[], Sequence[tuple[_Kind, tuple[Tensor, ...]]]]
    ) -> dict[_Kind, Tensor]:
        """Tables of all tensors.

        Args:
            places: addresses, sizes and dtypes: all that is asked each time, for the GPU waits meanwhile.
            members: makes the tensors by kind.
        """
        if places != self._places:
            by_kind: dict[_Kind, list[tuple[Tensor, ...]]] = {}
            for kind, tensors in members():
                by_kind.setdefault(kind, []).append(tensors)
            self._tables = {kind: table_of(tensors) for kind, tensors in by_kind.items()}
            self._places = places
        return self._tables


class GradientNorm:
    """The norm of gradients in one reading of them, added in the same order every time."""

    def __init__(self) -> None:
        self._tables = _Tables()

    def __call__(self, gradients: Sequence[Tensor]) -> Tensor:
        """fp32 [1], on the gradients' device.

        Args:
            gradients: contiguous, fp32 or bf16, at least one with elements.
        """
        tables = self._tables.of(
            [(gradient.data_ptr(), gradient.numel(), gradient.dtype) for gradient in gradients],
            lambda: [
                (_Kind((gradient.dtype,), ALONE, _aligned([gradient])), (gradient.detach(),))
                for gradient in gradients
                if gradient.numel()
            ],
        )
        sums = [launch_squares(table, kind.dtypes[0], kind.aligned) for kind, table in tables.items()]
        return torch.cat(sums).sum(dtype=torch.float64).sqrt().float().view(1)


class TableAdam:
    """The step of a FusedAdam, Transformer Engine's or ours, in one launch for all tensors of a group that are alike.

    Args:
        optimizer: the one that keeps groups and states.
    """

    def __init__(self, optimizer: Any) -> None:
        self._reference = weakref.ref(optimizer)  # whose step this becomes: it would hold itself
        self._tables: dict[int, _Tables] = {}
        self.clip = 1.0
        """Factor of the gradients of the next step, which leaves 1 behind. The gradients in memory stay as they are."""

    @property
    def _optimizer(self) -> Any:
        return self._reference()

    @torch.no_grad()
    def step(self, closure: Any = None, grad_scaler: Any = None) -> None:
        """Update every parameter that has a gradient; a group's step advances even when it has none."""
        optimizer = self._optimizer
        clip, self.clip = self.clip, 1.0
        for index, group in enumerate(optimizer.param_groups):
            group["step"] = group.get("step", 0) + 1
            name = "decoupled_grad" if optimizer.use_decoupled_grad else "grad"
            given = [(p, g) for p in group["params"] if (g := getattr(p, name, None)) is not None]
            tables = self._tables.setdefault(index, _Tables()).of(
                [self._place(p, g) for p, g in given], partial(self._members, given)
            )
            for kind, table in tables.items():
                launch_adam(table, scalars(group, clip), kind.dtypes, kind.beside, bool(optimizer.adam_w_mode), kind.aligned)

    def _place(self, parameter: Tensor, gradient: Tensor) -> tuple[Any, ...]:
        optimizer = self._optimizer
        state = optimizer.state[parameter]
        if not state:
            optimizer.initialize_state(parameter, optimizer.store_param_remainders and parameter.dtype == torch.bfloat16)
            state = optimizer.state[parameter]
        tensors = (parameter, gradient, *state.values())
        return (parameter.numel(), *[tensor.data_ptr() for tensor in tensors], *[tensor.dtype for tensor in tensors])

    def _members(self, given: Sequence[tuple[Tensor, Tensor]]) -> list[tuple[_Kind, tuple[Tensor, ...]]]:
        return [self._member(parameter, gradient) for parameter, gradient in given if parameter.numel()]

    def _member(self, parameter: Tensor, gradient: Tensor) -> tuple[_Kind, tuple[Tensor, ...]]:
        state = self._optimizer.state[parameter]
        tensors = [gradient.detach(), parameter.detach(), state["exp_avg"], state["exp_avg_sq"]]
        beside = ALONE
        if parameter.dtype != torch.float32:  # of fp32 weights Transformer Engine keeps a second copy that nothing updates
            tensors.append(state[MASTER])
            beside = REMAINDER if state[MASTER].dtype == torch.int16 else WHOLE
        return _Kind(tuple(tensor.dtype for tensor in tensors[:4]), beside, _aligned(tensors)), tuple(tensors)


def scalars(group: dict[str, Any], clip: float) -> tuple[float, ...]:
    """What `launch_adam` takes of a group whose step has advanced; betas are rounded to fp32 before anything is made of them."""
    beta1, beta2 = (np.float32(beta) for beta in group["betas"])
    rest1, rest2 = np.float32(1) - beta1, np.float32(1) - beta2
    corrects = group.get("bias_correction", True)
    inverse1, inverse2 = (1.0 / (1.0 - float(beta) ** int(group["step"])) if corrects else 1.0 for beta in (beta1, beta2))
    numbers = (clip, group["lr"], beta1, beta2, rest1, rest2, inverse1, inverse2, group["eps"], group["weight_decay"])
    return tuple(float(number) for number in numbers)


def drives(optimizer: Any) -> bool:
    """Whether `TableAdam` can take the step of an optimizer: a FusedAdam whose moments are fp32 or bf16 and not scaled."""
    if type(optimizer).__name__ != "FusedAdam" or getattr(optimizer, "capturable", False):
        return False
    kinds = {parameter.dtype for group in optimizer.param_groups for parameter in group["params"]}
    dtypes = getattr(optimizer, "name_to_dtype_map", None) or optimizer._dtypes
    if torch.bfloat16 in kinds and not optimizer.master_weights:
        return False
    return (
        kinds <= set(KINDS)
        and all(dtypes[name] in KINDS for name in ("exp_avg", "exp_avg_sq"))
        and (dtypes.get(MASTER, torch.float32) == torch.float32)
    )
