"""Errors that mean too little memory, as torch raises them, and those that do not."""

from __future__ import annotations

import pytest
import torch

from moss_train.guards.memory import memory_sentence


def _too_much() -> BaseException:
    """What this machine's allocator raises for more than any address space."""
    try:
        torch.empty(1 << 60, dtype=torch.uint8)
    except RuntimeError as error:
        return error
    raise AssertionError("there was memory")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (_too_much(), "has used up the machine's memory"),
        (RuntimeError("could not create a primitive"), "has used up the machine's memory;"),
        (MemoryError(), "has used up the machine's memory;"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"),
            "has used up the GPU's memory (it asked for 2.00 GiB more);",
        ),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            "has used up the GPU's memory;",
        ),
    ],
)
def test_too_little_memory_is_one_sentence(error: BaseException, words: str) -> None:
    sentence = memory_sentence(error, 3, "gpu-17")
    assert sentence is not None and sentence.startswith(f"rank 3 on host gpu-17 {words}") and "\n" not in sentence
    assert "parallel.recompute=full" in sentence and "stage.sequence_length" in sentence


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), ValueError("out of memory"), KeyError("memory")])
def test_other_errors_pass(error: Exception) -> None:
    assert memory_sentence(error, 0, "gpu-17") is None
