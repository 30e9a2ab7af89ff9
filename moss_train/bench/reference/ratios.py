"""What the numbers of a file of results say: ratios, a summary, tables. Nothing is measured here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from moss_train.bench.reference.published import CARD, PUBLISHED, TEXT_LAYERS, Published
from moss_train.bench.train.tables import GIB, Table, number, share

Measured = dict[str, Any]


def good(content: Measured, **wanted: Any) -> list[Measured]:
    """Cases with numbers and these values."""
    return [c for c in content["cases"] if "failed" not in c and all(c.get(key) == value for key, value in wanted.items())]


def one(content: Measured, **wanted: Any) -> Measured | None:
    """The newest of them, if there is one."""
    return next(iter(reversed(good(content, **wanted))), None)


def published_for(content: Measured, case: Measured) -> Published | None:
    """The figures that a case may be held against: of the same model and frames, and of no more rows."""
    options = content["options"]
    figures = PUBLISHED.get(case["frame_count"])
    cut = options["cut"]
    same = options["model"] == "11b" and cut["text_layers"] == TEXT_LAYERS and cut["tower_layers"] is None
    return figures if same and figures is not None and case["rows"] >= figures.rows else None


@dataclass(frozen=True)
class Ratio:
    """One of our cases of a sample against the reference's way."""

    case: Measured
    here: float | None
    """Frames a second over those of the reference's way in the same process; None where it did not run."""
    published: float | None
    """Over those of its published figures, of another machine."""
    memory: float | None
    """Peak over the reference's in the same process; over the published one where that did not run; None without a GPU."""

    @property
    def faster(self) -> float | None:
        """Over the faster of the two: the smaller ratio."""
        return min((ratio for ratio in (self.here, self.published) if ratio is not None), default=None)


def ratio_of(content: Measured, case: Measured) -> Ratio:
    """Of a case of ours, forward and backward of one sample."""
    sizes = {"frame_count": case["frame_count"], "rows": case["rows"], "kind": "sample"}
    dense = one(content, side="reference", optimizer="none", **sizes)
    figures = published_for(content, case)
    peak = dense["peak"] if dense is not None else None if figures is None else figures.peak_gib * GIB
    frames = case["frames_per_second"]
    return Ratio(
        case,
        here=None if dense is None else _over(frames, dense["frames_per_second"]),
        published=None if figures is None else frames / figures.frames_per_second,
        memory=None if peak is None or case["peak"] is None else case["peak"] / peak,
    )


def _over(a: float, b: float) -> float | None:
    return a / b if b else None


def mixture_ratio(content: Measured, precision: str, stages: Sequence[str] | None = None) -> float | None:
    """Samples a second of ours over the reference's, every stage with as many samples; None where one is missing.

    The workload (`moss_train.planning.workload`) states shares of samples within a stage and none of stages, so they weigh alike.

    Args:
        stages: all of them must have been measured on both sides; None takes those that the file was asked for.
    """
    wanted = content["options"]["mixture"] if stages is None else stages
    totals = [0.0, 0.0]
    for stage in wanted:
        ours = one(content, kind="mixture", side="ours", optimizer="none", stage=stage, precision=precision)
        theirs = one(content, kind="mixture", side="reference", optimizer="none", stage=stage)
        if ours is None or theirs is None:
            return None
        totals[0] += theirs["seconds"] / theirs["sample_count"]
        totals[1] += ours["seconds"] / ours["sample_count"]
    return totals[0] / totals[1] if wanted else None


def computed_ranks_ratio(content: Measured, precision: str, stages: Sequence[str] | None = None) -> float | None:
    """As `mixture_ratio`, if every sample of a stage had a rank of its own: computed from measured seconds, not measured.

    The reference's way has no balancing and reduces gradients behind every sample, so that all ranks wait for the slowest; ours
    is taken to spread frames and packs evenly. Communication is left out on both sides.
    """
    wanted = content["options"]["mixture"] if stages is None else stages
    totals = [0.0, 0.0]
    for stage in wanted:
        ours = one(content, kind="mixture", side="ours", optimizer="none", stage=stage, precision=precision)
        theirs = one(content, kind="mixture", side="reference", optimizer="none", stage=stage)
        if ours is None or theirs is None:
            return None
        ranks = len(theirs["all_seconds"])  # a step of as many samples, of which a stage's share is one
        totals[0] += max(theirs["all_seconds"]) / ranks
        totals[1] += ours["seconds"] / ranks / ours["sample_count"]
    return totals[0] / totals[1] if wanted else None


def summary(content: Measured) -> dict[str, float | None]:
    """The values of the page; `ratio_mixture` is of bf16 on both sides. None for what was not measured."""
    found: dict[str, float | None] = {}
    for frames in (64, 256):
        for precision in ("bf16", "fp8"):
            case = one(content, kind="sample", side="ours", optimizer="none", precision=precision, frame_count=frames)
            ratio = None if case is None else ratio_of(content, case)
            found[f"ratio_{frames}_{precision}"] = None if ratio is None else ratio.faster
            found[f"memory_{frames}_{precision}"] = None if ratio is None else ratio.memory
    found["ratio_mixture"] = mixture_ratio(content, "bf16")
    found["ratio_mixture_fp8"] = mixture_ratio(content, "fp8")
    for precision in ("bf16", "fp8"):
        found[f"ratio_mixture_ranks_computed_{precision}"] = computed_ranks_ratio(content, precision)
    return found


def tables(content: Measured) -> list[Table]:
    """All that have rows."""
    made = [
        _samples_table(content),
        _mixture_table(content),
        _kinds_table(content),
        _updates_table(content),
        _missing_table(content),
    ]
    return [table for table in made if table.rows]


