"""What a step is counted in: a layout and the settings that change what is sent. Imports no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moss_train.config.checks import one_of
from moss_train.config.schema import ParallelConfig
from moss_train.verify.layouts.names import PRESETS, parse_layout

PACKS = 4
"""Micro-batches of a step, as `moss verify layouts` has them."""
OPTIMIZERS = ("sharded", "whole", "muon")
"""`optimizer.distributed` true or false, and Muon."""


@dataclass(frozen=True)
class Case:
    """One step.

    Raises:
        InputError: a layout, preset, optimizer or dtype that is none.
    """

    layout: str
    """As in `moss verify layouts`: tp2.sp.pp2."""
    preset: str = "all"
    """What trains: `stage.trainable`, or `dense_labels` for the patch classifier."""
    optimizer: str = "sharded"
    dtype: str = "fp32"
    grad_fp32: bool = True
    """`precision.grad_reduce_fp32`."""
    frames: bool = True
    """False: packs of text alone."""
    lora: str = ""
    """Targets of adapters, and what else trains: `attention_qkv,mlp_fc1,gates`; none."""
    window_gib: float = 4.0
    """`vision.window_gib`; little makes several windows of a step."""

    def __post_init__(self) -> None:
        parse_layout(self.layout)
        one_of("--preset", self.preset, PRESETS)
        one_of("--optimizer", self.optimizer, OPTIMIZERS)
        one_of("--dtype", self.dtype, ("fp32", "bf16"))

    @property
    def sizes(self) -> ParallelConfig:
        """Sizes of the groups."""
        return parse_layout(self.layout).sizes

    @property
    def ranks(self) -> int:
        """Of the world."""
        return parse_layout(self.layout).ranks

    @property
    def words(self) -> str:
        """The layout, and what differs from the usual."""
        usual, own = dataclasses.asdict(Case(self.layout)), dataclasses.asdict(self)
        return " ".join([self.layout, *(f"{name}={value}" for name, value in own.items() if value != usual[name])])

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Case:
        """From `dataclasses.asdict`."""
        return cls(**content)
