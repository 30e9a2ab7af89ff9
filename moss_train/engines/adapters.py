"""Low-rank adapters of a run: from its config to the live model, and what a checkpoint must agree with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from model.errors import InputError
from model.freeze import PRESETS
from model.lora.attach import attach_adapters
from model.lora.spec import LoraSpec
from moss_train.checkpoint.description import CheckpointDescription
from moss_train.config.schema import LoraConfig, StageConfig
from moss_train.engines.models import Models


def lora_spec(lora: LoraConfig, stage: StageConfig) -> LoraSpec | None:
    """The adapters that a run asks for; None where it asks for none.

    Raises:
        InputError: adapters in the dense warm start, or a projector that shall train and is frozen.
    """
    if not lora.rank:
        return None
    if stage.objective == "dense_labels":
        raise InputError(f"lora.rank is {lora.rank} with stage.objective dense_labels, which trains the tower itself; use 0")
    trained = PRESETS[stage.trainable]
    if "projector" in lora.train_also and "projector" not in trained:
        raise InputError(
            f"lora.train_also names projector, which stage.trainable {stage.trainable} leaves frozen; leave it out or choose "
            "another stage.trainable"
        )
    return LoraSpec(
        rank=lora.rank, alpha=lora.alpha, targets=tuple(lora.targets), parts=tuple(sorted(trained - {"projector"})),
        train_also=tuple(lora.train_also),
    )  # fmt: skip


def adapt(models: Models, lora: LoraConfig, stage: StageConfig, seed: int) -> None:
    """Adds fresh adapters, if the run wants any, to a model whose weights are in place; before `freeze`.

    Raises:
        InputError: adapters that do not fit the model or the stage.
    """
    spec = lora_spec(lora, stage)
    if spec is not None:
        attach_adapters(models.chunks, models.vision, spec, seed)


def check_adapters(description: CheckpointDescription, ours: LoraSpec | None, checkpoint: Path) -> None:
    """Refuses to continue a run with other adapters than it has.

    Raises:
        InputError: naming the first value that differs.
    """
    theirs = None if description.lora is None else LoraSpec.from_dict(description.lora)
    if ours is None or theirs is None:
        if ours is not theirs:
            has, wants = ("no adapters", "some") if theirs is None else (f"adapters of rank {theirs.rank}", "none")
            raise InputError(
                f"{checkpoint} holds {has} and lora.rank asks for {wants}; set lora.rank={theirs.rank if theirs else 0}, or "
                "choose another run_dir and give this one as train.init_from"
            )
        return
    for field in dataclasses.fields(LoraSpec):
        mine, other = getattr(ours, field.name), getattr(theirs, field.name)
        if mine != other:
            name = "stage.trainable (the adapted parts)" if field.name == "parts" else f"lora.{field.name}"
            shown = [list(value) if isinstance(value, tuple) else value for value in (mine, other)]
            raise InputError(
                f"{checkpoint} has adapters with {name} {shown[1]} and this run asks for {shown[0]}; use the same value, or "
                "choose another run_dir and give this one as train.init_from"
            )
