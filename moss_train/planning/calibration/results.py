"""Steps that `moss bench train` measured, read back from its JSON files.

Of every case are taken: the overrides that compose to the run's config, the (rows, frames) of its samples by micro-batch, the
work of a step, seconds by phase and bytes. What a file says beside that plays no part.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from model.errors import InputError
from moss_train.config.compose import compose
from moss_train.config.schema import RunConfig
from moss_train.planning.flops import Work, gpu_of
from moss_train.planning.memory import PackLoad

PHASES = ("encode", "decode", "return", "optimizer")
"""What is predicted of a step; the rest of it, waiting for data and the host's, should be little."""


@dataclass(frozen=True)
class Case:
    """One measured case."""

    name: str
    config: RunConfig
    samples: tuple[tuple[tuple[int, int], ...], ...]
    """(rows, frames) of the samples of each micro-batch."""
    work: Work
    """Of a step."""
    updates: bool
    """Whether there was an optimizer."""
    seconds: dict[str, float]
    """By phase of `PHASES`, as far as they ran."""
    step: float | None
    """Seconds of the whole step; None where only phases were run."""
    peak: int | None
    """Most bytes allocated at once; None where that was not measured."""

    @property
    def load(self) -> PackLoad:
        """For the plan of memory."""
        return PackLoad.of_samples(self.samples)


@dataclass(frozen=True)
class Results:
    """The cases of some files, all of one card."""

    device: str
    """As torch calls it."""
    sources: tuple[str, ...]
    """Files and their dates."""
    cases: tuple[Case, ...]
    date: str = ""
    """Of the newest file."""
    versions: dict[str, str] = field(default_factory=dict)
    """Of the first file's software."""

    @property
    def gpu(self) -> str | None:
        """The card's name in the table of peaks; None for one that it does not have."""
        known = gpu_of(self.device)
        return None if known is None else known.name


def read_results(paths: Sequence[Path]) -> Results:
    """Read files.

    Raises:
        InputError: a file that cannot be read or holds something else, no measured case, or files of different cards.
    """
    devices, sources, cases, dates = set(), [], [], [""]
    versions: dict[str, str] = {}
    for path in paths:
        content = read_content(path)
        versions = versions or dict(content.get("versions", {}))
        dates.append(str(content.get("date", "")))
        devices.add(_of(content.get("hardware"), "device", f"{path}: hardware"))
        sources.append(" ".join(filter(None, (path.name, str(content.get("date", ""))))))
        for index, case in enumerate(_of(content, "cases", str(path))):
            if isinstance(case, dict) and "failed" in case:
                continue
            found = _case(f"{path}: case {index}", case)
            if found.config.engine == "megatron":  # plans are of no other
                cases.append(found)
    if len(devices) > 1:
        raise InputError(f"the results are of different cards ({', '.join(sorted(devices))}); give those of one")
    if not cases:
        raise InputError(f"{', '.join(map(str, paths))} holds no measured case; give results of moss bench train --out")
    return Results(devices.pop(), tuple(sources), tuple(cases), max(dates), versions)


def read_content(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        InputError: it cannot be read, or is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); give results of moss bench train --out") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is no JSON object; give results of moss bench train --out")
    return content


def _of(content: Any, key: str, where: str) -> Any:
    if not isinstance(content, dict) or key not in content:
        raise InputError(f"{where} has no {key!r}; give results of moss bench train --out")
    return content[key]


def _case(where: str, content: Any) -> Case:
    name = str(_of(content, "name", where))
    where = f"{where} ({name})"
    config = compose(list(_of(content, "overrides", where)))
    samples = tuple(tuple((int(rows), int(frames)) for rows, frames in pack) for pack in _of(content, "samples", where))
    seconds = _of(content, "seconds", where)
    if not samples or not all(samples):
        raise InputError(f"{where} has no samples; give results of moss bench train --out")
    for phase, value in seconds.items():
        if not isinstance(value, int | float) or not value >= 0:
            raise InputError(f"{where}: seconds.{phase} is {value!r}; it must be a number of at least 0")
    peak = content.get("memory", {}).get("peak")
    return Case(
        name=name,
        config=config,
        samples=samples,
        work=_work(content, samples),
        updates=bool(content.get("updates", True)),
        seconds={phase: float(seconds[phase]) for phase in PHASES if seconds.get(phase)},
        step=float(seconds["step"]) if seconds.get("step") else None,
        peak=None if peak is None else int(peak),
    )


def _work(content: dict[str, Any], samples: Sequence[Sequence[tuple[int, int]]]) -> Work:
    """What the file says; else of samples whose rows see half of their frames, and learn all but frames and a first row."""
    said = content.get("work")
    if said is not None:
        return Work(**{spec.name: said[spec.name] for spec in fields(Work) if spec.name in said})
    every = [sample for pack in samples for sample in pack]
    rows, frames = sum(n for n, _ in every), sum(f for _, f in every)
    return Work(
        rows=rows, frames=frames, self_pairs=sum(n * (n + 1) // 2 for n, _ in every),
        cross_pairs=sum(n * f // 2 for n, f in every), head_rows=rows - frames - len(every),
        cross_rows=sum(sum(n for n, _ in pack) for pack in samples if any(f for _, f in pack)),
    )  # fmt: skip
