"""Triton's interpreter with the arithmetic of a GPU: it truncates to bfloat16, loses the carry of a rounded float8, rounds
twice in a fused multiply-add and multiplies the bit patterns of bfloat16 matrices. It also puts its own functions in the place of
the language's anew for every function that a kernel calls; once a launch does. Nothing of ours is replaced."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter

_TYPES = {
    tl.float32: torch.float32,
    tl.float16: torch.float16,
    tl.bfloat16: torch.bfloat16,
    tl.float8e4nv: torch.float8_e4m3fn,
}


def _numbers(data: Any, kind: Any) -> torch.Tensor:
    raw = torch.from_numpy(np.ascontiguousarray(data))
    return raw if raw.dtype == _TYPES[kind] else raw.view(_TYPES[kind])


def _convert(data: Any, kind: Any, wanted: Any, rounding: Any) -> Any:
    found = _numbers(data, kind).to(_TYPES[wanted])
    width = {1: torch.uint8, 2: torch.int16, 4: torch.int32}[found.element_size()]
    unsigned = {1: np.uint8, 2: np.uint16, 4: np.uint32}[found.element_size()]
    return found.view(width).numpy().view(unsigned)


def _patch_once_a_launch() -> None:
    """A kernel's launch begins with an empty `patched` and restores the language; what the kernel calls finds it patched."""
    patch: Any = interpreter._patch_lang
    patched: set[Any] = set()

    def patch_lang(fn: Any) -> Any:
        languages = {value for value in fn.__globals__.values() if value is tl or value is tl.core}
        inner = bool(patched)
        if inner and languages <= patched:
            return None  # nobody asks for it: only a launch restores
        scope = patch(fn)
        patched.update(languages)
        if not inner:
            restore = scope.restore

            def end() -> None:
                patched.clear()
                restore()

            scope.restore = end
        return scope

    interpreter._patch_lang = patch_lang


def correct_interpreter() -> None:
    """Round and multiply as a GPU does, in half the time."""
    _patch_once_a_launch()
    interpreter._convert_float = _convert

    def dot(self: Any, a: Any, b: Any, d: Any, input_precision: Any, max_num_imprecise_acc: Any) -> Any:
        left, right = _numbers(a.data, a.dtype).float(), _numbers(b.data, b.dtype).float()
        return interpreter.TensorHandle((left @ right).numpy() + d.data, d.dtype.scalar)

    interpreter.InterpreterBuilder.create_dot = dot

    def fma(self: Any, a: Any, b: Any, c: Any) -> Any:
        exact = a.data.astype(np.float64) * b.data.astype(np.float64) + c.data.astype(np.float64)
        return interpreter.TensorHandle(exact.astype(a.data.dtype), a.dtype.scalar)

    interpreter.InterpreterBuilder.create_fma = fma
