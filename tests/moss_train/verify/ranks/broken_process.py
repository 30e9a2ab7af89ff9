"""Started as the ranks of the checks, with something of what they check broken, and put right again behind each job.

FAULTS in the environment says what in which, as `chain:no_weights,lose_a_line guards:forget_a_group`; `all:` is for every job.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

from moss_train.verify.ranks import process as _process  # isort: skip - the platform comes first

import pytest
import torch

from model.attention import cores as _cores
from moss_train.engines.optimization import Optimization as _Optimization
from moss_train.guards import copies as _copies
from moss_train.parallel import beside as _beside
from moss_train.verify.ranks import golden as _golden
from moss_train.verify.ranks import resume as _resume
from moss_train.verify.ranks import training as _training

process: Any = _process  # whose names are set to other things below
optimization: Any = _Optimization
copies: Any = _copies
cores: Any = _cores
beside: Any = _beside
golden: Any = _golden
resume: Any = _resume
training: Any = _training

LAST = os.environ.get("RANK") == "1"
Patch = pytest.MonkeyPatch


def forget_a_group(patch: Patch) -> None:
    whole = copies.shared_parameters
    patch.setattr(copies, "shared_parameters", lambda *words: whole(*words)[1:])


def name_another_parameter(patch: Patch) -> None:
    whole = copies.Copies._sentence
    patch.setattr(
        copies.Copies, "_sentence", lambda self, step, own: whole(self, step, own).replace("parameter ", "parameter not.")
    )


def apply_the_first_update_alone(patch: Patch) -> None:
    whole, left = optimization.apply, [True]

    def apply(self: Any) -> None:
        if left:
            left.pop()
            whole(self)

    patch.setattr(optimization, "apply", apply)


def lose_what_is_beside(patch: Patch) -> None:
    whole = beside.Beside.__init__

    def init(self: Any, device: Any, on: bool = True) -> None:
        whole(self, device, on)
        if on:
            self.run = lambda *_: None

    patch.setattr(beside.Beside, "__init__", init)


def another_step_on_the_last_rank(patch: Patch) -> None:
    whole = training.load_training_state

    def load(*words: Any) -> Any:
        found = whole(*words)
        return dataclasses.replace(found, step=found.step + LAST)

    patch.setattr(training, "load_training_state", load)


def another_norm_on_the_last_rank(patch: Patch) -> None:
    whole = training.Training.load

    def load(self: Any, checkpoint: Path) -> Any:
        update = self.update
        self.update = lambda number: (lambda loss, norm: (loss, norm * (1 + LAST)))(*update(number))
        return whole(self, checkpoint)

    patch.setattr(training.Training, "load", load)


def no_weights(patch: Patch) -> None:
    patch.setattr(training.Training, "weights", lambda self: None)


def spoil_the_checkpoint_before(patch: Patch) -> None:
    whole = training.save_checkpoint

    def save(run_dir: Path, description: Any, *words: Any) -> Any:
        if description.step == 9:  # as if a save that fails wrote into the files of the one before
            for file in (run_dir / "checkpoints" / "step_00000002").rglob("*.safetensors") if not LAST else ():
                content = bytearray(file.read_bytes())
                content[-1] ^= 1
                file.write_bytes(content)
        return whole(run_dir, description, *words)

    patch.setattr(training, "save_checkpoint", save)


def end_behind_the_first_layout(patch: Patch) -> None:
    whole = process._Process._up
    asked: list[bool] = []

    def up(self: Any) -> Any:  # before the job, before its first layout, before its second
        asked.append(whole(self))
        return len(asked) > 2

    patch.setattr(process._Process, "_up", up)


def nothing_is_compared(patch: Patch) -> None:
    patch.setattr(golden, "replay_training", lambda *words: ([], None))


def repeatable_text_attends_to_nothing(patch: Patch) -> None:
    whole = cores.SelfCore.forward

    def forward(self: Any, *words: Any, **named: Any) -> Any:
        return whole(self, *words, **named) * (not torch.are_deterministic_algorithms_enabled())

    patch.setattr(cores.SelfCore, "forward", forward)


def lose_a_line(patch: Patch) -> None:
    whole, left = resume.resume, [True]

    def noisy(*words: Any) -> Any:
        if left and not LAST:
            left.pop()
            print("something without an end", end="", flush=True)
        return whole(*words)

    patch.setattr(resume, "resume", noisy)


def break_jobs(faults: dict[str, list[str]]) -> None:
    """Each job is done with the faults of its kind, in as few layouts as show them."""
    whole = process._Process._do
    for fault in faults.get("all", []):
        globals()[fault](Patch())

    def do(self: Any, job: Any) -> None:
        with Patch.context() as patch:
            patch.setitem(process.CHAINS, 2, ("dp2", "pp2.vpp2") if job.work == "chain" else ("dp2",))
            for fault in faults.get(job.work, []):
                globals()[fault](patch)
            whole(self, job)

    process._Process._do = do


if __name__ == "__main__":
    entries = [entry.split(":") for entry in os.environ["FAULTS"].split()]
    break_jobs({job: names.split(",") for job, names in entries})
    sys.exit(process.main(sys.argv[1:]))
