"""The table of layouts: one row each, with the largest differences over all presets. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moss_train.verify.layouts.findings import BF16_REFERENCE, TOLERANCES, Difference, TrialResult

HEADER = (
    "layout",
    "ranks",
    "loss",
    "gradients",
    "norm",
    "3 SGD",
    "3 AdamW",
    "bf16 loss",
    "bf16 gradients",
    "largest gradient difference at",
)
_NONE = Difference(0.0, "")


@dataclass
class Row:
    """Largest relative differences of a layout."""

    layout: str
    ranks: int
    loss: Difference
    gradients: Difference
    norm: Difference
    sgd: Difference
    adamw: Difference
    bf16_loss: float | None
    bf16_gradients: float | None
    reasons: list[str]
    seconds: float
    skipped: bool = False
    """Whether there was no time for any of its trials."""
    exact: bool = True
    """Whether fp32 was tried at all."""

    def cells(self) -> list[str]:
        """As text, one for each name of `HEADER`."""
        if self.skipped:
            return [self.layout, str(self.ranks), *"-" * (len(HEADER) - 2)]
        values = [self.loss, self.gradients, self.norm, self.sgd, self.adamw]
        numbers = [number.value if self.exact else None for number in values] + [self.bf16_loss, self.bf16_gradients]
        return [
            self.layout,
            str(self.ranks),
            *("-" if number is None else f"{number:.1e}" if number else "0" for number in numbers),
            self.gradients.where if self.gradients.value else "-",
        ]


def short(name: str) -> str:
    """A parameter's name without what all names share."""
    for long, brief in (("language_model.model.", ""), ("language_model.", ""), ("vision_model.", "vision.")):
        name = name.replace(long, brief)
    return name


def _worst(values: Sequence[Difference | None]) -> Difference:
    return max((value for value in values if value is not None), default=_NONE)


def row_of(results: Sequence[TrialResult]) -> Row:
    """The row of one layout's results."""
    exact = [r.findings for r in results if r.findings is not None and r.dtype == "fp32"]
    rounded = [r.findings for r in results if r.findings is not None and r.dtype == "bf16"]
    weights = {
        optimizer: _worst([r.findings.weights for r in results if r.findings and r.optimizer == optimizer and r.dtype == "fp32"])
        for optimizer in ("sgd", "adamw")
    }
    gradients = _worst([found.gradients for found in exact])
    return Row(
        layout=results[0].layout,
        ranks=results[0].ranks,
        loss=_worst([found.loss for found in exact]),
        gradients=Difference(gradients.value, short(gradients.where)),
        norm=_worst([found.norm for found in exact]),
        sgd=weights["sgd"],
        adamw=weights["adamw"],
        bf16_loss=max((found.loss.value for found in rounded), default=None),
        bf16_gradients=max((found.all_gradients or 0.0 for found in rounded), default=None),
        reasons=list(dict.fromkeys(_reason(r, reason) for r in results for reason in r.reasons)),
        seconds=sum(r.seconds for r in results),
        skipped=all(r.skipped for r in results),
        exact=bool(exact) or not rounded,
    )


def _reason(result: TrialResult, reason: str) -> str:
    return f"{result.preset} {result.optimizer} {result.dtype}: {short(reason)}" if result.findings else reason


def rows_of(results: Sequence[TrialResult]) -> list[Row]:
    """One row for each layout, in order of first appearance; bf16 on one rank is none."""
    names = dict.fromkeys(r.layout for r in results if r.layout != BF16_REFERENCE)
    return [row_of([r for r in results if r.layout == name]) for name in names]


def bf16_sentence(results: Sequence[TrialResult]) -> str:
    """How far bf16 on one rank is from fp32 there; empty where that was not measured."""
    found = [r.findings for r in results if r.layout == BF16_REFERENCE and r.findings is not None]
    if not found:
        return ""
    return (
        f"bf16 on one rank differs from fp32 there by {found[0].loss.value:.1e} in the loss and "
        f"{found[0].all_gradients or 0.0:.1e} in the gradients; bf16 in the table is against bf16 on one rank"
    )


def _tolerances() -> list[str]:
    """The row of the tolerances, under `HEADER`."""
    return ["tolerance", "", *(f"{TOLERANCES[name]:.0e}" for name in ("loss", "gradients", "norm", "sgd", "adamw")), "", "", ""]


def _verdict(row: Row) -> str:
    return "FAILS" if row.reasons else "no time" if row.skipped else "ok"


def as_text(rows: Sequence[Row]) -> str:
    """Aligned columns, the verdict last."""
    lines = [[*HEADER, ""], *([*row.cells(), _verdict(row)] for row in rows), [*_tolerances(), ""]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def as_markdown(rows: Sequence[Row]) -> str:
    """A table for a page."""
    lines = [list(HEADER), ["---"] * len(HEADER), *(row.cells() for row in rows), _tolerances()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
