"""Fills the page of evaluations and writes it beside its numbers."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moss_train.report.chart import COLOURS
from moss_train.report.evaluation.bars import histogram, number
from moss_train.report.evaluation.tables import difference_rows, facts, kept_rows, overview_rows, suite_rows
from moss_train.report.evaluation.thumbnails import thumbnails
from moss_train.report.evaluation.timeline import draw
from moss_train.report.page import render, write_text

JsonObject = dict[str, Any]
MOST_ROWS = 200
"""Of the list of what was said in one scenario."""
MOST_FRAMES = 1600
"""On the page: about 5 MB; many timelines show fewer frames each, but not less than four."""


def write_page(out: Path, content: JsonObject, *, title: str, intro: str = "", commands: Sequence[str] = ()) -> Path:
    """Write the page and, beside it, the content as JSON; returns the latter's path.

    Args:
        content: as `inference.evaluation.reporting.content.build` makes it; `published` may hold tables of our figures beside
            published ones.
        commands: to print besides those that the runs recorded.
    """
    numbers = out.with_suffix(".json")
    write_text(numbers, json.dumps({"title": title, **content}, indent=1, ensure_ascii=False) + "\n")
    write_text(out, render("evaluation/page.html.j2", **page_values(content, title, intro, commands)))
    return numbers


def page_values(content: JsonObject, title: str, intro: str = "", commands: Sequence[str] = ()) -> JsonObject:
    """What the template shows."""
    models = content["models"]
    names = [model["name"] for model in models]
    colours = {name: place for place, name in enumerate(names)}
    suites = []
    for suite in content["suites"]:
        inside = [name for name in names if name in suite["models"]]
        single, double = suite_rows(suite, inside, colours)
        suites.append(suite | {"inside": inside, "single": single, "double": double})
    frames = max(4, min(16, MOST_FRAMES // max(1, len(content["timelines"]))))
    tasks = list(dict.fromkeys(task for line in content["timelines"] for task in line["tasks"]))
    return {
        "title": title,
        "intro": intro,
        "statistics": content["statistics"],
        "share": f"{100 * content['statistics']['confidence']:g} %",
        "models": [_model(model, COLOURS[colours[model["name"]] % len(COLOURS)]) for model in models],
        "manifests": [(manifest.get("suite", "?"), _manifest(manifest)) for manifest in content["manifests"]],
        "names": names,
        "colour_of": {name: COLOURS[place % len(COLOURS)] for name, place in colours.items()},
        "overview": overview_rows(content["suites"], names, colours),
        "suites": suites,
        "distributions": _distributions(content["distributions"], colours),
        "comparisons": [
            {**one, "tables": difference_rows(one), "kept_rows": kept_rows(one)} for one in content["comparisons"]
        ],
        "published": content.get("published", []),
        "tasks": tasks,
        "timelines": [_timeline(line, colours, tasks, frames) for line in content["timelines"]],
        "notes": content["notes"],
        "commands": list(dict.fromkeys([*commands, *(_command(model["command"]) for model in models if model["command"])])),
        "files": sorted({(name, found) for model in models for name, found in model["scenario_files"].items()}),
    }  # fmt: skip


def _model(model: JsonObject, colour: str) -> JsonObject:
    shown = {key: model[key] for key in ("folder", "judge", "written")}
    shown |= {"checkpoint": model["checkpoint"], "items": model["items"], "traces": model["traces"], "given": model["usage"]}
    if model["seconds"] is not None:
        shown["seconds"] = f"{model['seconds']:.1f}"
    return model | {
        "colour": colour,
        "facts": facts(shown),
        "settings_facts": facts(model["settings"]) + facts({"versions": model["versions"]}),
    }


def _command(words: Sequence[str]) -> str:
    """A recorded command line, whatever place the program was started from."""
    program = Path(words[0]).name
    return shlex.join(["moss" if program in ("moss", "main.py", "__main__.py") else words[0], *words[1:]])


def _manifest(manifest: JsonObject) -> list[tuple[str, str]]:
    """Prompts are told by name and hash, their texts stand in the JSON; of missing videos the number."""
    values = {name: value for name, value in manifest.items() if name not in ("prompts", "missing_videos")}
    values["prompts"] = ", ".join(manifest.get("prompts", {}))
    values["missing_videos"] = len(manifest.get("missing_videos", []))
    return facts(values)


def _distributions(found: Mapping[str, JsonObject], colours: Mapping[str, int]) -> list[JsonObject]:
    columns = ("count", "p50", "p95", "p99", "max")
    return [
        {
            "name": name,
            "svg": histogram(one["edges"], one["models"], colours) if len(one["edges"]) > 2 else "",
            "rows": [
                (model, COLOURS[colours[model] % len(COLOURS)], [f"{own['count']}", *(number(own[key]) for key in columns[1:])])
                for model, own in one["models"].items()
            ],
        }
        for name, one in found.items()
    ]


def _timeline(line: JsonObject, colours: Mapping[str, int], tasks: Sequence[str], most_frames: int) -> JsonObject:
    frames, trouble = thumbnails(line, most_frames)
    rows = _told(line)
    return line | {
        "svg": draw(line, frames, colours),
        "trouble": trouble,
        "classes": " ".join(f"task{tasks.index(task)}" for task in line["tasks"]),
        "told": rows[:MOST_ROWS],
        "left_out": max(0, len(rows) - MOST_ROWS),
        "score_text": "" if line["score"] is None else f"{line['metric']} {number(line['score'])}",
        "asked": list(dict.fromkeys(model for question in line["questions"] for model in question["replies"])),
    }


def _told(line: JsonObject) -> list[tuple[float, str, str, str]]:
    """All that was shown and said as (second, who, text, verdict), in order of time."""
    words = {"right": "in time", "other": "in time, other words", "false": "without cause"}
    rows = [(prompt["t"], "prompt", prompt["text"], "") for prompt in line["prompts"]]
    rows += [(change["t"], "change", f"{change['before']} → {change['after']}", "") for change in line["changes"]]
    for place, span in enumerate(line["spans"]):
        missed = [stream["model"] for stream in line["streams"] if place not in stream["hit"]]
        rows.append((span["a"], f"truth, {span['kind']}", span["text"], f"missed by {', '.join(missed)}" if missed else ""))
    for stream in line["streams"]:
        rows += [(said["t"], stream["model"], said["text"], words[said["verdict"]]) for said in stream["utterances"]]
        rows += [(t, stream["model"], "(interrupted)", "") for t in stream["interrupted"]]
    for poll in line["polls"]:
        for model, found in poll["models"].items():
            rows += [(reply["t"], f"{model}, polled", reply["text"], "") for reply in found["replies"]]
            if found["final"] and found["replies"]:
                rows.append((found["replies"][-1]["t"], f"{model}, at the end", found["final"], ""))
    return sorted(rows, key=lambda row: row[0])
