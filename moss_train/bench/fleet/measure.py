"""All parts behind each other on the same shards, results kept as they come, and nothing left behind."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from model.config import VideoMllamaConfig
from model.errors import InputError
from moss_train.bench.fleet.machine import Machine, default_folder
from moss_train.bench.fleet.parts import Measurement, Say
from moss_train.bench.fleet.processes import remove_unused, shared_files
from moss_train.bench.fleet.runs import FILLED, Chosen, Options, choose, run_config, saved_cut
from moss_train.bench.fleet.shards import clips_of, make_clips_here, make_shards
from moss_train.bench.saving import checkpoint_bytes, room
from moss_train.bench.subject import Cut
from moss_train.config.schema import RunConfig

LEAST_SECONDS = 60.0
"""Left of the time, below which no further run begins on GPUs: a start took 24 to 32, a first step 10 to 20."""
DETERMINISTIC = "train.deterministic=true"
Keep = Callable[[dict[str, Any]], None]


def measure(
    options: Options, machine: Machine, parts: Sequence[str], *, data: Path | None, work_dir: Path | None, limit: float,
    deterministic: bool, keep: Keep, say: Say,
) -> dict[str, Any]:  # fmt: skip
    """Everything that is asked for, as far as the time goes.

    Args:
        options: of the runs.
        machine: where they run.
        parts: of `PARTS`.
        data: folder of clips; None renders some.
        work_dir: where the runs' folder is made; None takes memory, where there is room.
        limit: seconds.
        deterministic: whether the run that is saved has `train.deterministic`.
        keep: is given the results so far behind every part.
        say: told of the progress.

    Raises:
        InputError: no layout fits, or no clips.
    """
    begin = time.monotonic()
    before = shared_files()
    found: dict[str, Any] = {"machine": vars(machine), "parts": list(parts), "limit_seconds": limit}
    base = work_dir or default_folder()
    base.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="moss-fleet-", dir=base))
    work = Measurement(options, machine, folder, begin + limit, say)
    try:
        _prepare(options, machine, data, folder, say)
        found["data_seconds"] = time.monotonic() - begin
        _run(work, parts, found, deterministic, keep)
    finally:
        work.end()
        found["left_over_processes"] = len(work.left_over)
        shutil.rmtree(folder, ignore_errors=True)
        found["shared_files_removed"] = len(remove_unused(shared_files() - before))
        found["seconds"] = time.monotonic() - begin
        keep(found)
    return found


def _prepare(options: Options, machine: Machine, data: Path | None, folder: Path, say: Say) -> None:
    from moss_train.bench.data.setups import tokenizer_of

    model = VideoMllamaConfig.from_dict(run_config(options, Cut(), folder, machine).model)
    say("writing shards")
    if data is None:
        clips = make_clips_here(folder / "clips", model.vision.image_size, float(options.frames // 2 + 1), 4, say)
    else:
        clips = clips_of(data)
    samples = max(4 * options.readers * machine.ranks, 16)
    make_shards(
        folder / "data", clips, tokenizer_of(model), rows=options.rows, frames=options.frames, samples=samples
    )  # fmt: skip


def _run(work: Measurement, parts: Sequence[str], found: dict[str, Any], deterministic: bool, keep: Keep) -> None:
    options, machine, data = work.options, work.machine, work.folder / "data"
    if "rates" in parts:
        whole = run_config(options, Cut(options.layers, options.tower_layers), data, machine)
        found["rates"] = work.rates(choose(whole, machine.ranks, machine, options))
        keep(found)
    if not {"checkpoint", "kill", "reshard"} & set(parts):
        return
    if sentence := _no_time(work):
        found["checkpoint"] = {"not_done": sentence}
        return

    def keep_part(name: str, part: dict[str, Any]) -> None:
        found[name] = part
        keep(found)

    more = (DETERMINISTIC,) if deterministic else ()
    config = run_config(options, saved_cut(options, data, machine), data, machine, more)
    chosen = choose(config, machine.ranks, machine, options)
    if sentence := _no_room(work.folder, chosen):
        found["checkpoint"] = {"not_done": sentence}
        return
    other = _other(work, chosen, config, found) if "reshard" in parts else None
    together = other is not None and options.at_once and _fit_together(chosen, other, machine)
    checkpoint, rows = work.saved(chosen, "kill" in parts, keep_part, other if together else None)
    found["checkpoint"]["deterministic"] = deterministic
    if other is not None and checkpoint is not None:
        sentence = None if together else _no_time(work)
        found["reshard"] = {"not_done": sentence} if sentence else work.reshard(other, checkpoint, rows)
        keep(found)


def _other(work: Measurement, chosen: Chosen, config: RunConfig, found: dict[str, Any]) -> Chosen | None:
    """The other layout; why there is none is told."""
    try:
        return work.other_layout(chosen, config)
    except InputError as error:
        found["reshard"] = {"not_done": str(error)}
    return None


def _fit_together(chosen: Chosen, other: Chosen, machine: Machine) -> bool:
    """Whether a GPU holds a rank of both."""
    return chosen.bytes + other.bytes <= FILLED * machine.card


def _no_time(work: Measurement) -> str | None:
    left = work.deadline - time.monotonic()
    least = LEAST_SECONDS if work.machine.device == "cuda" else 0.0
    return f"{left:.0f} s were left of --limit-seconds" if left < least else None


def _no_room(folder: Path, chosen: Chosen) -> str | None:
    """A checkpoint in the folder and the ranks' copies beside it, all of them perhaps in memory."""
    size, free = checkpoint_bytes(chosen.config), room(folder)
    if 2.1 * size <= free:
        return None
    return (
        f"a checkpoint of {size / 1e9:.1f} GB and its copy in memory do not fit {free / 1e9:.1f} GB; give a smaller "
        "--checkpoint-gb or another --work-dir"
    )
