"""Judge: marks for a whole dialogue beside the whole video."""

from __future__ import annotations

from data_pipeline.generator.models.fields import Fields
from data_pipeline.generator.models.schemas import MARKS
from data_pipeline.generator.plan import Judgement

STAGE = "judge"


def read_judgement(answer: Fields) -> Judgement:
    """The marks of an answer.

    Raises:
        Unfit: a mark is missing or does not lie within 0..4.
    """
    faithful, timely, complete, redundant = (answer.number(mark, 0, 4) for mark in MARKS)
    return Judgement(
        faithful=faithful,
        timely=timely,
        complete=complete,
        redundant=redundant,
        leak=answer.flag("leak"),
        reason=answer.text("reason", empty=True),
    )
