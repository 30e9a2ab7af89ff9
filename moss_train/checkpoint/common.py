"""Work of all ranks on a checkpoint: whichever of them fails, all raise the same."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

from model.errors import InputError, file_trouble
from moss_train.feed.agreement import CommonError

T = TypeVar("T")


def in_common(work: Callable[[], T]) -> T:
    """Do this rank's part and wait for the others; returns its result.

    Raises:
        CommonError: some rank's part failed; on all ranks the cause of the first of them.
    """
    result: Any = None
    own = None
    try:
        result = work()
    except Exception as error:
        own = sentence(error)
    everyone: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, own)
    trouble = next((trouble for trouble in everyone if trouble is not None), None)
    if trouble is not None:
        raise CommonError(trouble)
    done: T = result
    return done


def from_first(value: T) -> T:
    """The value that rank 0 gives."""
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def sentence(error: Exception) -> str:
    """What an error means to a user; a mistake of ours is printed with its traceback."""
    if isinstance(error, InputError) and str(error):
        return str(error)
    if isinstance(error, OSError) and (trouble := file_trouble(error)) is not None:
        return trouble
    traceback.print_exception(error, file=sys.stderr)
    return f"rank {dist.get_rank()} failed with {type(error).__name__}: {error}; its traceback stands above"


def reason(error: BaseException) -> str:
    """Why a disk refuses, in a few words; a mistake of ours is printed with its traceback."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, InputError):
        return str(error)
    traceback.print_exception(error, file=sys.stderr)
    return f"{type(error).__name__}: {error}; its traceback stands above"
