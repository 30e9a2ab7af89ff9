"""Results as tables, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from moss_train.bench.train.tables import GIB, MISSING, Table, good, number, share
from moss_train.bench.train.tables import untold as untold_sentences

PHASES = ("encode", "decode", "return", "statistics", "optimizer", "other")
Cases = Sequence[dict[str, Any]]


def baseline(cases: Cases, case: dict[str, Any]) -> dict[str, Any] | None:
    """The one-GPU case of the same stage, with one pack."""
    found = [one for one in cases if one["ranks"] == 1 and one["stage"] == case["stage"] and _packs(one) == 1]
    return found[0] if found else None


def weak_efficiency(cases: Cases, case: dict[str, Any]) -> float | None:
    """Operations a second of a GPU, in units of those of one GPU that has a pack of the same stage for itself."""
    one = baseline(cases, case)
    return None if one is None else float(case["tflops"]) / float(one["tflops"])


def strong_efficiency(cases: Cases, case: dict[str, Any]) -> float | None:
    """Time of one GPU for the same packs over that of all GPUs together."""
    found = [
        one for one in cases
        if one["ranks"] == 1 and one["stage"] == case["stage"] and _packs(one) == _packs(case) and one["flops"] == case["flops"]
    ]  # fmt: skip
    return float(found[0]["step"]) / (float(case["step"]) * case["ranks"]) if found else None


def _packs(case: dict[str, Any]) -> int:
    return sum(map(len, case["frames"]))


def rates_table(cases: Cases) -> Table:
    """Times, rates, efficiency, memory."""
    header = (
        "case", "GPUs", "ms a step", "TFLOP/s a GPU", "MFU", "tokens/s", "frames/s", "weak efficiency", "strong efficiency",
        "exposed", "without waiting", "peak GiB",
    )  # fmt: skip
    rows = []
    for case in cases:
        told = case.get("communication", {}) if case["ranks"] > 1 else {}
        weak, strong = (None, None) if case["ranks"] == 1 else (weak_efficiency(cases, case), strong_efficiency(cases, case))
        rows.append((
            case["name"], str(case["ranks"]), number(case["step"], 1, 1e3), number(case["tflops"], 1), share(case["mfu"]),
            number(case["per_second"]["tokens"]), number(case["per_second"]["frames"], 1), share(weak), share(strong),
            share(told.get("share")), share(told.get("least_share")), number(case["memory"]["peak"], 1, 1 / GIB),
        ))  # fmt: skip
    return Table("steps", header, rows)


def phases_table(cases: Cases) -> Table:
    """Milliseconds by phase, least and most over the ranks, and frames by rank."""
    rows = [
        (
            case["name"], *(_span(case["phases"][name]) for name in PHASES), number(case["step"], 1, 1e3),
            "/".join(map(str, case["encoded"])),
        )
        for case in cases
    ]  # fmt: skip
    return Table("phases, ms, of the quickest and the slowest rank", ("case", *PHASES, "step", "frames encoded"), rows)


def communication_table(cases: Cases) -> Table:
    """Exposed milliseconds by kind: least and most over the ranks, and calls."""
    told = [case for case in cases if case["ranks"] > 1 and "communication" in case]
    kinds = sorted({kind for case in told for kind in case["communication"]["kinds"]})
    rows = []
    for case in told:
        found = case["communication"]
        cells = [
            f"{_span(found['kinds'][kind])} ({found['kinds'][kind]['calls']:,.0f})" if kind in found["kinds"] else MISSING
            for kind in kinds
        ]
        rows.append((case["name"], *cells, _span(found), share(found["share"]), share(found["least_share"])))
    header = ("case", *kinds, "all", "of the step", "without waiting")
    return Table("exposed communication, ms (calls)", header, rows)


def exposed_phases_table(cases: Cases) -> Table:
    """The same by phase of the step."""
    told = [case for case in cases if case["ranks"] > 1 and "communication" in case]
    phases = [name for name in PHASES if any(name in case["communication"]["phases"] for case in told)]
    rows = [
        (case["name"], *(_span(case["communication"]["phases"].get(name)) for name in phases), _span(case["communication"]))
        for case in told
    ]
    return Table("exposed communication by phase, ms", ("case", *phases, "all"), rows)


def predicted_table(cases: Cases) -> Table:
    """What `moss plan` says, and by how much that is off."""
    rows = []
    for case in cases:
        told, peak = case["predicted"], _allocated(case)
        rows.append((
            case["name"], number(told["step"], 1, 1e3), number(case["step"], 1, 1e3), _off(told["step"], case["step"]),
            number(told["peak"], 1, 1 / GIB), number(peak, 1, 1 / GIB), _off(told["peak"], peak),
        ))  # fmt: skip
    header = ("case", "predicted ms", "measured", "off by", "predicted GiB", "measured", "off by")
    return Table("predictions of moss plan", header, rows)


def _allocated(case: dict[str, Any]) -> float | None:
    """Most bytes that a GPU's allocator gave; of a CPU only the process's are known, which no plan speaks of."""
    return float(case["memory"]["peak"]) if "static" in case["memory"]["all"][0] else None


def _off(predicted: float | None, measured: float | None) -> str:
    return MISSING if predicted is None or measured is None else f"{100 * (predicted / measured - 1):+.1f} %"


def _span(found: dict[str, Any] | None) -> str:
    if found is None:
        return MISSING
    least, most = number(found["least"], 1, 1e3), number(found["most"], 1, 1e3)
    return most if least == most else f"{least} to {most}"


def tables(content: dict[str, Any]) -> list[Table]:
    """All of a file of results."""
    cases = good(content)
    if not cases:
        return []
    found = [rates_table(cases), phases_table(cases)]
    if any(case["ranks"] > 1 and "communication" in case for case in cases):
        found += [communication_table(cases), exposed_phases_table(cases)]
    return [*found, predicted_table(cases)]


def untold(content: dict[str, Any]) -> Iterable[str]:
    """Sentences about what has no numbers."""
    cases = [{"optimizer": "none", **case} for case in content["cases"]]
    return untold_sentences({**content, "cases": cases})


def summary(content: dict[str, Any]) -> dict[str, float | None]:
    """The figures that one asks for first, of the most GPUs; None for what was not measured."""
    cases = good(content)
    most = max((case["ranks"] for case in cases), default=1)

    def first(kind: str) -> dict[str, Any] | None:
        return next((case for case in cases if case["kind"] == kind and case["ranks"] == most > 1), None)

    pt2, sft, own = first("pt2"), first("sft"), first("own")
    return {
        "gpus": float(most),
        "weak_pt2": None if pt2 is None else weak_efficiency(cases, pt2),
        "weak_sft": None if sft is None else weak_efficiency(cases, sft),
        "strong_pt2": None if pt2 is None else strong_efficiency(cases, pt2),
        "exposed_pt2": None if pt2 is None else pt2.get("communication", {}).get("share"),
        "exposed_sft": None if sft is None else sft.get("communication", {}).get("share"),
        "balanced_over_own": None if sft is None or own is None else own["step"] / sft["step"],
    }  # fmt: skip
