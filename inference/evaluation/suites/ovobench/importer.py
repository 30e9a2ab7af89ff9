"""OVO-Bench's released annotations (`ovo_bench_new.json`): one list of entries of twelve tasks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inference.evaluation.schema import PromptEvent, Question, Scenario, Span
from inference.evaluation.suites.importing import Videos, load_templates, make_manifest, read_list, take, texts
from inference.evaluation.suites.ovobench.prompts import TEMPLATES
from inference.evaluation.suites.parsing import LETTERS, lettered
from inference.evaluation.suites.suite import Imported, ImportOptions
from model.errors import InputError

GROUPS = {
    "backward": ("EPM", "ASI", "HLD"),
    "realtime": ("STU", "OJR", "ATR", "ACR", "OCR", "FPD"),
    "forward": ("REC", "SSR", "CRR"),
}
TASKS = tuple(task for tasks in GROUPS.values() for task in tasks)
SECONDS_TO_SPEAK = 2.0
"""After its beginning, in which a span of a stream is to be spoken about."""


class _Importer:
    """What all entries of one import share."""

    def __init__(self, options: ImportOptions) -> None:
        self.options = options
        self.videos = Videos(options.videos)
        self.templates = load_templates(TEMPLATES, options.prompts)

    def question(self, text: str, answer: str, kind: str, t: float, **more: Any) -> Question:
        """One question about the video up to `t` seconds."""
        context = self.options.context_seconds
        since = t - context if context is not None and t > context else None
        return Question(text=text, answer=answer, kind=kind, t=t, since=since, **more)

    def frames(self, video: str, until: float) -> int:
        """That a scenario has which ends at `until` seconds, at least one."""
        return max(1, self.videos.frames(video, self.options.fps, until=until))


def load(path: Path, options: ImportOptions) -> Imported:
    """Scenarios of the annotation file.

    All questions about clips of one video make one scenario, those of the forward tasks at each of their moments among them; each
    entry of a forward task makes a second scenario that is streamed (push).

    Raises:
        InputError: the file is not of the release, no video at all.
    """
    shared = _Importer(options)
    entries = [(f"{path} entry {number}", entry) for number, entry in enumerate(read_list(path))][: options.limit]
    found: dict[str, list[Question]] = {}
    streams: list[Scenario] = []
    for where, entry in entries:
        task = take(entry, "task", str, where)
        if task not in TASKS:
            raise InputError(f"{where}: task is {task!r}; it must be one of {', '.join(TASKS)}")
        video = shared.videos.find(take(entry, "video", str, where))
        if video is None:
            continue
        questions = found.setdefault(video, [])
        if task in GROUPS["forward"]:
            questions += _forward(shared, task, entry, where)
            streams.append(_stream(shared, task, entry, video, where))
        else:
            questions.append(_choice(shared, task, entry, where))
    scenarios = [_scenario(shared, video, questions) for video, questions in found.items()] + streams
    manifest = make_manifest(
        "ovobench",
        options,
        [path],
        shared.templates,
        scenarios,
        shared.videos,
        license="CC BY-NC-SA 4.0",
        source="https://github.com/JoeLeelyf/OVO-Bench",
        context_seconds=options.context_seconds,
    )
    return Imported(scenarios, manifest)


def _scenario(shared: _Importer, video: str, questions: list[Question]) -> Scenario:
    last = max(question.t or 0.0 for question in questions)
    return Scenario(
        id=re.sub(r"\.[^./]+$", "", video),
        suite="ovobench",
        fps=shared.options.fps,
        num_frames=shared.frames(video, last),
        video=video,
        questions=questions,
        source="OVO-Bench",
    )


def _choice(shared: _Importer, task: str, entry: Mapping[str, Any], where: str) -> Question:
    options = texts(entry, "options", where)
    place = take(entry, "gt", int, where)
    if not 0 <= place < len(options):
        raise InputError(f"{where}: gt is {place} of {len(options)} options; it must be the place of one, counted from 0")
    asked = take(entry, "question", str, where)
    listed = " ".join(f"{option};" for option in lettered(options))
    text = shared.templates["choice"].format(question=asked, options=listed)
    t = _time(entry, "realtime", where)
    return shared.question(
        text, LETTERS[place], task, t, choices=options, meta={"entry": _identity(entry, where), "question": asked}
    )


def _forward(shared: _Importer, task: str, entry: Mapping[str, Any], where: str) -> list[Question]:
    """The same question at every moment of a forward entry."""
    found = []
    for place, test in enumerate(_tests(entry, where)):
        here = f"{where} test_info {place}"
        meta = {"entry": _identity(entry, where), "place": place}
        if task == "REC":
            text = shared.templates["REC"].format(activity=take(entry, "activity", str, where))
            answer = str(take(test, "count", int, here))
        else:
            if task == "SSR":
                text = shared.templates["SSR"].format(step=take(test, "step", str, here))
            else:
                text = shared.templates["CRR"].format(question=take(entry, "question", str, where))
            answer = "Yes" if _kind(test, here) else "No"
        found.append(shared.question(text, answer, task, _time(test, "realtime", here), meta=meta))
    return found


def _stream(shared: _Importer, task: str, entry: Mapping[str, Any], video: str, where: str) -> Scenario:
    """A forward entry as a stream: asked once, looked at whenever the benchmark would ask."""
    tests = _tests(entry, where)
    meta: dict[str, Any] = {"task": task, "entry": _identity(entry, where)}
    asked_at = 0.0
    if task == "REC":
        text = shared.templates["REC_push"].format(activity=take(entry, "activity", str, where))
        meta["tests"] = [[_time(test, "realtime", where), take(test, "count", int, where)] for test in tests]
        ends = sorted(_times(entry, "end_times", where))
        truths = [(end, str(number), "count") for number, end in enumerate(ends, 1)]
    elif task == "SSR":
        steps, begins = texts(entry, "all_steps", where), _times(entry, "start_time", where)
        if len(steps) != len(begins) or len(steps) > len(LETTERS):
            raise InputError(f"{where}: {len(steps)} steps and {len(begins)} beginnings; give as many, at most {len(LETTERS)}")
        text = shared.templates["SSR_push"].format(steps="\n".join(lettered(steps)))
        meta |= {"tests": [[_time(test, "realtime", where), None] for test in tests], "steps": steps, "begins": begins}
        truths = [(begin, f"{LETTERS[place]}. {steps[place]}", "event") for place, begin in enumerate(begins)]
    else:
        asked_at, clue = _time(entry, "ask_time", where), _time(entry, "clue_time", where)
        text = shared.templates["CRR_push"].format(question=take(entry, "question", str, where))
        meta |= {"tests": [[_time(test, "realtime", where), _kind(test, where)] for test in tests], "clue": clue}
        truths = [(clue, take(entry, "answer", str, where), "answer")]
    frames = shared.frames(video, max(t for t, _ in meta["tests"]))
    last = (frames - 1) / shared.options.fps
    return Scenario(
        id=f"{re.sub(r'[.][^./]+$', '', video)}#{task}{meta['entry']}",
        suite="ovobench",
        fps=shared.options.fps,
        num_frames=frames,
        video=video,
        prompts=[PromptEvent(t=asked_at, text=text)],
        spans=[Span(a=t, b=t + SECONDS_TO_SPEAK, text=said, kind=kind, prompt=0) for t, said, kind in truths if t <= last],
        source="OVO-Bench",
        meta=meta,
    )


def _tests(entry: Mapping[str, Any], where: str) -> list[Any]:
    tests = take(entry, "test_info", list, where)
    if not tests:
        raise InputError(f"{where}: test_info is empty; leave the entry out")
    return tests


def _identity(entry: Mapping[str, Any], where: str) -> str:
    return str(take(entry, "id", (int, str), where))


def _kind(test: Any, where: str) -> int:
    kind = take(test, "type", int, where)
    if kind not in (0, 1):
        raise InputError(f"{where}: type is {kind}; it must be 0 (no) or 1 (yes)")
    return kind


def _time(entry: Any, name: str, where: str) -> float:
    t = take(entry, name, float, where)
    if t < 0:
        raise InputError(f"{where}: {name} is {t}; it must be 0 or more")
    return t


def _times(entry: Mapping[str, Any], name: str, where: str) -> list[float]:
    return [_time({name: value}, name, where) for value in take(entry, name, list, where)]
