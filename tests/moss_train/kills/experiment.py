"""One kill: a run is continued, killed, continued again to its end, and held against one that was left alone."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moss_train.checkpoint.description import find_checkpoint, newest_checkpoint, published_checkpoints, step_name, step_of
from moss_train.config.schema import RunConfig
from tests.moss_train.kills.compare import first_difference, lines_differ, relative_losses, samples_differ, state_files
from tests.moss_train.kills.layouts import LAYOUTS, SAVE_EVERY, STOP_SECONDS, Layout, config_of
from tests.moss_train.kills.start import LIMIT, Start, last_step, metrics

FIRST_STEP, NEXT_STEPS, MANY = 1e-6, 1e-4, 20
"""Largest relative difference of the loss on another layout: in the first step after the kill, and in the next 20."""
IN_RANK = ("data", "encode", "decode", "return", "optimizer", "evaluation", "file", "load")
BY_SIGNAL = ("group", "start", "loader", "SIGTERM", "SIGINT")
KINDS = (*IN_RANK, *BY_SIGNAL, "publish", "memory")
_TRIES = 4


@dataclass(frozen=True)
class Kill:
    """What happens to a run."""

    kind: str
    before: Layout
    after: Layout
    started_from: int
    """Step of the checkpoint that the run continues when it is killed; 0 begins it."""
    step: int
    rank: int
    part: float
    """How far into a part of the step, or how long after a step, from 0 to 1."""
    count: int
    """Number of the operation on checkpoint files."""

    def plan(self) -> dict[str, Any] | None:
        """For `injected`; None where the kill comes from outside."""
        plan: dict[str, Any] = {"rank": self.rank, "step": self.step, "point": self.kind, "part": self.part, "count": self.count}
        if self.kind in IN_RANK:
            return plan
        if self.kind == "publish":  # only the first rank publishes
            return plan | {"rank": 0, "point": "publish"}
        if self.kind == "memory":
            return plan | {"point": ("encode", "decode", "optimizer")[self.count % 3], "what": "memory"}
        return None


def draw(kind: str, choice: random.Random, steps: int, layouts: list[str] | None = None, same: bool | None = None) -> Kill:
    """A random kill of a kind; runs on four ranks are rare, as cores are."""
    names = layouts or [*("single", "dp2", "tp2", "pp2", "cp2") * 4, "tp2.pp2", "dp2.tp2"]
    before = LAYOUTS[choice.choice(names)]
    others = [name for name in names if name != before.name] or [before.name]
    stay = choice.random() < 0.5 if same is None else same
    after = before if stay else LAYOUTS[choice.choice(others)]
    step = choice.randrange(2, steps - MANY if steps > 2 * MANY else steps - 4)
    if kind in ("file", "publish", "evaluation"):  # a step behind which a checkpoint, or also an evaluation, comes
        every = SAVE_EVERY * (2 if kind == "evaluation" else 1)
        step = max(every, step // every * every)
    latest = (step - 1) // SAVE_EVERY
    started_from = choice.randrange(max(0, latest - 1), latest + 1) * SAVE_EVERY
    if kind == "load":
        started_from = max(SAVE_EVERY, started_from)
    return Kill(
        kind=kind, before=before, after=after, started_from=started_from, step=max(step, started_from + 1),
        rank=choice.randrange(before.ranks), part=choice.random(), count=choice.randrange(1, 20),
    )  # fmt: skip


LeftAlone = Callable[[RunConfig, int], str | None]
"""Takes a run on so many ranks to its end; None, or how it ended else."""


def by_command(config: RunConfig, ranks: int) -> str | None:
    """`moss train`."""
    start = Start(config, ranks)
    code = start.wait()
    return f"ended with {code}: {start.said()}" if code else None


def reference_run(folder: Path, layout: Layout, steps: int, left_alone: LeftAlone = by_command) -> Path:
    """A run on this layout that is left alone, with all its checkpoints; made once."""
    run_dir = folder / f"whole_{layout.name}"
    if not run_dir.is_dir():
        failed = left_alone(config_of(folder / "data", run_dir, layout, steps, keep_all=True), layout.ranks)
        assert failed is None, failed
    return run_dir


def copy_until(reference: Path, run_dir: Path, step: int) -> None:
    """The state of the reference right behind the checkpoint of a step; nothing for step 0."""
    shutil.rmtree(run_dir, ignore_errors=True)
    if step == 0:
        return
    shutil.copytree(reference, run_dir, ignore=shutil.ignore_patterns("checkpoints"))
    shutil.copytree(reference / "checkpoints" / step_name(step), run_dir / "checkpoints" / step_name(step))
    (run_dir / "latest").write_text(step_name(step) + "\n")
    for path in (run_dir / "metrics.jsonl", *run_dir.glob("samples_*.jsonl")):
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if json.loads(line)["step"] <= step))


def carry_out(
    kill: Kill,
    folder: Path,
    steps: int,
    choice: random.Random,
    left_alone: LeftAlone = by_command,
    begin: Callable[[RunConfig, int, dict[str, Any] | None], Start] = Start,
) -> dict[str, Any]:
    """Kill, continue, compare; the row says what was found.

    Args:
        folder: with the data and the reference runs.
        left_alone: for the reference run, and for the one that is continued behind the kill.
        begin: for the run that is killed.
    """
    reference = reference_run(folder, kill.before, steps, left_alone)
    for attempt in range(_TRIES):
        row = _kill(kill, folder, steps, reference, choice, begin)
        if row["hit"]:
            break
        kill = _nearer(kill, attempt, steps)
    assert row["hit"], f"{kill} never met the run: {row}"
    return row | _continue(kill, folder, steps, reference, choice, left_alone)


def _nearer(kill: Kill, attempt: int, steps: int) -> Kill:
    """A kill that the run ended before is tried at an earlier operation on a file."""
    return Kill(**(vars(kill) | {"count": max(1, kill.count // 2)}))


def _kill(
    kill: Kill,
    folder: Path,
    steps: int,
    reference: Path,
    choice: random.Random,
    begin: Callable[[RunConfig, int, dict[str, Any] | None], Start],
) -> dict[str, Any]:
    run_dir = folder / "killed"
    copy_until(reference, run_dir, kill.started_from)
    processes = 1 if kill.kind == "loader" else choice.choice((0, 0, 1))
    config = config_of(folder / "data", run_dir, kill.before, steps, processes=processes)
    start = begin(config, kill.before.ranks, kill.plan())
    told = time.monotonic()
    if kill.kind == "start":
        time.sleep(kill.part * 4.0)
        start.send("group", choice)
    elif kill.kind in BY_SIGNAL and start.wait_for_step(kill.step):
        time.sleep(0.3 * kill.part)
        told = time.monotonic()
        start.send(kill.kind, choice)
    code = start.wait()
    in_time = time.monotonic() - told <= (STOP_SECONDS if kill.kind in ("SIGTERM", "SIGINT") else LIMIT)
    newest = newest_checkpoint(run_dir)
    at_step = last_step(run_dir)
    asked = kill.kind in ("SIGTERM", "SIGINT")
    return {
        "kind": kill.kind,
        "signal": {"SIGTERM": "SIGTERM", "SIGINT": "SIGINT", "memory": "none: allocations fail"}.get(kill.kind, "SIGKILL"),
        "step": kill.step,
        "rank": _who(kill),
        "layout_before": kill.before.name,
        "layout_after": kill.after.name,
        "started_from": kill.started_from,
        "loader_processes": processes,
        "hit": at_step < steps if asked else code != 0,
        "exit_code": code,
        "last_step": at_step,
        "checkpoint": 0 if newest is None else step_of(newest),
        "saved_in_time": (in_time and code == 0 and newest is not None and step_of(newest) == at_step) if asked else None,
        "left_over": start.left_over(),
        "said": start.said(),
    }


def _who(kill: Kill) -> str:
    if kill.kind in ("group", "start", "SIGINT"):
        return "all"
    if kill.kind == "SIGTERM":
        return "launcher" if kill.before.ranks > 1 else "0"
    if kill.kind == "loader":
        return "a loader process"
    return "0" if kill.kind == "publish" else str(kill.rank)


def _continue(
    kill: Kill, folder: Path, steps: int, reference: Path, choice: random.Random, left_alone: LeftAlone
) -> dict[str, Any]:
    run_dir = folder / "killed"
    published = published_checkpoints(run_dir)
    begin = step_of(published[-1]) if published else 0
    config = config_of(folder / "data", run_dir, kill.after, steps, processes=choice.choice((0, 0, 1)))
    failed = left_alone(config, kill.after.ranks)
    if failed is not None:
        return {"continued_from": begin, "first_difference": f"the continued run {failed}"}
    rows, expected = metrics(run_dir), metrics(reference)
    same = kill.before == kill.after
    differences = relative_losses(rows, expected, begin + 1)
    held_out = relative_losses(rows, expected, begin, "eval_loss")
    # on another layout, up to the step before: an evaluation that a signal left out is made there too
    bit_for_bit = steps if same else begin - 1
    row: dict[str, Any] = {
        "continued_from": begin,
        "first_difference": first_difference(rows, expected, 0, bit_for_bit) or lines_differ(rows, expected),
        "samples_differ": samples_differ(run_dir, reference),
        "first_step_relative": differences.get(begin + 1, 0.0),
        "largest_relative_20": max((d for s, d in [*differences.items(), *held_out.items()] if s <= begin + MANY), default=0.0),
        "largest_relative": max(differences.values(), default=0.0),
        "state_equal": None,
    }
    if same:
        ours, theirs = state_files(find_checkpoint(run_dir)), state_files(find_checkpoint(reference))
        row["state_equal"] = bool(theirs) and ours == theirs
    return row


def faults(row: dict[str, Any]) -> list[str]:
    """What of a row is not as it must be; empty where all is well."""
    found = []
    if row["first_difference"]:
        found.append(row["first_difference"])
    if row.get("samples_differ"):
        found.append(f"samples: {row['samples_differ']}")
    if row.get("state_equal") is False:
        found.append("the final weights or optimizer states differ")
    if row.get("first_step_relative", 0.0) > FIRST_STEP:
        found.append(f"loss of the first step differs by {row['first_step_relative']:.1e}")
    if row.get("largest_relative_20", 0.0) > NEXT_STEPS:
        found.append(f"losses of the next {MANY} steps differ by {row['largest_relative_20']:.1e}")
    if row["saved_in_time"] is False:
        found.append(f"not saved within {STOP_SECONDS:g} s of the signal")
    if row["left_over"]:
        found.append(f"{row['left_over']} processes left over")
    return found
