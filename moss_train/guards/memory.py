"""What a rank that runs out of memory says: an allocator's message names neither the rank nor what can be done."""

from __future__ import annotations

import re

import torch

_TEXTS = (
    "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "can't allocate memory", "could not create a primitive",
    "could not create a memory", "Cannot allocate memory",
)  # fmt: skip
_SIZE = re.compile(r"[Tt]ried to allocate ([\d.]+ \w+)")


def memory_sentence(error: BaseException, rank: int, host: str) -> str | None:
    """One sentence for an error that means too little memory; None for any other.

    Args:
        error: what ended the rank: torch.OutOfMemoryError of a GPU, or of the processor's libraries: a plain RuntimeError.
        rank: whose.
        host: where it runs.
    """
    text = str(error)
    on_gpu = isinstance(error, torch.OutOfMemoryError) or "CUDA" in text or "CUBLAS" in text
    known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    if not known and not (isinstance(error, RuntimeError) and any(part in text for part in _TEXTS)):
        return None
    size = _SIZE.search(text)
    what = "the GPU's memory" if on_gpu else "the machine's memory"
    asked = f" (it asked for {size[1]} more)" if size else ""
    return (
        f"rank {rank} on host {host} has used up {what}{asked}; set parallel.recompute=full, lower stage.sequence_length, "
        "stage.max_frames_per_pack or vision.encode_chunk_frames, or spread the model with parallel.tensor or parallel.pipeline; "
        "`moss plan` says what a run needs"
    )
