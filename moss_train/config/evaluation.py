"""The `evaluation` group: what is evaluated while a run goes on beside the held-out loss, and which checkpoint is the best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from model.errors import InputError
from moss_train.config.checks import at_least, finite_seconds, one_of

if TYPE_CHECKING:
    from moss_train.config.schema import RunConfig

DEVICES = ("auto", "cpu", "cuda")
MODES = ("auto", "min", "max")


@dataclass(kw_only=True)
class EvaluationConfig:
    streaming_every: int = 0
    """Steps between small streaming evaluations, which also follow the last step; 0 makes none."""
    streaming_scenarios: str | None = None
    """JSON-lines file of scenarios as `moss eval` takes; their videos are named relative to it."""
    streaming_max: int = 32
    """Only the first so many scenarios of the file."""
    streaming_together: int = 16
    """Scenarios that one pass of the model serves."""
    streaming_tokens_per_frame: int = 16
    """Tokens that the model can say between two frames."""
    streaming_answer_tokens: int = 32
    """An answer to a question is cut there."""
    streaming_device: str = "auto"
    """auto | cpu | cuda: where the model of the evaluation lives; auto takes the rank's own device where the model fits beside
    the training, else the CPU."""
    streaming_ranks: int = 1
    """Ranks that share the scenarios; each of them holds a whole model while they run."""
    streaming_seconds: float = 3600.0
    """Longest evaluation: how long the other ranks wait."""
    best: str | None = None
    """Name in the records of evaluations by which the file `best` of the run folder names a checkpoint: eval_loss,
    eval_streaming_speak_f1, … ; None keeps no such file."""
    best_mode: str = "auto"
    """auto | min | max: whether small or large is good; auto says min for losses and false speech, else max."""

    def __post_init__(self) -> None:
        at_least("evaluation.streaming_every", self.streaming_every, 0)
        for name in ("max", "together", "tokens_per_frame", "answer_tokens", "ranks"):
            at_least(f"evaluation.streaming_{name}", getattr(self, f"streaming_{name}"), 1)
        finite_seconds("evaluation.streaming_seconds", self.streaming_seconds)
        one_of("evaluation.streaming_device", self.streaming_device, DEVICES)
        one_of("evaluation.best_mode", self.best_mode, MODES)
        if self.streaming_every and self.streaming_scenarios is None:
            raise InputError(
                f"evaluation.streaming_every is {self.streaming_every} without evaluation.streaming_scenarios; name a JSON-lines "
                "file of scenarios"
            )
        if self.best is not None and not self.best.startswith("eval_"):
            raise InputError(f"evaluation.best is {self.best!r}; name a figure of an evaluation, such as eval_loss")
        if self.best is not None and self.best.startswith("eval_streaming_") and not self.streaming_every:
            raise InputError(f"evaluation.best is {self.best} with evaluation.streaming_every 0; set it, or choose eval_loss")

    @property
    def best_is_small(self) -> bool:
        """Whether a smaller value of `best` is a better one."""
        if self.best_mode != "auto":
            return self.best_mode == "min"
        return self.best is not None and any(word in self.best for word in ("loss", "false_per_minute"))


def check_evaluation(config: RunConfig) -> None:
    """Refuse evaluations that the rest of a run does not allow, or that it waits for in vain.

    Raises:
        InputError: naming both fields.
    """
    values = config.evaluation
    if values.streaming_every and config.stage.objective != "next_token":
        raise InputError(
            f"evaluation.streaming_every is {values.streaming_every} with stage.objective {config.stage.objective}, whose "
            "decoder says nothing; set it to 0"
        )
    if values.streaming_every and config.engine == "deepspeed" and config.deepspeed.zero_stage == 3:
        raise InputError(
            f"evaluation.streaming_every is {values.streaming_every} with deepspeed.zero_stage 3, under which no rank holds "
            "whole weights; use zero_stage 2 or 1, or set it to 0"
        )
    if values.best is None or values.best.startswith("eval_streaming_"):
        return
    if not config.train.eval_batches:
        raise InputError(f"evaluation.best is {values.best} with train.eval_batches 0, which evaluates nothing; set it")
    if not config.data.validation:
        raise InputError(f"evaluation.best is {values.best} without data.validation, so nothing is evaluated; name held-out sets")
