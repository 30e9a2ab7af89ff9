"""Steps that `moss bench scaling` measured beside what is predicted of them with the rates of now: for `moss plan check`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from model.errors import InputError
from moss_train.bench.scaling.cases import Case
from moss_train.bench.scaling.predict import all_packs, predicted
from moss_train.bench.train.tables import good
from moss_train.planning.calibration.compare import Compared, Pair
from moss_train.planning.calibration.results import Results, read_content
from moss_train.planning.flops import Gpu
from moss_train.planning.rates import Row

WORLD = "world"
"""Frames that are dealt over all ranks: what a plan takes for granted."""


def split(paths: Sequence[Path]) -> tuple[list[Path], list[dict[str, Any]]]:
    """Files of one GPU's steps, and the content of those of several GPUs, each call of the command by itself.

    Raises:
        InputError: a file that cannot be read.
    """
    plain, runs = [], []
    for path in paths:
        content = read_content(path)
        parts = content["runs"] if isinstance(content.get("runs"), list) else [content]
        if parts and all(isinstance(part, dict) and {"gpus", "options", "cases"} <= part.keys() for part in parts):
            runs += [{**part, "path": str(path)} for part in parts]
        else:
            plain.append(path)
    return plain, runs


def joined(results: Results | None, runs: Sequence[dict[str, Any]]) -> Results:
    """What both kinds of files say of card, date and software; cases are those of the first kind.

    Raises:
        InputError: the files are of different cards, or one names none.
    """
    for run in runs:
        hardware = run.get("hardware")
        if not isinstance(hardware, dict) or "device" not in hardware:
            raise InputError(f"{run['path']}: hardware has no 'device'; give results of moss bench scaling --out")
        device, date = str(hardware["device"]), str(run.get("date", ""))
        source = f"{Path(run['path']).name} {date}".strip()
        if results is None:
            results = Results(device, (source,), (), date, dict(run.get("versions", {})))
        elif device != results.device:
            raise InputError(f"the results are of different cards ({device}, {results.device}); give those of one")
        else:
            results = replace(results, sources=(*results.sources, source), date=max(results.date, date))
    assert results is not None
    return results


def compare_run(run: dict[str, Any], gpu: Gpu, row: Row) -> list[Compared]:
    """Step and memory of every case that was measured and whose frames were dealt over all ranks.

    Args:
        run: content of a file of `moss bench scaling --out`, with its `path`.
        gpu: what the vendor states for it.
        row: what it reaches.

    Raises:
        InputError: a case lacks what its packs are made from.
    """
    found = []
    for case in good(run):
        try:
            made = Case(
                case["kind"], case["stage"], case["layout"], case["ranks"], tuple(map(tuple, case["frames"])), case["rows"],
                case["deal"], tuple(case["overrides"]),
            )  # fmt: skip
            seed, step, memory = run["options"].get("seed", 0), float(case["step"]), case["memory"]
            on_gpu = "static" in memory["all"][0]  # of a CPU only the process's bytes are known, which no plan speaks of
            peak = float(memory["peak"])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            told = (
                f"{run['path']}: case {case.get('name')!r} cannot be read ({error!r}); give results of moss bench scaling --out"
            )
            raise InputError(told) from error
        if made.deal != WORLD:
            continue
        said = predicted(made, all_packs(made, seed), gpu, row)
        assert said["step"] is not None and said["peak"] is not None
        bytes_ = Pair(said["peak"], peak) if on_gpu else None
        found.append(Compared(case["name"], {}, Pair(said["step"], step), bytes_))
    return found
