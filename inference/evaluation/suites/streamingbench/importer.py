"""StreamingBench's released annotations: the CSV files of its data set, or the JSON files of its code."""

from __future__ import annotations

import ast
import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.evaluation.schema import Poll, PromptEvent, Question, Scenario, Span
from inference.evaluation.suites.importing import Videos, load_templates, make_manifest, read_list, seconds_of, take, texts
from inference.evaluation.suites.parsing import LETTERS, bare, lettered
from inference.evaluation.suites.streamingbench.prompts import TEMPLATES
from inference.evaluation.suites.streamingbench.tasks import GROUPS, PROACTIVE, SEQUENTIAL, task_of
from inference.evaluation.suites.suite import Imported, ImportOptions
from model.errors import InputError

CONTEXT_SECONDS = 60.0
"""Of a clip, in the main table of the paper."""
AFTER_TRUTH = 4.0
"""Seconds that polls go on behind the true moment."""
TOLERANCE = 2.0
"""Seconds behind the true moment in which speaking is right."""

_FOLDERS = {"Misleading Context Recognition": "Misleading Context Understanding"}
"""Archives that have another name than the questions about their videos."""
_README_FOLDERS = {
    "Real-Time Visual Understanding": "real",
    "Sequential Question Answering": "sqa",
    "Proactive Output": "proactive",
}
"""Folders that the benchmark's guide unpacks archives into, where these bring no folder of their category."""


@dataclass(frozen=True)
class Entry:
    """One question of the release."""

    where: str
    """File and place, for messages."""
    names: tuple[str, ...]
    """What its video may be called."""
    folders: int | None
    """How many folders of such a name must be there: of the data set's files all are called video.mp4."""
    fields: Mapping[str, Any]

    @property
    def task(self) -> str:
        return task_of(take(self.fields, "task_type", str, self.where))


def load(path: Path, options: ImportOptions) -> Imported:
    """Scenarios of one annotation file, or of all in a folder.

    All questions with options about one video make one scenario. Each proactive one makes a scenario of its own, which begins
    when the question is asked, as the official clips do: asked every second until the model says yes (poll), and streamed (push).

    Raises:
        InputError: a file that is not of the release, no video at all.
    """
    files = _annotation_files(path)
    templates = load_templates(TEMPLATES, options.prompts)
    context = CONTEXT_SECONDS if options.context_seconds is None else options.context_seconds
    entries = [entry for file in files for entry in _entries(file)][: options.limit]
    videos = Videos(options.videos)
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        video = _find(videos, entry)
        if video is not None:
            found.setdefault(video, []).append(entry)
    scenarios: list[Scenario] = []
    notes: list[str] = []
    for video, asked in found.items():
        choices = [entry for entry in asked if entry.task != PROACTIVE]
        if choices:
            scenarios.append(_choices(video, choices, videos, options, templates, context))
        for number, entry in enumerate(entry for entry in asked if entry.task == PROACTIVE):
            scenario = _proactive(f"{_name(video)}#proactive{number}", video, entry, videos, options, templates)
            if scenario is None:
                notes.append(
                    f"{entry.where} is left out: its true moment lies behind the last frame of its video, or before the question"
                )
            else:
                scenarios.append(scenario)
    if any(entry.task in GROUPS["omni"] for asked in found.values() for entry in asked):
        notes.append("omni-source questions are asked of the pictures alone: there is no sound")
    manifest = make_manifest(
        "streamingbench",
        options,
        files,
        templates,
        scenarios,
        videos,
        license="not stated beside the code; see the page of the data set",
        source="https://huggingface.co/datasets/mjuicem/StreamingBench",
        context_seconds=context,
        notes=notes,
    )
    return Imported(scenarios, manifest)


def _annotation_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(path.glob("*.csv")) or sorted(path.glob("questions_*.json"))
    # The same questions again: as one entry for each video, and of a smaller release.
    kept = [file for file in found if not file.stem.endswith(("_stream", "_50"))]
    if not kept:
        raise InputError(f"{path} holds no annotations; give the folder of the CSV files, or of questions_*.json")
    return kept


def _entries(path: Path) -> Iterator[Entry]:
    if path.suffix == ".csv":
        yield from _csv_entries(path)
        return
    for number, group in enumerate(read_list(path)):
        # Sequential questions come as one list for each video.
        for one in group if isinstance(group, list) else [group]:
            where = f"{path} entry {number}"
            video = take(one, "video_path", str, where)
            for place, question in enumerate(take(one, "questions", list, where)):
                yield Entry(f"{where} question {place}", (video,), None, question)


