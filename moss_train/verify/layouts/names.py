"""Names of parallel layouts, as `tp2.sp.pp2`, which of them are checked, and the trials in each. Imports no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from model.errors import InputError
from moss_train.config.schema import TRAINABLE, ParallelConfig

DENSE = "dense_labels"
"""Stands among the presets for the patch classifier's objective, which trains the tower without the decoder."""
PRESETS = (*TRAINABLE, DENSE)
UPDATES = 3
"""Of each trial."""

LAYOUTS = (
    "rc",
    *("tp2", "tp2.sp", "tp2.sp.rc", "pp2", "pp2.l1-5", "pp2.l5-1", "pp2.vpp2", "pp2.vpp3.rc", "dp2", "cp2"),
    *("tp3", "tp3.sp", "pp3", "pp3.l1-2-3"),
    *("tp4", "tp4.sp", "pp4", "pp4.l1-1-1-3", "dp4", "tp2.pp2", "tp2.sp.pp2.vpp2", "tp2.sp.dp2", "pp2.vpp3.dp2"),
    *("tp2.cp2", "tp2.sp.cp2", "pp2.cp2", "pp2.vpp2.cp2", "cp2.dp2"),
)
"""Up to four ranks."""
EIGHT_RANKS = (
    *("tp2.sp.pp2.dp2", "tp4.sp.pp2.l2-4", "tp2.pp4", "pp4.dp2", "tp2.sp.pp2.vpp3.dp2"),
    *("tp2.sp.pp2.cp2", "tp2.cp2.dp2"),
)

OF_GPUS = {
    1: ("rc",),
    2: ("tp2.sp", "pp2.vpp2", "cp2", "dp2", "tp2", "pp2", "tp2.sp.rc", "cp2.rc"),
    4: ("tp2.sp.pp2.vpp2", "tp2.sp.cp2", "pp2.cp2", "tp2.sp.dp2", "tp4.sp", "cp2.dp2", "tp2.pp2", "pp2.vpp3.dp2", "dp4", "pp4"),
    8: ("tp2.sp.pp2.dp2", "tp4.sp.pp2.l2-4", "tp2.sp.pp2.cp2", "tp2.cp2.dp2", "tp2.sp.pp2.vpp3.dp2", "pp4.dp2", "tp2.pp4"),
}
"""Layouts that take a whole machine of so many GPUs, most telling first: where time ends, what is left out is the rest."""

MODULES = ("torch", "transformer_engine", "auto", "both")
"""What the decoder is made of; auto: all that a run in bf16 takes on the machine by itself, tower and attention too; both: torch
in fp32 and auto in bf16."""

_SIZES = {"tp": "tensor", "pp": "pipeline", "vpp": "virtual_pipeline", "cp": "context", "dp": "data"}
_PART = re.compile(r"(?P<name>tp|pp|vpp|cp|dp)(?P<size>[1-9]\d*)|l(?P<layers>\d+(-\d+)*)|(?P<flag>sp|rc)")


@dataclass(frozen=True)
class NamedLayout:
    """A layout that fixes the number of its ranks."""

    name: str
    sizes: ParallelConfig
    data: int
    presets: tuple[str, ...] = ()
    """The only presets to try in it; empty: all that are chosen."""

    @property
    def text(self) -> str:
        """What `parse_layout` reads."""
        return f"{self.name}:{','.join(self.presets)}" if self.presets else self.name

    @property
    def ranks(self) -> int:
        return math.prod((self.sizes.tensor, self.sizes.pipeline, self.sizes.context, self.data))


def check_preset(name: str) -> str:
    """The name of a preset.

    Raises:
        InputError: it is none.
    """
    if name not in PRESETS:
        raise InputError(f"preset {name!r} is unknown; use one of {', '.join(PRESETS)}")
    return name


