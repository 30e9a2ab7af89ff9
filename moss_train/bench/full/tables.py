"""Results of `moss bench full` as tables."""

from __future__ import annotations

from typing import Any

from moss_train.bench.train.tables import Table, number, phases_table, rates_table

GIB = 2**30


def tables(found: dict[str, Any]) -> list[Table]:
    """All that there is."""
    made = []
    if "cases" in found:
        made += [rates_table(found["cases"]), phases_table(found["cases"]), memory_table(found), held_table(found)]
    if "save" in found.get("proof", {}):
        made.append(saving_table(found["proof"]))
    for name in ("proof", "resumed"):
        if "continued" in found.get(name, {}):
            made.append(steps_table(found[name]))
    if "resumed" in found:
        made.append(loading_table(found["resumed"]["load"]))
    untold = found.get("proof", {}).get("not_done", [])
    return [*made, *([Table("not measured", ("what", ""), [(sentence, "") for sentence in untold])] if untold else [])]


def memory_table(found: dict[str, Any]) -> Table:
    """Most GiB at once by phase, measured and planned."""
    memory, plan = found["cases"][0]["memory"], found["plan"]
    named = {"decode": ("losses", "backward"), "optimizer": ("update",)}
    rows = []
    for phase, peak in memory.get("peaks", {}).items():
        planned = max(sum(plan["phases"][name].values()) for name in named.get(phase, (phase,)))
        rows.append((phase, number(peak, 2, 1 / GIB), number(planned, 2, 1 / GIB)))
    rows.append(("between steps", number(memory.get("static"), 2, 1 / GIB), ""))
    rows.append(("largest", number(memory["peak"], 2, 1 / GIB), number(plan["peak"], 2, 1 / GIB)))
    rows.append(("reserved", number(memory.get("reserved"), 2, 1 / GIB), ""))
    rows.append(("beside the allocator", number(memory.get("beside"), 2, 1 / GIB), number(plan["outside"], 2, 1 / GIB)))
    rows.append(("building the model", number(found["build_peak"] or None, 2, 1 / GIB), ""))
    return Table("memory, GiB", ("", "measured", "planned"), rows)


def held_table(found: dict[str, Any]) -> Table:
    """Bytes a parameter by kind."""
    count = found["cases"][0]["parameters"]
    rows = [(name.replace("_", " "), number(held, 2, 1 / GIB), number(held / count, 3)) for name, held in found["held"].items()]
    rows.append(("all", number(sum(found["held"].values()), 2, 1 / GIB), number(found["bytes_a_parameter"], 3)))
    return Table(f"held between steps, {count:,} parameters", ("", "GiB", "bytes a parameter"), rows)


def saving_table(proof: dict[str, Any]) -> Table:
    """Seconds and memory of saving and loading."""
    rows = []
    for name in ("save", "load"):
        part = proof.get(name)
        if part is not None:
            rate = proof["save"]["bytes"] / part["seconds"]
            rows.append((name, number(part["seconds"], 1), number(rate, 2, 1e-9), *_memory_words(part)))
    header = ("", "seconds", "GB/s", *_MEMORY)
    return Table(f"a checkpoint of {proof['save']['bytes'] / 1e9:.1f} GB", header, rows)


_MEMORY = ("most GiB on the device", "added by it", "added on the host")


def _memory_words(part: dict[str, Any]) -> tuple[str, ...]:
    added = (part.get("device_bytes_added"), part["host_bytes_added"])
    return number(part.get("device_bytes"), 2, 1 / GIB), *(number(value, 3, 1 / GIB) for value in added)


def loading_table(part: dict[str, Any]) -> Table:
    """Seconds and memory of loading in another process than the one that saved."""
    row = ("load", number(part["seconds"], 1), *_memory_words(part))
    return Table("loaded by another process", ("", "seconds", *_MEMORY), [row])


def steps_table(proof: dict[str, Any]) -> Table:
    """Loss and norm of the steps behind a checkpoint."""
    rows = []
    for index, (one, other) in enumerate(zip(proof["uninterrupted"], proof["continued"], strict=True), start=1):
        for name in ("loss", "norm"):
            shown = (f"{float.fromhex(step[name]):.9g}" for step in (one, other))
            rows.append((f"{name} of step {index}", *shown, "yes" if one[name] == other[name] else "no"))
    rows.append(("weights and states", "", "", "yes" if proof["same_state"] else "no"))
    return Table("continued from the checkpoint", ("", "uninterrupted", "continued", "the same bits"), rows)
