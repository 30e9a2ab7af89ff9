"""The table of the checks, one row each. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from moss_train.verify.ranks.findings import CaseResult

HEADER = ("check", "layout", "ranks", "modules", "loss", "norm", "tensors", "differ", "seconds")
_SHOWN = ("loss", "norm", "tensors", "differ")


def cells(result: CaseResult) -> list[str]:
    """As text, one for each name of `HEADER`."""
    figures = {} if result.check == "golden" else dict(result.figures)  # those are absolute
    figures.setdefault("differ", sum(value for name, value in figures.items() if name.startswith("differ_")))
    known = [name in figures and (name != "differ" or "tensors" in figures) for name in _SHOWN]
    numbers = [_number(figures[name]) if there else "-" for name, there in zip(_SHOWN, known, strict=True)]
    kind = " ".join(word for word in (result.modules, result.dtype) if word) or "-"
    return [result.check, result.layout, str(result.ranks), kind, *numbers, f"{result.seconds:.1f}"]


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.1e}"


def as_text(results: Sequence[CaseResult]) -> str:
    """Aligned columns, the verdict last."""
    lines = [[*HEADER, ""], *([*cells(result), result.verdict] for result in results)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def as_markdown(results: Sequence[CaseResult]) -> str:
    """A table for a page."""
    lines = [[*HEADER, "verdict"], ["---"] * (len(HEADER) + 1), *([*cells(result), result.verdict] for result in results)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def worst(result: CaseResult) -> str:
    """The largest figure of a replay, as a word behind its row; empty for other checks."""
    if result.check != "golden" or not result.figures:
        return ""
    name, value = max(result.figures.items(), key=lambda pair: pair[1])
    return f"largest absolute difference {value:.1e} ({name})"


def summary(results: Sequence[CaseResult], device: str) -> str:
    """How many passed."""
    bad, left_out = (sum(r.verdict == verdict for r in results) for verdict in ("FAILS", "skipped"))
    late = f"; {left_out} were left out" * bool(left_out)
    return f"{len(results) - bad - left_out} of {len(results)} checks passed on {device}{late}"
