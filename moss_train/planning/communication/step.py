"""All calls of one rank in one training step."""

from __future__ import annotations

from model.errors import InputError
from moss_train.config.schema import RunConfig
from moss_train.planning.communication.calls import Traffic
from moss_train.planning.communication.control import add_control
from moss_train.planning.communication.decoder import add_decoder
from moss_train.planning.communication.frames import add_frames
from moss_train.planning.communication.gradients import add_gradients
from moss_train.planning.communication.pipeline import add_pipeline
from moss_train.planning.communication.rank import Rank
from moss_train.planning.communication.shape import StepShape


def check_counted(config: RunConfig) -> None:
    """Refuses what is not counted.

    Raises:
        InputError: another engine than megatron.
    """
    if config.engine != "megatron":
        raise InputError(f"engine is {config.engine}, whose communication is not counted; use engine=megatron")


def step_traffic(config: RunConfig, ranks: int, shape: StepShape, rank: int = 0) -> Traffic:
    """What a rank sends and receives in a step of the run.

    Args:
        config: the run.
        ranks: of the world.
        shape: what the step works on.
        rank: of the world.

    Raises:
        InputError: a layout that does not fit the ranks, or a run whose communication is not counted.
    """
    check_counted(config)
    traffic, one = Traffic(), Rank.of(config, ranks, shape, rank)
    for add in (add_decoder, add_pipeline, add_gradients, add_frames, add_control):
        add(one, traffic)
    return traffic