def _times(value: float | None) -> str:
    return number(value, 2)


def _samples_table(content: Measured) -> Table:
    header = (
        "forward and backward of one sample", "card", "ms", "frames/s", "TFLOP/s", "peak GiB", "to the reference here",
        "to its figures", "to the faster", "memory",
    )  # fmt: skip
    card = str(content["hardware"]["device"])
    rows: list[tuple[str, ...]] = []
    cases = good(content, kind="sample", optimizer="none")
    for frames, length in dict.fromkeys((c["frame_count"], c["rows"]) for c in content["cases"] if c["kind"] == "sample"):
        same = [c for c in cases if (c["frame_count"], c["rows"]) == (frames, length)]
        sizes = f"{frames} frames, {length:,} rows"
        figures = published_for(content, {"frame_count": frames, "rows": length})
        if figures is not None:
            rows.append((
                f"{sizes}: the reference's figures", CARD, number(1e3 * frames / figures.frames_per_second, 1),
                number(figures.frames_per_second, 1), number(figures.tflops), number(figures.peak_gib, 1), *[""] * 4,
            ))  # fmt: skip
        for case in same:
            words = [""] * 4
            if case["side"] == "ours":
                ratio = ratio_of(content, case)
                words = [_times(ratio.here), _times(ratio.published), _times(ratio.faster), share(ratio.memory)]
            whose = "the reference's way" if case["side"] == "reference" else "ours"
            rows.append((
                f"{sizes}: {whose}, {case['precision']}", card, number(case["seconds"], 1, 1e3),
                number(case["frames_per_second"], 1), number(case["tflops"]), number(case["peak"], 1, 1 / GIB), *words,
            ))  # fmt: skip
    return Table("one sample", header, rows)


def _mixture_table(content: Measured) -> Table:
    precisions = [p for p in ("bf16", "fp8", "fp32") if good(content, kind="mixture", side="ours", precision=p)]
    header = ["samples of", "samples", "frames", "tokens", "reference, s"]
    for precision in precisions:
        header += [f"ours {precision}, s", "packs", "ratio", "ratio with a rank a sample, computed"]
    stages = [c["stage"] for c in good(content, kind="mixture", side="reference")]
    groups = [[stage] for stage in stages] + ([stages] if len(stages) > 1 else [])
    rows = []
    for group in groups:
        theirs = [c for c in good(content, kind="mixture", side="reference") if c["stage"] in group]
        sums = {key: sum(c[key] for c in theirs) for key in ("sample_count", "frames", "tokens", "seconds")}
        words = [
            group[0] if len(group) == 1 else "all; ratios: as many of each",
            *(number(sums[key]) for key in ("sample_count", "frames", "tokens")),
        ]
        words.append(number(sums["seconds"], 2))
        for precision in precisions:
            words += _own_words(content, precision, group)
        rows.append(tuple(words))
    return Table("the workload's samples", tuple(header), rows)


def _own_words(content: Measured, precision: str, stages: Sequence[str]) -> list[str]:
    """Seconds, packs and ratios of ours over stages."""
    own = [one(content, kind="mixture", side="ours", stage=stage, precision=precision) for stage in stages]
    there = [case for case in own if case is not None]
    whole = len(there) == len(stages)
    return [
        number(sum(case["seconds"] for case in there) if whole else None, 2),
        number(sum(case["packs"] for case in there) if whole else None),
        _times(mixture_ratio(content, precision, stages)),
        _times(computed_ranks_ratio(content, precision, stages)),
    ]


def _kinds_table(content: Measured) -> Table:
    """What a sample of each kind costs the reference's way: nothing is shared between samples there."""
    times: dict[str, list[float]] = {}
    for case in good(content, kind="mixture", side="reference"):
        for kind, seconds in case["seconds_by_kind"].items():
            times.setdefault(kind, []).extend(seconds)
    rows = [
        (kind, number(len(each)), number(1e3 * sum(each) / len(each), 1), share(sum(each) / sum(map(sum, times.values()))))
        for kind, each in sorted(times.items())
    ]
    return Table("what samples cost the reference's way", ("kind", "samples", "mean ms", "of all time"), rows)


def _updates_table(content: Measured) -> Table:
    cases = [c for c in good(content, kind="sample") if c["optimizer"] != "none"]
    base = next((c for c in cases if c["optimizer"] == "zero2"), None)
    rows = [
        (
            case["name"], str(content["hardware"]["device"]), number(case["seconds"], 1, 1e3),
            number(case["frames_per_second"], 1), number(case["tflops"]), number(case["peak"], 1, 1 / GIB),
            _times(None if base is None or case is base else base["seconds"] / case["seconds"]),
        )
        for case in cases
    ]  # fmt: skip
    return Table("steps with updates", ("step", "card", "ms", "frames/s", "TFLOP/s", "peak GiB", "to ZeRO-2"), rows)


def _missing_table(content: Measured) -> Table:
    rows = [(case["name"], str(case["failed"])) for case in content["cases"] if "failed" in case]
    for case in good(content, kind="mixture", side="reference"):
        for name, why in (("too_large", "found no memory"), ("not_reached", "found no time")):
            if case.get(name):
                rows.append((case["name"], f"{len(case[name])} samples {why}; both sides leave them out"))
    return Table("not measured", ("case", "why"), [*rows, *((entry["name"], entry["reason"]) for entry in content["left_out"])])


def told(content: Measured) -> Measured:
    """The content with its summary and tables, as the page takes them."""
    made = [{"title": t.title, "header": list(t.header), "rows": [list(row) for row in t.rows]} for t in tables(content)]
    return {**content, "summary": summary(content), "tables": made}
