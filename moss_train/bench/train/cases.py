"""What `moss bench train` measures: every combination of stage, precision, frames and rows, each with a run's config."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from model.errors import InputError
from model.fp8 import check_rows
from moss_train.bench.subject import OPTIMIZERS, PRECISIONS, Cut, overrides_of
from moss_train.config.compose import compose
from moss_train.config.schema import RECOMPUTE, RunConfig
from moss_train.planning.workload import STAGES


@dataclass(frozen=True)
class Options:
    """What is asked for."""

    stages: tuple[str, ...] = ("pt2",)
    frames: tuple[int, ...] = (0, 8, 64, 256)
    rows: tuple[int, ...] = (4096,)
    precisions: tuple[str, ...] = ("bf16", "fp8")
    model: str = "11b"
    cut: Cut = field(default_factory=Cut)
    keep_mode: str | None = None
    keep_gib: float | None = None
    recompute: str = "none"
    optimizer: str = "none"
    micro_batches: int = 1
    """Packs in one step."""
    data: Path | None = None
    """Folder of prepared shards; None trains on synthetic packs."""
    steps: int = 8
    warmup: int = 3
    case_seconds: float | None = None
    """Behind which no measured step begins, once there are two; warm-up ends with them at the latest."""
    seed: int = 0
    limit_seconds: float | None = None
    profile: bool = False
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """One measurement."""

    stage: str
    precision: str
    frames: int
    rows: int
    optimizer: str
    micro_batches: int
    group: tuple[str, ...]
    """Overrides of what has to be built anew for it: cases of equal groups share a model."""

    @property
    def name(self) -> str:
        packs = f"{self.micro_batches} x " if self.micro_batches > 1 else ""
        return f"{self.stage} {self.precision}, {packs}{self.rows:,} rows, {self.frames} frames"

    @property
    def overrides(self) -> list[str]:
        """Of the run's config that this case is."""
        sizes = [f"stage.sequence_length={self.rows}", f"stage.max_frames_per_pack={self.frames}"]
        return [*self.group, *sizes, f"train.global_batch_size={self.micro_batches}"]

    @property
    def config(self) -> RunConfig:
        """Shared, not to be changed."""
        return _composed(tuple(self.overrides))


@functools.cache
def _composed(overrides: tuple[str, ...]) -> RunConfig:
    return compose(list(overrides))


@dataclass(frozen=True)
class LeftOut:
    """A combination that is not measured, and why."""

    name: str
    reason: str


def make_cases(options: Options) -> tuple[list[Case], list[LeftOut]]:
    """All combinations, those that share a model behind each other, and what a stage does not have.

    Raises:
        InputError: a name or size that nothing can be measured with.
    """
    _check(options)
    cases: list[Case] = []
    left_out: list[LeftOut] = []
    for precision in options.precisions:  # all stages in one first: where time is short, one column is whole
        for stage in options.stages:
            group = _group(options, stage, precision)
            limits = compose(list(group)).stage
            for rows in options.rows:
                if precision == "fp8":
                    check_rows(rows, 1)
                for frames in options.frames:
                    case = Case(stage, precision, frames, rows, options.optimizer, options.micro_batches, group)
                    if rows > limits.sequence_length:
                        left_out.append(LeftOut(case.name, f"packs of {stage} have at most {limits.sequence_length} rows"))
                    elif frames > limits.max_frames_per_pack:
                        left_out.append(LeftOut(case.name, f"packs of {stage} have at most {limits.max_frames_per_pack} frames"))
                    elif rows < 2 * frames:
                        left_out.append(LeftOut(case.name, f"{rows} rows do not hold {frames} frames and their text"))
                    else:
                        cases.append(case)
    return cases, left_out


def _group(options: Options, stage: str, precision: str) -> tuple[str, ...]:
    data = [] if options.data is None else _data(options.data, stage, options.overrides)
    return tuple(
        overrides_of(
            stage, model=options.model, cut=options.cut, precision=precision, optimizer=options.optimizer,
            recompute=options.recompute, keep_mode=options.keep_mode, keep_gib=options.keep_gib,
            more=[*data, *options.overrides],
        )
    )  # fmt: skip


def _data(folder: Path, stage: str, given: Sequence[str]) -> list[str]:
    """The folder's shards in the stage's mixture: of what is there, unless `given` names datasets or mixture itself.

    Raises:
        InputError: nothing of the mixture is there.
    """
    root = [f"data.root={folder.resolve()}"]
    if any(override.split("=")[0].split(".")[:2] in (["data", "mixture"], ["data", "datasets"]) for override in given):
        return root
    mixture = compose([f"stage={stage}", "run_dir=unused"]).data.mixture
    there = {kind: part for kind, part in mixture.items() if part > 0 and (folder / kind).is_dir()}
    if not there:
        wanted = ", ".join(kind for kind, part in mixture.items() if part > 0)
        raise InputError(f"--data {folder} has no folder of shards that {stage} mixes ({wanted}); write one with --make-data")
    datasets = ",".join(f"{{name:{kind},path:{kind},modality:{kind}}}" for kind in there)
    shares = ",".join(f"{kind}:{there.get(kind, 0.0)}" for kind in mixture)
    return [*root, f"data.datasets=[{datasets}]", f"data.mixture={{{shares}}}"]


def _check(options: Options) -> None:
    known: Sequence[tuple[str, Sequence[str], Sequence[str]]] = (
        ("--stages", options.stages, list(STAGES)),
        ("--precision", options.precisions, list(PRECISIONS)),
        ("--optimizer", [options.optimizer], list(OPTIMIZERS)),
        ("--recompute", [options.recompute], list(RECOMPUTE)),
    )
    for option, values, allowed in known:
        for value in values:
            if value not in allowed:
                raise InputError(f"{option} has {value!r}; use {', '.join(allowed)}")
    if options.data is not None and not options.data.is_dir():
        raise InputError(f"--data is {str(options.data)!r}, no folder; use synthetic, or a folder of prepared shards")
    if options.data is not None and 0 in options.frames:
        raise InputError("--frames has 0 with --data: shards of videos do not fit packs without frames; leave 0 out")
    for option, sizes, least in (("--rows", options.rows, 8), ("--frames", options.frames, 0)):
        for size in sizes:
            if size < least:
                raise InputError(f"{option} has {size}; it takes numbers of at least {least}")
