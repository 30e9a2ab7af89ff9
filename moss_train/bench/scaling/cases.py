"""What `moss bench scaling` measures: numbers of GPUs, layouts, packs of every replica, and who encodes their frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from model.errors import InputError
from moss_train.bench.subject import OPTIMIZERS, PRECISIONS, Cut, overrides_of
from moss_train.config.compose import compose
from moss_train.config.schema import RunConfig
from moss_train.planning.run_plan import check_layout
from moss_train.verify.layouts.names import parse_layout

LAYOUTS: dict[int, tuple[str, ...]] = {
    1: ("one",),
    2: ("dp2", "tp2.sp", "pp2", "cp2"),
    4: ("dp4", "tp2.sp.dp2", "tp4.sp", "pp2.dp2", "tp2.sp.pp2", "cp2.dp2"),
    8: ("dp8", "tp2.sp.dp4", "tp4.sp.dp2", "pp2.dp4", "tp2.sp.pp2.dp2", "tp8.sp", "cp2.dp4"),
}
"""By number of GPUs, most telling first; the first is data parallel alone."""
KINDS = ("pt2", "sft", "own", "layouts", "strong")
"""pt2: equal packs; sft: packs of uneven frames, dealt over all ranks; own: the same, each replica encodes its own; layouts:
the batch of pt2 in the other layouts; strong: that batch on fewer GPUs."""
UNEVEN = 0.75
"""Packs have by turns so much more and so much less than the mean number of frames: 112 and 16 of 64."""


@dataclass(frozen=True)
class Options:
    """What is asked for."""

    gpus: tuple[int, ...]
    kinds: tuple[str, ...] = KINDS
    layouts: tuple[str, ...] = ()
    """Names; empty takes `LAYOUTS`."""
    model: str = "11b"
    cut: Cut = field(default_factory=Cut)
    precision: str = "bf16"
    optimizer: str = "compact"
    rows: int = 4096
    frames: int = 64
    steps: int = 3
    warmup: int = 2
    seed: int = 0
    profile: bool = True
    limit_seconds: float | None = None
    case_seconds: float = 90.0
    """Without a sign of life for so long, a case counts as hung, and its ranks are ended."""
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """One measurement on so many ranks."""

    kind: str
    stage: str
    layout: str
    ranks: int
    frames: tuple[tuple[int, ...], ...]
    """Of each micro-batch of each replica."""
    rows: int
    deal: str
    """world: frames are dealt over all ranks; own: every replica's stay on its ranks."""
    group: tuple[str, ...]
    """Overrides of what has to be built anew for it: cases of equal groups share a model."""
    sizes: tuple[str, ...] = ()
    """Further overrides."""

    @property
    def name(self) -> str:
        packs = sum(map(len, self.frames))
        counts = sorted({count for replica in self.frames for count in replica}, reverse=True)
        told = f"{self.stage} {self.layout}, {packs} x {self.rows:,} rows, {' or '.join(map(str, counts))} frames"
        return told + ", own frames" * (self.deal == "own")

    @property
    def config(self) -> RunConfig:
        return compose([*self.group, *self.sizes])

    def to_dict(self) -> dict[str, Any]:
        """JSON values, which `of` reads."""
        return asdict(self)

    @classmethod
    def of(cls, values: dict[str, Any]) -> Case:
        """From `to_dict`, through JSON or not."""
        tuples = {name: tuple(values[name]) for name in ("group", "sizes")}
        return cls(**{**values, **tuples, "frames": tuple(map(tuple, values["frames"]))})


