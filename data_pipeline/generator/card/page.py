"""From numbers and rows to the page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from data_pipeline.generator.card.charts import Chart, counts_chart, histogram_chart, percent
from data_pipeline.generator.card.collect import Build
from data_pipeline.generator.card.histogram import Counts
from data_pipeline.generator.card.numbers import COST
from data_pipeline.generator.card.row_view import RowView
from data_pipeline.generator.card.tally import Tally

REASONS = 40
"""Kinds of rejection, and sources, that the page lists; `card.json` holds all."""


def render_page(build: Build, numbers: dict[str, Any], views: Sequence[RowView]) -> str:
    """The HTML of the card: one file without outside resources or scripts."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader("data_pipeline.generator.card", "."),
        autoescape=select_autoescape(["html", "j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    name = numbers["build"]["name"] or build.folder.name
    return environment.get_template("page.html.j2").render(
        title=f"Report card of {name}",
        numbers=numbers,
        facts=_facts(numbers),
        charts=_charts(build.tally),
        checks=_checks(numbers),
        reasons=numbers["rejections"][:REASONS],
        more_reasons=max(0, len(numbers["rejections"]) - REASONS),
        sources=numbers["provenance"][:REASONS],
        more_sources=max(0, len(numbers["provenance"]) - REASONS),
        cost=_cost(numbers["cost"]),
        config=_config(build),
        views=views,
    )


def _facts(numbers: dict[str, Any]) -> list[tuple[str, str]]:
    totals, about = numbers["totals"], numbers["build"]
    rejected = numbers["tried"] - totals["rows"]
    rate = about["rows_per_second"]
    return [
        ("rows", f"{totals['rows']:,.0f}"),
        ("videos", f"{totals['videos']:,}"),
        ("hours", f"{totals['hours']:,.2f}"),
        ("frames", f"{totals['frames']:,.0f}"),
        ("tokens spoken", f"{totals['tokens']:,.0f}"),
        ("silent slots", percent(totals["silence_ratio"])),
        ("user turns", f"{totals['questions']:,.0f}"),
        ("utterances", f"{totals['utterances']:,.0f}"),
        ("cut off", f"{totals['preempted']:,.0f}"),
        ("corrections", f"{totals['corrections']:,.0f}"),
        ("never said", f"{totals['unsaid']:,.0f}"),
        ("rejected", f"{rejected:,.0f} of {numbers['tried']:,.0f} ({percent(rejected / numbers['tried'])})" if rejected else "0"),
        ("languages", _list(numbers["counts"]["languages"])),
        ("version", str(about["version"] or _list(numbers["counts"]["versions"]))),
        ("took", _took(about)),
        ("rows a second", f"{rate:,.3g}" if rate is not None else "unknown"),
    ]


def _list(counts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {times:,}" for name, times in counts["values"].items()) or "none"


def _took(about: dict[str, Any]) -> str:
    workers = about["workers"]
    return duration(about["seconds"]) + (f", {workers:g} worker{'s' if workers != 1 else ''}" if workers else "")


def duration(seconds: float | None) -> str:
    """Seconds in words."""
    if seconds is None:
        return "unknown"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _charts(tally: Tally) -> list[Chart]:
    h, c = tally.histograms, tally.counts
    behaviours = Counts(values={name: one["rows"] for name, one in tally.behaviours.items()})
    return [
        counts_chart(
            "Behaviours", "rows", behaviours, of=int(tally.sums["rows"]), note="A row with several behaviours counts under each."
        ),
        histogram_chart("Silence ratio", "share of silent slots", h["silence_ratio"]),
        histogram_chart(
            "Answer delay after the question",
            "seconds",
            h["onset_minus_question"],
            note="From the question to the first slot of an utterance that answers it.",
        ),
        histogram_chart(
            "Answer delay after the evidence",
            "seconds",
            h["onset_minus_evidence"],
            note="From the end of the evidence to the first slot; large where a question asks about what was seen before.",
        ),
        histogram_chart(
            "Delay after the first right moment",
            "seconds",
            h["onset_minus_due"],
            note="0 unless another utterance was still being said.",
        ),
        histogram_chart("Tokens of a slot in which something is said", "tokens", h["tokens_per_slot"], whole=True),
        histogram_chart("Tokens of an utterance", "tokens", h["tokens_per_utterance"], whole=True),
        histogram_chart("Emission rate", "tokens a second", h["emission_rate"]),
        histogram_chart("Utterances of a row", "utterances", h["utterances_per_row"], whole=True),
        histogram_chart("Frames of a row", "frames", h["frames_per_row"], whole=True),
        counts_chart("Kinds of user turns", "turns", c["question_kinds"]),
        counts_chart("Kinds of utterances", "utterances", c["utterance_kinds"]),
        counts_chart(
            "Values of answers",
            "answers",
            c["answer_values"],
            most=16,
            note="An answer that is much more frequent than others can be guessed without the video.",
        ),
    ]


def _checks(numbers: dict[str, Any]) -> list[tuple[bool, str]]:
    """What holds, and what somebody should look into."""
    checks = []
    for pair, count in numbers["shared_split_keys"].items():
        told = "share no split key" if not count else f"share {count:,} split keys: their videos are in both"
        checks.append((not count, f"Splits {pair} {told}."))
    if not numbers["shared_split_keys"]:
        checks.append((True, "There is one split only."))
    checks += [(True, f"{count:,} videos were left out: {reason}.") for reason, count in numbers["left_out_videos"].items()]
    for reason, count in numbers["left_out_rows"].items():
        checks.append((True, f"{count:,} rows of those counted here were left out of the shards: {reason}."))
    if not numbers["finished"]:
        checks.append((False, "The build has not come to its end: build.json is missing. Only finished parts are counted."))
    return checks


def _cost(cost: dict[str, dict[str, float]]) -> list[tuple[str, list[str]]]:
    rows = list(cost.items())
    if len(rows) > 1:
        rows.append(("all stages", {key: sum(one[key] for one in cost.values()) for key in next(iter(cost.values()))}))
    return [
        (
            stage,
            [f"{one[key]:,.4f}" if key == "dollars" else f"{one[key]:,.0f}" for key in COST],
        )
        for stage, one in rows
    ]


def _config(build: Build) -> str:
    """The settings as text, where the build keeps them."""
    settings = build.summary.get("settings")
    return json.dumps(settings, indent=1, ensure_ascii=False) if settings else ""
