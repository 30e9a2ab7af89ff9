"""What `moss bench reference` measures, in the order in which it does: models, and on each the same samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from model.config import VideoMllamaConfig
from model.errors import InputError
from moss_train.bench.reference.published import PUBLISHED
from moss_train.bench.reference.way import OVERRIDES, ZERO_OVERRIDES
from moss_train.bench.subject import Cut, overrides_of
from moss_train.config.compose import compose
from moss_train.planning.workload import STAGES

SIDES = ("reference", "ours")
PRECISIONS = ("bf16", "fp8", "fp32")
STAGE = "pt2"
"""Whose config both sides have: everything trains."""
UPDATED_FRAMES = 64
"""Of the sample that is measured with updates, if it is among those asked for."""


@dataclass(frozen=True)
class Options:
    """What is asked for."""

    frames: tuple[int, ...] = (8, 64, 128, 256)
    rows: tuple[int, ...] = ()
    """Of the samples, frames included: one for each of `frames`; none takes those of the published figures."""
    precisions: tuple[str, ...] = ("bf16", "fp8")
    """Of our side; the reference's is bf16, or fp32 where nothing else is asked for."""
    sides: tuple[str, ...] = SIDES
    mixture: tuple[str, ...] = tuple(STAGES)
    mixture_samples: int | None = None
    """Of each stage; None takes what two packs of the stage hold."""
    deepspeed: bool = False
    model: str = "11b"
    cut: Cut = field(default_factory=lambda: Cut(10))
    steps: int = 5
    """Measured steps of a sample at most."""
    case_seconds: float = 6.0
    """Behind which no measured step begins, once there are two."""
    warmup: int = 1
    seed: int = 0
    limit_seconds: float | None = None
    overrides: tuple[str, ...] = ()
    """Of our side alone."""


@dataclass(frozen=True)
class Model:
    """Modules that cases share."""

    side: str
    """One of `SIDES`."""
    precision: str
    optimizer: str
    """none | zero2 | adamw | compact"""
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        words = {"none": "", "zero2": ", DeepSpeed ZeRO-2", "adamw": ", AdamW", "compact": ", compact AdamW"}
        return f"{self.side} {self.precision}{words[self.optimizer]}"


@dataclass(frozen=True)
class Case:
    """One measurement of a model: a sample, or a stage's mixture."""

    kind: str
    """sample | mixture"""
    frames: int = 0
    rows: int = 0
    stage: str = ""

    @property
    def name(self) -> str:
        return f"mixture of {self.stage}" if self.kind == "mixture" else f"{self.frames} frames, {self.rows:,} rows"


def make_cases(options: Options) -> list[tuple[Model, list[Case]]]:
    """Models behind each other, with what is measured on each.

    Raises:
        InputError: a name or size that nothing can be measured with.
    """
    _check(options)
    rows = options.rows or tuple(PUBLISHED[frames].rows for frames in options.frames)
    samples = [Case("sample", frames, n) for frames, n in zip(options.frames, rows, strict=True)]
    cases = [*samples, *(Case("mixture", stage=stage) for stage in options.mixture)]
    models = [(model, cases) for model in _models(options)]
    if options.deepspeed:
        with_updates = [case for case in samples if case.frames == UPDATED_FRAMES] or samples[:1]
        models += [(model, with_updates) for model in _updating(options)]
    return models


def _models(options: Options) -> list[Model]:
    baseline = "fp32" if options.precisions == ("fp32",) else "bf16"
    models = []
    if "reference" in options.sides:
        models.append(_model(options, "reference", baseline, "none", OVERRIDES))
    if "ours" in options.sides:
        models += [_model(options, "ours", precision, "none", _own(options, precision)) for precision in options.precisions]
    return models


def _updating(options: Options) -> list[Model]:
    """With an optimizer in fp32 states on both sides, and ours with compact states."""
    dtype = "fp32" if options.precisions == ("fp32",) else "bf16"
    return [
        _model(options, "reference", dtype, "zero2", ZERO_OVERRIDES),
        _model(options, "ours", dtype, "adamw", _own(options, dtype)),
        *([_model(options, "ours", dtype, "compact", _own(options, dtype))] if dtype == "bf16" else []),
    ]


def _own(options: Options, precision: str) -> tuple[str, ...]:
    """Of our side: gradients in bf16 as on the other; scales of the decoder's fp8 from earlier products, which is faster."""
    scales = ("precision.fp8=delayed",) if precision == "fp8" else ()
    return ("precision.grad_reduce_fp32=false", *scales, *options.overrides)


def _model(options: Options, side: str, precision: str, optimizer: str, more: Sequence[str]) -> Model:
    states = {"none": "none", "zero2": "adamw"}.get(optimizer, optimizer)
    made = overrides_of(
        STAGE, model=options.model, cut=options.cut, precision=precision, optimizer=states,
        more=[*more, f"train.seed={options.seed}"],
    )  # fmt: skip
    return Model(side, precision, optimizer, tuple(made))


def _check(options: Options) -> None:
    known: Sequence[tuple[str, Sequence[str], Sequence[str]]] = (
        ("--precision", options.precisions, PRECISIONS),
        ("--sides", options.sides, SIDES),
        ("--mixture", options.mixture, list(STAGES)),
    )
    for option, values, allowed in known:
        for value in values:
            if value not in allowed:
                raise InputError(f"{option} has {value!r}; use {', '.join(allowed)}")
    if not options.rows:
        for frames in options.frames:
            if frames not in PUBLISHED:
                raise InputError(
                    f"--frames has {frames}, of which nothing is published that --rows could be taken from; give --rows, or use "
                    f"{', '.join(map(str, PUBLISHED))}"
                )
    elif len(options.rows) != len(options.frames):
        raise InputError(f"--rows has {len(options.rows)} numbers for {len(options.frames)} of --frames; give one for each")
    for frames, rows in zip(options.frames, options.rows, strict=False):
        if rows < frames + 2:
            raise InputError(f"--rows has {rows}, which does not hold {frames} frames and their text; use at least {frames + 2}")
        if "fp8" in options.precisions and rows % 16:
            raise InputError(f"--rows has {rows}, and fp8 takes multiples of 16; use {-(-rows // 16) * 16}")
    if options.deepspeed and not options.frames:
        raise InputError("--deepspeed measures one of the samples, but --frames is none; name one")


def model_of(options: Options) -> VideoMllamaConfig:
    """The dimensions of every model."""
    return VideoMllamaConfig.from_dict(compose(overrides_of(STAGE, model=options.model, cut=options.cut)).model)