def make_cases(options: Options) -> tuple[list[Case], list[dict[str, str]]]:
    """All cases by number of GPUs, most telling first, and what is left out with the reason.

    Raises:
        InputError: a name or size that nothing can be measured with.
    """
    _check(options)
    most = max(options.gpus)
    found: list[Case] = []
    left_out: list[dict[str, str]] = []
    for ranks in sorted(options.gpus):
        names = options.layouts or LAYOUTS.get(ranks, (f"dp{ranks}",))
        layouts = [name for name in names if parse_layout(name).ranks == ranks]
        for case in _of_ranks(options, ranks, layouts, most):
            try:
                check_layout(case.config, ranks)
            except InputError as error:
                left_out.append({"name": case.name, "reason": str(error)})
            else:
                if case not in found:
                    found.append(case)
    if not found and not left_out:
        raise InputError(f"--layouts {','.join(options.layouts)} has none for --gpus {','.join(map(str, options.gpus))}")
    return found, left_out


def _of_ranks(options: Options, ranks: int, layouts: Sequence[str], most: int) -> list[Case]:
    n, kinds = options.frames, options.kinds
    uneven = [round(n * (1 + UNEVEN)), n - (round(n * (1 + UNEVEN)) - n)]
    plain = next((name for name in layouts if parse_layout(name).data == ranks), None)
    cases: list[Case] = []
    if plain is not None:
        turns = [[uneven[index % 2]] for index in range(ranks)] if ranks > 1 else [[n]]
        if "pt2" in kinds or "strong" in kinds:
            cases.append(_case(options, "pt2", "pt2", plain, [[n]] * ranks))
        if "sft" in kinds or "own" in kinds:
            cases.append(_case(options, "sft", "sft_offline", plain, turns))
        if "own" in kinds and ranks > 1:
            cases.append(_case(options, "own", "sft_offline", plain, turns, deal="own"))
        if "strong" in kinds and ranks < most:
            cases.append(_case(options, "strong", "pt2", plain, [[n] * (most // ranks)] * ranks))
    if "layouts" in kinds:
        for name in layouts:
            data = parse_layout(name).data
            if data != ranks:
                cases.append(_case(options, "layouts", "pt2", name, [[n] * (ranks // data)] * data))
    # Cases that share a model behind each other, models in the order in which they are first wanted; long steps last.
    order = list(dict.fromkeys(case.group for case in cases))
    return sorted(cases, key=lambda case: (case.kind == "strong" and most > 2, order.index(case.group)))


def _case(
    options: Options, kind: str, stage: str, layout: str, frames: Sequence[Sequence[int]], *, deal: str = "world"
) -> Case:  # fmt: skip
    named = parse_layout(layout)
    sizes = named.sizes
    parallel = [f"parallel.{key}={getattr(sizes, key)}" for key in ("tensor", "pipeline", "virtual_pipeline", "context")]
    parallel += [f"parallel.sequence_parallel={str(sizes.sequence_parallel).lower()}", f"parallel.recompute={sizes.recompute}"]
    if sizes.stage_layers is not None:
        parallel.append(f"parallel.stage_layers=[{','.join(map(str, sizes.stage_layers))}]")
    group = overrides_of(
        stage, model=options.model, cut=options.cut, precision=options.precision, optimizer=options.optimizer,
        more=[*parallel, *options.overrides],
    )  # fmt: skip
    batch = [f"stage.sequence_length={options.rows}", f"stage.max_frames_per_pack={max(max(row) for row in frames)}"]
    batch.append(f"train.global_batch_size={sum(map(len, frames))}")
    return Case(
        kind, stage, layout, named.ranks, tuple(map(tuple, frames)), options.rows, deal, tuple(group), tuple(batch)
    )  # fmt: skip


def _check(options: Options) -> None:
    for option, given, allowed in (
        ("--cases", options.kinds, KINDS), ("--precision", (options.precision,), tuple(PRECISIONS)),
        ("--optimizer", (options.optimizer,), tuple(OPTIMIZERS)),
    ):  # fmt: skip
        for value in given:
            if value not in allowed:
                raise InputError(f"{option} has {value!r}; use {', '.join(allowed)}")
    if options.rows < 2 * round(options.frames * (1 + UNEVEN)):
        raise InputError(f"--rows is {options.rows}, which does not hold {options.frames} frames a pack; give more --rows")
    if options.frames < 4:
        raise InputError(f"--frames is {options.frames}; it must be at least 4")
