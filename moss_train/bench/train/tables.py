"""Results as tables: rows of words, which the terminal and Markdown both take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from moss_train.bench.train.rates import PHASES, TERA

GIB = 2**30
MISSING = "–"
KERNELS = 12
"""Of a case, in tables; the file has more."""


@dataclass(frozen=True)
class Table:
    """Rows of words under a header."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def markdown(self) -> list[str]:
        """Its lines, the title left out."""
        lines = ["| " + " | ".join(self.header) + " |", "| --- |" + " ---: |" * (len(self.header) - 1)]
        return [*lines, *("| " + " | ".join(word.replace("|", "/") for word in row) + " |" for row in self.rows)]


def number(value: float | None, digits: int = 0, scale: float = 1.0) -> str:
    """With so many digits behind the point; a dash where there is none."""
    return MISSING if value is None else f"{value * scale:,.{digits}f}"


def share(value: float | None) -> str:
    """Percent."""
    return MISSING if value is None else f"{100 * value:.1f} %"


def good(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Cases with numbers."""
    return [case for case in content["cases"] if "failed" not in case]


def rates_table(cases: Sequence[dict[str, Any]]) -> Table:
    """Time, rates, memory."""
    header = (
        "case", "ms a step", "least to most", "TFLOP/s", "of peak", "of products", "decoder", "tower forward", "tower return",
        "tokens/s", "frames/s", "peak GiB",
    )  # fmt: skip
    rows = []
    for case in cases:
        rate, spread, mfu = case["tflops"], case["spread"], case["mfu"]
        rows.append((
            _name(case), number(case["seconds"]["step"], 1, 1e3),
            f"{number(spread['least'], 1, 1e3)} to {number(spread['most'], 1, 1e3)}", number(rate["model"], 1),
            share(mfu["peak"]), share(mfu["sustained"]), number(rate["decoder"], 1), number(rate["vision_forward"], 1),
            number(rate["vision_backward"], 1), number(case["per_second"]["tokens"]), number(case["per_second"]["frames"], 1),
            number(case["memory"]["peak"], 1, 1 / GIB),
        ))  # fmt: skip
    return Table("rates", header, rows)


def phases_table(cases: Sequence[dict[str, Any]]) -> Table:
    """Milliseconds by phase, which add up to the step; and until the host was through with what the device then did.

    In the phases behind `return` the host waits for the device.
    """
    header = ("ms", *(name.replace("_", " ") for name in PHASES), "step", "host to return", "data wait share")
    rows = []
    for case in cases:
        seconds = case["seconds"]
        host = sum(case["host_seconds"].get(name, 0.0) for name in ("encode", "decode", "return"))
        rows.append((
            _name(case), *(number(seconds[name], 1, 1e3) for name in PHASES), number(seconds["step"], 1, 1e3),
            number(host, 1, 1e3), share(case["data_wait_share"]),
        ))  # fmt: skip
    return Table("phases", header, rows)


def parts_table(cases: Sequence[dict[str, Any]]) -> Table:
    """Model operations by part, and what each contributes to the step's rate."""
    names = ("vision", "projector", "text", "cross", "head")
    header = (
        "case",
        *(f"{name} TFLOP" for name in names),
        "all TFLOP",
        *(f"{name} TFLOP/s" for name in names),
        "hardware TFLOP/s",
    )
    rows = []
    for case in cases:
        flops, rate = case["flops"]["model"], case["tflops"]
        rows.append((
            _name(case), *(number(flops[name], 1, 1 / TERA) for name in names), number(flops["total"], 1, 1 / TERA),
            *(number(rate["by_part"][name], 1) for name in names), number(rate["hardware"], 1),
        ))  # fmt: skip
    return Table("parts", header, rows)


def kinds_table(cases: Sequence[dict[str, Any]]) -> Table:
    """Milliseconds by kind of kernel, of the cases that were profiled."""
    profiled = [case for case in cases if "profile" in case]
    names = sorted({kind for case in profiled for kind in case["profile"]["kinds"]}, key=lambda k: -_most(profiled, k))
    rows = []
    for case in profiled:
        found, kinds = case["profile"], case["profile"]["kinds"]
        rows.append((
            _name(case), *(_kind(kinds.get(name)) for name in names), number(found["busy_seconds"], 1, 1e3),
            number(found["idle_seconds"], 1, 1e3),
        ))  # fmt: skip
    return Table("kinds", ("ms (TFLOP/s)", *names, "busy", "idle"), rows)


def _most(cases: Sequence[dict[str, Any]], kind: str) -> float:
    return max(float(case["profile"]["kinds"].get(kind, {}).get("seconds", 0.0)) for case in cases)


def _kind(found: dict[str, float] | None) -> str:
    if found is None:
        return MISSING
    rate = f" ({found['tflops']:,.0f})" if "tflops" in found else ""
    return number(found["seconds"], 1, 1e3) + rate


def kernels_table(case: dict[str, Any], count: int = KERNELS) -> Table:
    """The kernels of a profiled case that took longest."""
    step = case["profile"]["busy_seconds"]
    rows = [
        (
            f"`{entry['name'][:90]}`", entry["kind"], f"{entry['calls']:,}", number(entry["seconds"], 2, 1e3),
            share(entry["seconds"] / step),
        )
        for entry in case["profile"]["top"][:count]
    ]  # fmt: skip
    return Table(f"kernels, {_name(case)}", ("kernel", "kind", "calls", "ms", "share"), rows)


def chip_table(chip: dict[str, Any]) -> Table:
    """What the chip reached."""
    clocks = chip.get("clocks") or {}
    row = (
        number(chip["product_flops"], 0, 1 / TERA), number(chip["sustained_flops"], 0, 1 / TERA),
        number(chip["fp8_product_flops"], 0, 1 / TERA), number(chip["copy_bytes_per_second"], 2, 1e-12),
        number(clocks.get("mhz")), number(clocks.get("watts")),
    )  # fmt: skip
    header = ("product TFLOP/s", "for a second", "in fp8", "copy TB/s", "MHz", "W")
    return Table(f"this chip, products of {chip['size']:,}³", header, [row])


def tables(content: dict[str, Any]) -> list[Table]:
    """All of a file of results."""
    cases = good(content)
    found = [chip_table(content["chip"])] if "chip" in content else []
    if cases:
        found += [rates_table(cases), phases_table(cases), parts_table(cases)]
    profiled = [case for case in cases if "profile" in case]
    if profiled:
        found += [kinds_table(profiled), *(kernels_table(case) for case in profiled)]
    return found


def untold(content: dict[str, Any]) -> Iterable[str]:
    """Sentences about what has no numbers."""
    for case in content["cases"]:
        if "failed" in case:
            yield f"{_name(case)}: {case['failed']}"
    for entry in content["left_out"]:
        yield f"{entry['name']}: left out, {entry['reason']}"


def _name(case: dict[str, Any]) -> str:
    optimizer = "" if case["optimizer"] == "none" else f", {case['optimizer']}"
    return f"{case['name']}{optimizer}"
