"""The `logging` group: what is shown and recorded while a run goes on."""

from __future__ import annotations

from dataclasses import dataclass, field

from model.errors import InputError
from moss_train.config.checks import at_least, one_of


@dataclass(kw_only=True)
class LoggingConfig:
    progress: bool = True
    """A bar on a terminal, a line now and then elsewhere."""
    report: bool = True
    """Write report.html into the run folder at the end, also at an end with an error."""
    gradient_norms_every: int = 10
    """Steps between gradient norms by module; 0 leaves them out."""
    memory_every: int = 10
    """Steps between looks at the memory of all ranks; 0 leaves them out."""
    wandb: str = "disabled"
    """disabled | offline | online"""
    wandb_project: str = "moss-train"
    wandb_entity: str | None = None
    """User or team; None takes the default of the account."""
    wandb_name: str | None = None
    """Display name; None takes the stage and the run folder."""
    wandb_group: str | None = None
    """Runs of one group stand together, as the stages of one model may."""
    wandb_tags: list[str] = field(default_factory=list)
    wandb_notes: str | None = None
    wandb_start_seconds: float = 60.0
    """How long an online run tries to reach the server before it is recorded offline; training does not wait for it."""
    wandb_finish_seconds: float = 60.0
    """How long the end of a run waits until everything is sent."""

    def __post_init__(self) -> None:
        one_of("logging.wandb", self.wandb, ("disabled", "offline", "online"))
        at_least("logging.gradient_norms_every", self.gradient_norms_every, 0)
        at_least("logging.memory_every", self.memory_every, 0)
        for name in ("wandb_start_seconds", "wandb_finish_seconds"):
            if not getattr(self, name) > 0:
                raise InputError(f"logging.{name} is {getattr(self, name)}; it must be above 0")