def _csv_entries(path: Path) -> Iterator[Entry]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV ({error}); give a file of the release") from error
    for number, row in enumerate(rows, 2):
        where = f"{path} line {number}"
        identity = take(row, "question_id", str, where)
        parts = re.fullmatch(r"(.+?)_(?:sample_)?(\d+)_\d+", identity)
        if parts is None:
            raise InputError(f"{where}: question_id is {identity!r}; it must be of the form CATEGORY_sample_N_K")
        fields: dict[str, Any] = dict(row)
        if "options" in row:
            fields["options"] = _listed(row["options"], where)
        category, sample = parts[1], parts[2]
        spaced = category.replace("_", " ")
        names = [_README_FOLDERS.get(spaced, spaced), _FOLDERS.get(category, category), category, spaced]
        yield Entry(where, tuple(f"{name}/sample_{sample}/video.mp4" for name in dict.fromkeys(names)), 2, fields)


def _listed(text: str, where: str) -> list[str]:
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise InputError(f"{where}: options is {text[:60]!r}; it must be a list of texts") from error
    return texts({"options": found}, "options", where)


def _find(videos: Videos, entry: Entry) -> str | None:
    for name in entry.names[:-1]:
        found = videos.look(name, entry.folders)
        if found is not None:
            return found
    return videos.find(entry.names[-1], entry.folders)


def _name(video: str) -> str:
    return re.sub(r"\.[^./]+$", "", video)


def _choices(
    video: str, entries: list[Entry], videos: Videos, options: ImportOptions, templates: Mapping[str, str], context: float
) -> Scenario:
    """All questions with options about one video, in the order of the release."""
    questions: list[Question] = []
    before: list[str] = []
    for entry in entries:
        question, turn = _question(entry, templates, context, before)
        questions.append(question)
        if entry.task == SEQUENTIAL:
            before.append(turn)
    last = max(question.t or 0.0 for question in questions)
    return Scenario(
        id=_name(video),
        suite="streamingbench",
        fps=options.fps,
        num_frames=max(1, videos.frames(video, options.fps, until=last)),
        video=video,
        questions=questions,
        source="StreamingBench",
    )


def _question(entry: Entry, templates: Mapping[str, str], context: float, before: list[str]) -> tuple[Question, str]:
    """A question, and the turn that later sequential questions have before them."""
    where, fields = entry.where, entry.fields
    asked = take(fields, "question", str, where)
    choices = lettered(texts(fields, "options", where))
    answer = take(fields, "answer", str, where).strip()
    if len(choices) < 2 or answer not in LETTERS[: len(choices)] or len(answer) != 1:
        raise InputError(f"{where}: answer is {answer!r} of {len(choices)} options; it must be the letter of one of them")
    t = seconds_of(take(fields, "time_stamp", str, where), where)
    template = "sequential" if entry.task == SEQUENTIAL and before else "choice"
    text = templates[template].format(question=asked, options="\n".join(choices), context=" ".join(before))
    turn = templates["sequential_turn"].format(
        time=fields["time_stamp"], question=asked, options="; ".join(choices), answer=answer
    )
    return (
        Question(
            text=text,
            answer=answer,
            kind=entry.task,
            t=t,
            choices=[bare(choice) for choice in choices],
            since=t - context if t > context else None,
            meta={"question": asked},
        ),
        turn,
    )


def _proactive(
    name: str, video: str, entry: Entry, videos: Videos, options: ImportOptions, templates: Mapping[str, str]
) -> Scenario | None:
    """One proactive question; None where the video ends before its moment."""
    where, fields = entry.where, entry.fields
    asked, output = (take(fields, field, str, where) for field in ("question", "ground_truth_output"))
    begin, truth = (seconds_of(take(fields, n, str, where), where) for n in ("time_stamp", "ground_truth_time_stamp"))
    due = truth - begin
    frames = videos.frames(video, options.fps, begin=begin, until=truth + AFTER_TRUTH)
    if due < 0 or frames < 1 or due > (frames - 1) / options.fps:
        return None
    meta = {"due": due, "output": output}
    poll = Poll(
        text=templates["poll"].format(question=asked, output=output),
        begin=1.0,
        end=due + AFTER_TRUTH,
        then=templates["poll_then"].format(question=asked),
        prompt=0,
        meta=meta,
    )
    return Scenario(
        id=name,
        suite="streamingbench",
        fps=options.fps,
        num_frames=frames,
        video=video,
        begin=begin,
        prompts=[PromptEvent(t=0.0, text=templates["push"].format(question=asked))],
        spans=[Span(a=due, b=due + TOLERANCE, text=output, kind="answer", prompt=0, meta=meta)],
        polls=[poll],
        source="StreamingBench",
    )
