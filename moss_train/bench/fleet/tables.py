"""Results of `moss bench fleet` as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moss_train.bench.train.tables import MISSING, Table, number, share

GIB = 2**30
_HEAD = ("", "")


def tables(found: Mapping[str, Any]) -> list[Table]:
    """All that there is."""
    made = [runs_table(found)] if any(_has(found, name, "run") for name in ("rates", "checkpoint", "reshard")) else []
    if _has(found, "rates", "seconds"):
        made += [rates_table(found["rates"]), phases_table(found["rates"])]
    if _has(found, "checkpoint", "stall_seconds"):
        made.append(checkpoint_table(found["checkpoint"]))
    if _has(found, "kill", "ended_seconds"):
        made.append(kill_table(found["kill"]))
    made += [steps_table(name, found[name]) for name in ("kill", "reshard") if found.get(name, {}).get("steps")]
    untold = [(name, found[name]["not_done"][:400]) for name in ("rates", "checkpoint", "kill", "reshard") if _has(
        found, name, "not_done")]  # fmt: skip
    return [*made, *([Table("not measured", ("part", ""), untold)] if untold else [])]


def _has(found: Mapping[str, Any], part: str, name: str) -> bool:
    return name in found.get(part, {})


def runs_table(found: Mapping[str, Any]) -> Table:
    """Which run each part was, and how long it took to start."""
    header = (
        "run", "GPUs", "layout", "parameters", "layers", "tower", "packs a step", "planned GiB", "planned ms", "to the loop, s",
        "first step, s", "second, s",
    )  # fmt: skip
    rows = []
    for name in ("rates", "checkpoint", "reshard"):
        if _has(found, name, "run"):
            part, run = found[name], found[name]["run"]
            rows.append((
                name, str(run["ranks"]), run["layout"], number(run["parameters"]), str(run["text_layers"]),
                str(run["tower_layers"]), str(run["global_batch"]), number(run["planned_bytes"], 1, 1 / GIB),
                number(run["planned_seconds"], 0, 1e3),
                *(number(part.get(key), 1) for key in ("start_seconds", "first_step_seconds", "second_step_seconds")),
            ))  # fmt: skip
    return Table("runs", header, rows)


def rates_table(part: Mapping[str, Any]) -> Table:
    """Medians of the measured steps."""
    memory = part.get("memory_gib", {})
    rows = [
        ("ms a step", number(part["seconds"], 1, 1e3)),
        ("least to most", f"{number(part['least_seconds'], 1, 1e3)} to {number(part['most_seconds'], 1, 1e3)}"),
        ("tokens/s", number(part["tokens_per_second"], 0)),
        ("frames/s", number(part["frames_per_second"], 1)),
        ("TFLOP/s a GPU", number(part["tflops_per_gpu"], 1)),
        ("MFU", share(part["mfu"])),
        ("data wait, ms (most)", f"{number(part['data_seconds'], 1, 1e3)} ({number(part['most_data_seconds'], 1, 1e3)})"),
        ("data wait, share of the steps", share(part["data_share"])),
        ("padding", share(part["padding"])),
        ("allocated, GiB", number(memory.get("allocated"), 1)),
        ("reserved, GiB", number(memory.get("reserved"), 1)),
    ]
    return Table(f"{part['steps']} steps", _HEAD, rows)


def phases_table(part: Mapping[str, Any]) -> Table:
    """Parts of a step on the first rank."""
    names = list(part["phase_seconds"])
    return Table("ms of a step", tuple(names), [tuple(number(part["phase_seconds"][name], 1, 1e3) for name in names)])


def checkpoint_table(part: Mapping[str, Any]) -> Table:
    """What it cost."""
    rows = [
        ("GB", number(part["bytes"], 2, 1e-9)),
        ("behind step", str(part["step"])),
        ("training waited, s", number(part["stall_seconds"], 3)),
        ("in steps", number(part["stall_seconds"] / part["median_before"], 2) if part["median_before"] else MISSING),
        ("until it stands, s", number(part["durable_seconds"], 2)),
        ("GB/s", number(part["bytes"] / part["durable_seconds"], 2, 1e-9)),
        ("ms a step before", number(part["median_before"], 1, 1e3)),
        (f"ms a step meanwhile, of {part['steps_meanwhile']}", number(part["median_meanwhile"], 1, 1e3)),
        ("the longest", number(part["most_meanwhile"], 1, 1e3)),
        ("ms a step after", number(part["median_after"], 1, 1e3)),
    ]
    return Table("a checkpoint while training goes on", _HEAD, rows)


def kill_table(part: Mapping[str, Any]) -> Table:
    """Seconds from SIGKILL."""
    rows = [
        ("all ranks ended, s", number(part["ended_seconds"], 1)),
        ("trains again, s", number(part.get("trains_again_seconds"), 1)),
        ("first step's end, s", number(part.get("first_step_seconds"), 1)),
        ("steps that were lost", number(part["last_step"] - part["first_step"] + 1) if "first_step" in part else MISSING),
    ]
    return Table(f"SIGKILL to rank {part['rank']} behind step {part['last_step']}", _HEAD, rows)


def steps_table(name: str, part: Mapping[str, Any]) -> Table:
    """The same steps of two starts."""
    rows = [
        (str(row["step"]), *(f"{value:.9g}" for value in (*row["loss"], *row["grad_norm"])), "yes" if row["equal"] else "no")
        for row in part["steps"]
    ]
    header = ("step", "loss", "once more", "gradient norm", "once more", "the same bits")
    title = {"kill": "steps done again behind the kill", "reshard": "the same steps in another layout"}[name]
    return Table(title, header, rows)
