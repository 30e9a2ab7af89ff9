"""A checkpoint saved and continued: what it costs in memory and time, and whether the continuation is the same bit for bit."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from model.errors import InputError
from moss_train.bench.full.depth import saved_bytes
from moss_train.bench.full.held import differing, digest, fingerprint, state_names
from moss_train.bench.packs import stage_pack
from moss_train.bench.saving import HostPeak, Saver, room
from moss_train.bench.subject import Subject
from moss_train.bench.train.cases import Case
from moss_train.bench.train.measure import Say
from moss_train.checkpoint.description import find_checkpoint, write_atomically
from moss_train.checkpoint.load import load_training_state

CONTINUATION = "continuation.json"
"""Beside the checkpoints: what an uninterrupted run did behind the last one."""
STEPS = 2
LATER = 7919
"""Added to the seed of the packs behind a checkpoint, which no step before has seen."""
SAVE_RATE, LOAD_RATE = 1.2e9, 3e9
"""Bytes a second that a part is expected to reach before it was measured, those of a disk."""
_SHOWN = 5


def check_room(folder: Path, needed: int) -> None:
    """Refuse a folder that a checkpoint does not fit into.

    Raises:
        InputError: naming what it takes and what there is.
    """
    free = room(folder)
    if needed > free:
        raise InputError(
            f"--save {folder} has room for {free / 1e9:.1f} GB and the checkpoint takes {needed / 1e9:.1f}; give another "
            "folder, or fewer --layers"
        )


class Proof:
    """Saves and continues a subject.

    Args:
        subject: with an optimizer, behind some updates.
        case: what it is.
        seed: of the packs.
        say: told of the progress.
    """

    def __init__(self, subject: Subject, case: Case, seed: int, say: Say) -> None:
        self._subject, self._case, self._seed, self._say = subject, case, seed, say
        self._device = subject.layout.device

    def steps(self, count: int = STEPS) -> list[dict[str, str]]:
        """Steps on packs of their own; the exact loss and norm of each, in hexadecimal."""
        found = []
        for index in range(count):
            packs = [
                stage_pack(
                    self._subject.model_config, self._case.stage, self._case.rows, self._case.frames,
                    self._seed + LATER + index * self._case.micro_batches + number,
                )
                for number in range(self._case.micro_batches)
            ]  # fmt: skip
            statistics = self._subject.step.accumulate(packs)
            self._subject.optimization.set_learning_rates(1e-5, 1e-5)
            norm = self._subject.optimization.update()
            found.append({"loss": float(statistics.loss).hex(), "norm": float(norm).hex()})
        return found

    def save(self, folder: Path) -> dict[str, Any]:
        """A checkpoint written while everything waits, as `checkpoint.asynchronous=false` does.

        Raises:
            InputError: it cannot be written.
        """
        self._say("saving")
        saver = Saver(self._subject, folder, asynchronous=False)
        figures, events = self._watched(lambda: saver.checkpointer.begin(self._subject.done, {}))
        if events[-1].kind != "published":
            raise InputError(f"--save {folder} cannot be written: {events[-1].reason}; give another folder")
        size = sum(file.stat().st_size for file in find_checkpoint(folder).glob("*.safetensors"))
        return {**figures, "bytes": size, "gb_per_second": size / figures["seconds"] / 1e9}

    def load(self, folder: Path) -> dict[str, Any]:
        """The newest checkpoint of a folder put into the subject.

        Raises:
            InputError: there is none, or it does not fit.
        """
        self._say("loading")
        subject, checkpoint = self._subject, find_checkpoint(folder)
        figures, state = self._watched(
            lambda: load_training_state(
                checkpoint, subject.models.chunks, subject.models.unit, subject.optimization, subject.layout, verify="sizes"
            )
        )
        subject.done = state.step
        return figures

    def save_and_continue(
        self, folder: Path, deadline: float | None = None, keep: Callable[[dict[str, Any]], None] = lambda found: None
    ) -> dict[str, Any]:
        """Save, go on, load, go on again: `same_state` and `same_steps` say whether both are equal bit for bit.

        Where the steps differ they are done a third time from the checkpoint: `repeatable` says whether these kernels give the
        same twice at all. What there is no time for is left out, and `not_done` says so in a sentence.

        Args:
            deadline: of `time.perf_counter()`; None leaves nothing out.
            keep: is given what is known behind each part.
        """
        size = saved_bytes(self._case)
        if _short(deadline, size / SAVE_RATE):
            return {"not_done": [f"nothing was saved: {size / 1e9:.0f} GB were not expected to be written in the time left"]}
        before = fingerprint(self._subject)
        saved = self.save(folder)
        untouched = differing(before, fingerprint(self._subject))
        uninterrupted = self.steps()
        content = {"overrides": self._case.overrides, "digest": digest(before), "steps": uninterrupted}
        write_atomically(folder / CONTINUATION, json.dumps(content, indent=1) + "\n")
        moved = bool(differing(before, fingerprint(self._subject)))
        found: dict[str, Any] = {
            "save": saved, "pieces": len(before), "kinds": state_names(before), "changed_by_saving": untouched[:_SHOWN],
            "moved_between": moved, "uninterrupted": uninterrupted,
        }  # fmt: skip
        keep(found)
        if _short(deadline, size / LOAD_RATE):
            return found | {"not_done": ["not continued in this process: the time was up; use --resume in another"]}
        loaded = self.load(folder)
        changed = differing(before, fingerprint(self._subject))
        continued = self.steps()
        found |= {
            "load": loaded, "same_state": not changed, "differing": changed[:_SHOWN], "continued": continued,
            "same_steps": continued == uninterrupted,
        }  # fmt: skip
        keep(found)
        if continued != uninterrupted:
            if _short(deadline, loaded["seconds"]):
                return found | {"not_done": ["whether two continuations are the same was not tried: the time was up"]}
            self.load(folder)
            found["again"] = self.steps()
            found["repeatable"] = found["again"] == continued
        return found

    def resume(self, folder: Path) -> dict[str, Any]:
        """Load in a process that has not saved it, and do the steps that the one that saved it did.

        Raises:
            InputError: no such folder, or one of another run.
        """
        content = read_continuation(folder)
        if content["overrides"] != self._case.overrides:
            raise InputError(f"--resume {folder} was saved by a run with other options; give the same ones")
        loaded = self.load(folder)
        same = digest(fingerprint(self._subject)) == content["digest"]
        continued = self.steps(len(content["steps"]))
        return {
            "load": loaded, "same_state": same, "uninterrupted": content["steps"], "continued": continued,
            "same_steps": continued == content["steps"],
        }  # fmt: skip

    def _watched(self, work: Any) -> tuple[dict[str, Any], Any]:
        """Seconds of some work, and the most memory that it added on device and host."""
        cuda = self._device.type == "cuda"
        resting = 0
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            resting = torch.cuda.memory_allocated()
        begin = time.perf_counter()
        with HostPeak() as host:
            result = work()
            if cuda:
                torch.cuda.synchronize()
        figures = {"seconds": time.perf_counter() - begin, "host_bytes": host.peak, "host_bytes_added": host.added}
        if cuda:
            peak = torch.cuda.max_memory_allocated()
            figures |= {"device_bytes": peak, "device_bytes_added": peak - resting}
        return figures, result


def _short(deadline: float | None, seconds: float) -> bool:
    """Whether fewer seconds than these are left."""
    return deadline is not None and time.perf_counter() + seconds > deadline


def read_continuation(folder: Path) -> dict[str, Any]:
    """What was noted beside a saved checkpoint.

    Raises:
        InputError: there is nothing.
    """
    try:
        content: dict[str, Any] = json.loads((folder / CONTINUATION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(
            f"--resume {folder} holds no {CONTINUATION}; give a folder that `moss bench full --save DIR --keep` has written"
        ) from None
    return content