def parse_layout(text: str) -> NamedLayout:
    """Reads a layout's name: parts joined by dots, and behind a colon its only presets, as in `tp2.sp:all,text_only`.

    `tpN` tensor, `ppN` pipeline, `vppN` virtual pipeline, `cpN` context and `dpN` data parallel, `sp` sequence
    parallel, `rc` full recomputation, `l1-2-3` layers of each pipeline stage; `one` is a single rank.

    Raises:
        InputError: a part that is none of these or stands twice, or an unknown preset.
    """
    name, colon, listed = text.partition(":")
    presets = tuple(check_preset(preset) for preset in listed.split(",")) if colon else ()
    sizes: dict[str, int] = {}
    flags: set[str] = set()
    layers: list[int] | None = None
    parts = [] if name == "one" else name.split(".")
    for part in parts:
        found = _PART.fullmatch(part)
        if found is None or parts.count(part) > 1:
            raise InputError(
                f"--layout {name}: {part!r} is no part of a layout, or stands twice; join tpN, sp, ppN, vppN, cpN, dpN, rc and "
                "l1-2-3 (layers of each stage) with dots, as in tp2.sp.pp2"
            )
        if found["name"]:
            sizes[_SIZES[found["name"]]] = int(found["size"])
        elif found["layers"]:
            layers = [int(count) for count in found["layers"].split("-")]
        else:
            flags.add(part)
    data = sizes.pop("data", 1)
    config = ParallelConfig(
        tensor=sizes.get("tensor", 1),
        pipeline=sizes.get("pipeline", 1),
        virtual_pipeline=sizes.get("virtual_pipeline", 1),
        context=sizes.get("context", 1),
        sequence_parallel="sp" in flags,
        recompute="full" if "rc" in flags else "none",
        stage_layers=layers,
    )
    return NamedLayout(name, config, data, presets)


def choose_layouts(names: Sequence[str], most_ranks: int) -> list[NamedLayout]:
    """The named layouts, or the checked ones of at most so many ranks; by number of ranks, so that each number starts once.

    Raises:
        InputError: a name that is none.
    """
    chosen = [parse_layout(name) for name in (names or (*LAYOUTS, *EIGHT_RANKS))]
    if not names:
        chosen = [layout for layout in chosen if layout.ranks <= most_ranks]
    return sorted(chosen, key=lambda layout: layout.ranks)


def layouts_of_gpus(gpus: int) -> list[NamedLayout]:
    """Layouts that take so many GPUs.

    Raises:
        InputError: a number of which none are listed.
    """
    if gpus not in OF_GPUS:
        raise InputError(f"--gpus is {gpus}; use one of {', '.join(map(str, OF_GPUS))}, or name layouts with --layout")
    return [parse_layout(name) for name in OF_GPUS[gpus]]


@dataclass(frozen=True)
class Trial:
    """What runs in a layout."""

    preset: str
    """A freeze preset, or `dense_labels`."""
    optimizer: str
    """sgd | adamw"""
    dtype: str = "fp32"
    modules: str = "torch"
    """torch | transformer_engine | auto"""

    @property
    def key(self) -> str:
        return f"{self.preset}/{self.optimizer}/{self.dtype}/{self.modules}"

    @property
    def keeps(self) -> int:
        """Frames whose autograd state is kept: one of the SGD trials encodes frames a second time."""
        return 1 if self.preset == "all" and self.optimizer == "sgd" else -1


def trials_of(layout: NamedLayout, presets: Sequence[str], bf16: bool, modules: str = "torch") -> list[Trial]:
    """The trials of a layout: both optimizers for each preset, and one in bf16, of the preset `all` if it is among them.

    Transformer Engine's attention has no fp32: with its modules there is one trial for each preset, in bf16. With the modules of
    a run there is one for each optimizer.
    """
    chosen = layout.presets or tuple(presets)
    if modules == "both":
        return [*trials_of(layout, presets, bf16), *trials_of(layout, presets, bf16, "auto")]
    if modules == "auto":
        return [Trial(preset, optimizer, "bf16", modules) for preset in chosen for optimizer in ("sgd", "adamw")]
    if modules == "transformer_engine":
        return [Trial(preset, "sgd", "bf16", modules) for preset in chosen]
    trials = [Trial(preset, optimizer) for preset in chosen for optimizer in ("sgd", "adamw")]
    if bf16:
        trials.append(Trial("all" if "all" in chosen else chosen[0], "sgd", "bf16"))
    return trials


def trials_of_all(layouts: Sequence[NamedLayout], presets: Sequence[str], bf16: bool, modules: str = "torch") -> list[Trial]:
    """Every trial that some layout needs, once."""
    return list(dict.fromkeys(trial for layout in layouts for trial in trials_of(layout, presets, bf16, modules)))
