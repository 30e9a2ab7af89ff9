"""Which run is measured: depth of the decoder, given or the greatest that the plan says fits; and what the plan says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from model.config import VideoMllamaConfig
from model.errors import InputError
from moss_train.bench.packs import stage_samples
from moss_train.bench.saving import checkpoint_bytes
from moss_train.bench.subject import Cut, overrides_of
from moss_train.bench.train.cases import Case, Options
from moss_train.config.compose import compose
from moss_train.planning.memory import FREE, Memory, PackLoad, plan_memory

ALL, AUTO = "all", "auto"


@dataclass(frozen=True)
class FullOptions:
    """What is asked for."""

    stage: str = "pt2"
    model: str = "11b"
    precision: str = "bf16"
    layers: int | str = ALL
    """Decoder layers, all, or auto: as many as fit."""
    tower_layers: int | None = None
    rows: int = 4096
    frames: int = 64
    micro_batches: int = 1
    recompute: str = "full"
    keep_gib: float = 12.0
    """`vision.keep_activations_gib`: the inputs of the tower's layers of 64 frames, and with everything else below 130 GiB."""
    steps: int = 5
    warmup: int = 2
    seed: int = 0
    overrides: Sequence[str] = ()

    def train(self) -> Options:
        """The same for the steps that are timed."""
        return Options(
            stages=(self.stage,), frames=(self.frames,), rows=(self.rows,), precisions=(self.precision,),
            model=self.model, recompute=self.recompute, keep_gib=self.keep_gib, optimizer="compact",
            micro_batches=self.micro_batches, steps=self.steps, warmup=self.warmup, seed=self.seed,
            overrides=tuple(self.overrides),
        )  # fmt: skip


def whole_model(options: FullOptions) -> VideoMllamaConfig:
    """The model before it is cut."""
    return VideoMllamaConfig.from_dict(compose(overrides_of(options.stage, model=options.model)).model)


def case_of(options: FullOptions, layers: int | None) -> Case:
    """The case at a depth.

    Args:
        layers: of the decoder; None takes all.

    Raises:
        InputError: a depth or name that there is not.
    """
    group = overrides_of(
        options.stage, model=options.model, cut=Cut(layers, options.tower_layers, "--layers"), precision=options.precision,
        optimizer="compact", recompute=options.recompute, keep_gib=options.keep_gib, more=options.overrides,
    )  # fmt: skip
    return Case(
        options.stage, options.precision, options.frames, options.rows, "compact", options.micro_batches, tuple(group)
    )  # fmt: skip


def load_of(case: Case, seed: int) -> PackLoad:
    """What the case's micro-batches are."""
    packs = [
        [(sample.rows, sample.frames) for sample in stage_samples(case.stage, case.rows, case.frames, seed + index)]
        for index in range(case.micro_batches)
    ]
    return PackLoad.of_samples(packs)


def plan_of(case: Case, seed: int) -> Memory:
    """The memory that a plan gives the case."""
    return plan_memory(case.config, 1, load_of(case, seed))


def choose_case(options: FullOptions, card: int) -> Case:
    """The case that is to be measured.

    Args:
        card: bytes of the device.

    Raises:
        InputError: no such depth, or with auto none that fits.
    """
    if options.layers != AUTO:
        return case_of(options, None if options.layers == ALL else int(options.layers))
    text = whole_model(options).text
    least, most = min(text.cross_attention_layers) + 1, text.num_hidden_layers
    if not _fits(options, least, card):
        need = plan_of(case_of(options, least), options.seed).worst.total / (1 - FREE)
        raise InputError(
            f"--layers auto: {least} layers of {options.model}, the fewest, need {need / 2**30:.1f} GiB by the plan and the "
            f"device has {card / 2**30:.1f}; give fewer --tower-layers, --frames or --rows"
        )
    while least < most:  # memory rises with depth
        middle = (least + most + 1) // 2
        least, most = (middle, most) if _fits(options, middle, card) else (least, middle - 1)
    return case_of(options, least)


def _fits(options: FullOptions, layers: int, card: int) -> bool:
    return plan_of(case_of(options, layers), options.seed).fits(card)


def saved_bytes(case: Case) -> int:
    """Bytes of a checkpoint: weights and the optimizer's states."""
    return checkpoint_bytes(case.config)
