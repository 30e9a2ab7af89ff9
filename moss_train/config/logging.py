"""The `logging` group: what is shown and recorded while a run goes on."""

from __future__ import annotations

from dataclasses import dataclass

from moss_train.config.checks import one_of


@dataclass(kw_only=True)
class LoggingConfig:
    progress: bool = True
    wandb: str = "disabled"
    """disabled | offline | online"""
    wandb_project: str = "moss-train"

    def __post_init__(self) -> None:
        one_of("logging.wandb", self.wandb, ("disabled", "offline", "online"))
