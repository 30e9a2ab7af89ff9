"""What a check of the ranks found, and as plain JSON. Imports no torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from moss_train.verify.layouts.findings import BF16_TOLERANCES, TOLERANCES


def bounds_of(dtype: str) -> dict[str, float]:
    """Largest relative differences of loss and gradient norm where a layout goes on with what another saved."""
    source = BF16_TOLERANCES if dtype == "bf16" else TOLERANCES
    return {name: source[name] for name in ("loss", "norm")}


@dataclass
class CaseResult:
    """One check in one layout."""

    check: str
    """resume | reshard | copies | agreement | skip | rewind | overlap | failed save | kernels | golden"""
    layout: str
    """As `tp2.sp`; `dp2 > tp2.sp` where one continues another."""
    ranks: int
    modules: str = ""
    dtype: str = ""
    made_of: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    """Numbers by name: relative differences, counts of tensors."""
    reasons: list[str] = field(default_factory=list)
    """Why it fails; empty if it passes."""
    skipped: str = ""
    """Why it was not run; empty if it was."""
    seconds: float = 0.0

    @property
    def verdict(self) -> str:
        return "FAILS" if self.reasons else "skipped" if self.skipped else "ok"

    def expect(self, good: bool, reason: str) -> None:
        """Note a reason unless something holds."""
        if not good:
            self.reasons.append(reason)

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)
