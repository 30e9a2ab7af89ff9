"""Processes that run readers beside the training process."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import os
import signal
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import cycle
from multiprocessing import get_context
from multiprocessing.connection import wait
from socket import gethostname, socket
from typing import Any, NoReturn

import numpy as np
import torch

from data_pipeline.loader import messages
from data_pipeline.loader.now_reading import current_sample
from data_pipeline.loader.readers import ReaderParts
from data_pipeline.packing.batch import PackedMicroBatch
from model.errors import InputError

_BATCH, _END, _REFUSED, _BROKEN = "batch", "end", "refused", "broken"
_FORK = get_context("fork")
_PR_SET_PDEATHSIG = 1


class ReaderProcess:
    """Runs some readers, which take turns in the given order, some micro-batches ahead.

    The process ignores SIGTERM and Ctrl-C: a scheduler sends them to the whole process group to ask for a last checkpoint; the
    training process answers and still needs its readers for the current step. It ends when the training process does.

    Args:
        parts: what the readers are made of.
        numbers: the readers, in the order in which they take turns.
        states: where each reader begins; None is the beginning of its data.
    """

    def __init__(self, parts: ReaderParts, numbers: Sequence[int], states: Mapping[int, bytes | None]) -> None:
        self._numbers = tuple(numbers)
        self._of = parts.data.global_data_workers
        self._timeout = parts.data.worker_timeout_seconds
        self._last_keys: list[str] = []
        self._tokens = _FORK.Semaphore(parts.data.prefetch)
        self._channel, theirs = messages.channel()
        # the kernel watches the thread that forks, and only the main one surely lives as long as the process
        tied = threading.current_thread() is threading.main_thread()
        arguments = (theirs, self._channel, self._tokens, parts, self._numbers, dict(states), os.getpid(), tied)
        self._process = _FORK.Process(target=_serve, args=arguments, daemon=True, name=f"readers {self._names()}")
        self._process.start()
        theirs.close()  # so that the end of the process is the end of the stream

    @property
    def pid(self) -> int:
        """Of the process."""
        pid = self._process.pid
        assert pid is not None  # it was started
        return pid

    def take(self) -> tuple[PackedMicroBatch, bytes | None]:
        """The next micro-batch and the state of its reader behind it.

        Raises:
            StopIteration: its reader's data have ended.
            InputError: the process died, took too long, or cannot go on.
        """
        if not wait([self._channel], self._timeout):
            raise InputError(
                f"{self._who()} gave no micro-batch for {self._timeout:g} seconds (data.worker_timeout_seconds); "
                f"{self._samples()}; raise the limit if the data are that slow, else leave the sample out that stops it"
            )
        try:
            kind, *content = messages.receive(self._channel)
        except EOFError:
            self._raise_died()
        if kind == _BATCH:
            batch, state = content
            self._tokens.release()
            self._last_keys = [key for key in batch.sample_keys if key] or self._last_keys
            return _as_tensors(batch), state
        if kind == _END:
            raise StopIteration
        if kind == _REFUSED:
            raise InputError(content[0])
        raise RuntimeError(f"{self._who()} failed:\n{content[0]}")

    def close(self) -> None:
        """End the process at once; it holds nothing that must be saved."""
        self._process.kill()
        self._process.join()
        self._channel.close()

    def _raise_died(self) -> NoReturn:
        self._process.join(5)
        code = self._process.exitcode
        how = f"was killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"ended with exit code {code}"
        remedy = "see the system's log for the reason"
        if code == -signal.SIGKILL:
            remedy = "most often the memory was used up: lower data.worker_processes or data.prefetch"
        raise InputError(f"{self._who()} {how}; {self._samples()}; {remedy}, then start again from the last checkpoint") from None

    def _who(self) -> str:
        readers = "readers" if len(self._numbers) > 1 else "reader"
        return f"loader process {self.pid} on {gethostname()} with {readers} {self._names()} of {self._of}"

    def _names(self) -> str:
        return ", ".join(map(str, self._numbers))

    def _samples(self) -> str:
        gave = f"the last sample that it gave is {self._last_keys[-1]}" if self._last_keys else "it had given no sample yet"
        busy = current_sample(self.pid)
        if busy is None:
            return gave
        return f"it was busy with {busy}, which a file named by data.skip_samples leaves out with the line {busy.skip_line()}"


def _serve(
    channel: socket,
    parents_end: socket,
    tokens: Any,
    parts: ReaderParts,
    numbers: Sequence[int],
    states: Mapping[int, bytes | None],
    parent: int,
    tied: bool,
) -> None:
    """The life of a reader process. What it has sent can be received after its end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if tied:
        _die_with_parent()
    parents_end.close()
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    torch.set_num_threads(1)
    gc.freeze()  # what the training process made is never garbage here
    try:
        for reader in cycle([parts.open(number, states.get(number)) for number in numbers]):
            tokens.acquire()
            batch = next(reader, None)
            if batch is None:
                messages.send(channel, (_END,))
                break
            messages.send(channel, (_BATCH, _as_arrays(batch), reader.state()))
    except InputError as error:
        messages.send(channel, (_REFUSED, str(error)))
    except Exception:
        messages.send(channel, (_BROKEN, traceback.format_exc()))


def _die_with_parent() -> None:
    """Have the kernel kill this process with its parent, also when it is stopped or held up in a library."""
    with suppress(OSError, AttributeError):  # no such call: the thread that looks every second remains
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_with_parent(parent: int) -> None:
    """Whatever this process does or waits for, it must not outlive a training process that was killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _as_arrays(batch: PackedMicroBatch) -> PackedMicroBatch:
    """Tensors as numpy arrays, which a message takes without copying."""
    tensors = {name: value for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    changes: dict[str, Any] = {name: value.contiguous().numpy() for name, value in tensors.items()}
    return dataclasses.replace(batch, **changes)


def _as_tensors(batch: PackedMicroBatch) -> PackedMicroBatch:
    """The micro-batch that `_as_arrays` was given."""
    arrays = {name: value for name, value in vars(batch).items() if isinstance(value, np.ndarray)}
    changes: dict[str, Any] = {name: torch.from_numpy(value) for name, value in arrays.items()}
    return dataclasses.replace(batch, **changes)
