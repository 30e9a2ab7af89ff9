"""E.T. Bench's released annotations with times as text (`etbench_txt_v1.0.json`, or one file of `txt`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inference.evaluation.schema import Question, Scenario
from inference.evaluation.suites.etbench.prompts import TEMPLATES
from inference.evaluation.suites.importing import Videos, load_templates, make_manifest, read_list, take, texts
from inference.evaluation.suites.parsing import LETTERS
from inference.evaluation.suites.suite import Imported, ImportOptions
from model.errors import InputError

GROUPS = {
    "referring": ("rar", "eca", "rvq"),
    "grounding": ("tvg", "epm", "tal", "evs", "vhd"),
    "captioning": ("dvc", "slc"),
    "complex": ("tem", "gvq"),
}
CAPTIONING = GROUPS["captioning"]
CHOICES = ("rar", "eca", "rvq", "gvq")
SPANS = ("tvg", "epm", "tal", "evs", "vhd", "dvc", "slc", "tem", "gvq")
TASKS = tuple(task for tasks in GROUPS.values() for task in tasks)


def load(path: Path, options: ImportOptions) -> Imported:
    """One scenario for each video, with all questions about it.

    Raises:
        InputError: the file is not of the release, no video at all.
    """
    templates, videos = load_templates(TEMPLATES, options.prompts), Videos(options.videos)
    found: dict[str, list[Question]] = {}
    for number, entry in enumerate(read_list(path)[: options.limit]):
        where = f"{path} entry {number}"
        task = take(entry, "task", str, where)
        if task not in TASKS:
            raise InputError(f"{where}: task is {task!r}; it must be one of {', '.join(TASKS)}")
        video = videos.find(take(entry, "video", str, where))
        if video is not None:
            found.setdefault(video, []).append(_question(task, entry, where, templates))
    scenarios = [_scenario(video, questions, videos, options) for video, questions in found.items()]
    manifest = make_manifest(
        "etbench",
        options,
        [path],
        templates,
        scenarios,
        videos,
        license="CC BY-NC-SA 4.0",
        source="https://huggingface.co/datasets/PolyU-ChenLab/ETBench",
    )
    return Imported(scenarios, manifest)


def _scenario(video: str, questions: list[Question], videos: Videos, options: ImportOptions) -> Scenario:
    return Scenario(
        id=re.sub(r"\.[^./]+$", "", video),
        suite="etbench",
        fps=options.fps,
        num_frames=max(1, videos.frames(video, options.fps)),
        video=video,
        questions=questions,
        source="E.T. Bench",
    )


def _question(task: str, entry: Mapping[str, Any], where: str, templates: Mapping[str, str]) -> Question:
    prompt = take(entry, "q", str, where)
    if "<vid>" in prompt:
        raise InputError(f"{where}: q has <vid> in place of times; give the annotations with times as text (txt)")
    meta: dict[str, Any] = {"source": take(entry, "source", str, where), "idx": take(entry, "idx", int, where)}
    choices: list[str] = []
    answer = ""
    if task in CHOICES:
        choices = [_option(option) for option in take(entry, "o", list, where)]
        place = take(entry, "p", int, where)
        if not 0 <= place < len(choices) or len(choices) > len(LETTERS):
            raise InputError(f"{where}: p is {place} of {len(choices)} options; it must be the place of one, counted from 0")
        answer = LETTERS[place]
    if task in SPANS:
        meta["truth"] = _spans(take(entry, "tgt", list, where), where)
        answer = answer or "; ".join(f"{begin:g} - {end:g}" for begin, end in meta["truth"])
    if task in CAPTIONING:
        meta["captions"] = texts(entry, "g", where)
        if len(meta["captions"]) != len(meta["truth"]):
            raise InputError(
                f"{where}: g has {len(meta['captions'])} captions for {len(meta['truth'])} spans of tgt; one for each"
            )
        answer = "\n".join(f"{a:g} - {b:g}: {said}" for (a, b), said in zip(meta["truth"], meta["captions"], strict=True))
    text = templates["sample"].format(prompt=prompt)
    return Question(text=text, answer=answer, kind=task, choices=choices, meta=meta)


def _option(option: Any) -> str:
    return f"{option[0]} - {option[1]}" if isinstance(option, list) and len(option) == 2 else str(option)


def _spans(target: list[Any], where: str) -> list[list[float]]:
    """One span, several, or several lists of them by different people: all of them as one list."""
    if len(target) == 2 and all(isinstance(value, int | float) and not isinstance(value, bool) for value in target):
        target = [target]
    if target and all(isinstance(one, list) and one and isinstance(one[0], list) for one in target):
        target = [span for one in target for span in one]
    fine = all(isinstance(one, list) and len(one) == 2 and all(isinstance(value, int | float) for value in one) for one in target)
    if not target or not fine:
        raise InputError(f"{where}: tgt is {str(target)[:60]}; it must be spans of a beginning and an end")
    return [[float(min(one)), float(max(one))] for one in target]
