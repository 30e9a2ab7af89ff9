"""OmniMMI's released annotations: one JSON file for each of six tasks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inference.evaluation.schema import PromptEvent, Question, Scenario, Span
from inference.evaluation.suites.importing import Videos, load_templates, make_manifest, read_list, seconds_of, take
from inference.evaluation.suites.omnimmi.prompts import TEMPLATES
from inference.evaluation.suites.suite import Imported, ImportOptions
from model.errors import InputError

FILES = {
    "AP": "action_prediction.json",
    "SI": "speaker_identification.json",
    "SG": "dynamic_state_grounding.json",
    "MD": "multiturn_dependency_reasoning.json",
    "PA": "proactive_alerting.json",
    "PT": "proactive_turntaking.json",
}
TURNS = ("SG", "MD")
"""Tasks of several questions each."""
OVERHEARD_SECONDS = 60.0
"""Of video before talk that is overheard: the videos of this task last half an hour."""
_OVERHEARD_FRAMES = 5
"""Before the end of the video, as in the official run."""
_BLANK = "##ANSWER##"


def load(path: Path, options: ImportOptions) -> Imported:
    """Scenarios of one annotation file, by its name, or of all in a folder.

    Raises:
        InputError: a file of another name or not of the release, no video at all.
    """
    files = {task: path / name for task, name in FILES.items() if (path / name).is_file()}
    if path.is_file():
        files = {task: path for task, name in FILES.items() if path.name == name}
    if not files:
        raise InputError(f"{path} is none of {', '.join(FILES.values())}, nor a folder of them")
    templates, videos = load_templates(TEMPLATES, options.prompts), Videos(options.videos)
    entries = [(task, number, entry) for task, file in files.items() for number, entry in enumerate(read_list(file))]
    scenarios, notes = [], []
    if "MD" in files:
        notes.append(f"MD: {_BLANK} is the true answer of the question before; the official run has the model's own")
    if "PT" in files:
        notes.append(f"PT: streams are the last {OVERHEARD_SECONDS:g} s of their videos")
    for task, number, entry in entries[: options.limit]:
        where = f"{files[task]} entry {number}"
        video = videos.find(take(entry, "video", str, where))
        if video is None:
            continue
        made = _Entry(task, f"{task}/{number}", where, entry, video, videos, options, templates).scenario()
        if made is None:
            notes.append(f"{where} is left out: what is asked lies behind the end of its video")
        else:
            scenarios.append(made)
    manifest = make_manifest(
        "omnimmi",
        options,
        list(files.values()),
        templates,
        scenarios,
        videos,
        license="see the page of the data set",
        source="https://huggingface.co/datasets/ColorfulAI/OmniMMI",
        context_seconds=options.context_seconds,
        notes=notes,
    )
    return Imported(scenarios, manifest)


class _Entry:
    """One entry of a task, with what its scenario is made of."""

    def __init__(
        self,
        task: str,
        name: str,
        where: str,
        fields: Mapping[str, Any],
        video: str,
        videos: Videos,
        options: ImportOptions,
        templates: Mapping[str, str],
    ) -> None:
        self.task, self.name, self.where, self.fields, self.video = task, name, where, fields, video
        self.options, self.templates = options, templates
        self.all_frames = max(1, videos.frames(video, options.fps))

    def scenario(self) -> Scenario | None:
        if self.task == "PA":
            return self._alert()
        if self.task == "PT":
            return self._overheard()
        questions = self._turns() if self.task in TURNS else [self._single()]
        last = max(question.t or 0.0 for question in questions)
        frames = min(self.all_frames, int(last * self.options.fps + 1e-6) + 1)
        return self._make(frames, questions=questions)

    def _make(self, frames: int, **fields: Any) -> Scenario:
        return Scenario(
            id=self.name,
            suite="omnimmi",
            fps=self.options.fps,
            num_frames=frames,
            video=self.video,
            source="OmniMMI",
            meta={"task": self.task},
            **fields,
        )

    def _question(self, text: str, asked: str, answer: str, t: float) -> Question:
        context = self.options.context_seconds
        since = t - context if context is not None and t > context else None
        return Question(text=text, answer=answer, kind=self.task, t=t, since=since, meta={"question": asked})

    def _single(self) -> Question:
        asked, answer = take(self.fields, "question", str, self.where), take(self.fields, "answer", str, self.where)
        if self.task == "SI":
            t = seconds_of(self.fields.get("timestamp"), self.where)
            return self._question(self.templates["question"].format(question=asked), asked, answer, t)
        vocabulary = take(self.fields, "vocab", (list, str), self.where)
        listed = vocabulary if isinstance(vocabulary, str) else ", ".join(map(str, vocabulary))
        text = self.templates["next_step"].format(question=asked, vocabulary=listed)
        return self._question(text, asked, answer, (self.all_frames - 1) / self.options.fps)

    def _turns(self) -> list[Question]:
        """Each is asked of the clip up to the whole second at which its time span ends, as the released clips have it."""
        found: list[Question] = []
        for place, turn in enumerate(take(self.fields, "qa", list, self.where)):
            where = f"{self.where} qa {place}"
            asked, answer = take(turn, "question", str, where), take(turn, "answer", str, where)
            if found:
                asked = asked.replace(_BLANK, found[-1].answer)
            span = re.fullmatch(r"\s*[\d.]+\s*--\s*([\d.]+)\s*", take(turn, "timestamp", str, where))
            if span is None:
                raise InputError(f"{where}: timestamp is {turn['timestamp']!r}; it must be of the form BEGIN -- END")
            text = self.templates["question"].format(question=asked)
            found.append(self._question(text, asked, answer, float(int(float(span[1])))))
        if not found:
            raise InputError(f"{self.where}: qa is empty; leave the entry out")
        return found

    def _alert(self) -> Scenario | None:
        answer = take(self.fields, "answer", list, self.where)
        if len(answer) != 2:
            raise InputError(f"{self.where}: answer is {answer}; it must be a beginning and an end")
        begin, end = (seconds_of(value, self.where) for value in answer)
        if begin > end:
            raise InputError(f"{self.where}: answer is {answer}; its end must not lie before its beginning")
        if begin > (self.all_frames - 1) / self.options.fps:
            return None
        text = self.templates["alert"].format(question=take(self.fields, "question", str, self.where))
        return self._make(
            self.all_frames, prompts=[PromptEvent(t=0.0, text=text)], spans=[Span(a=begin, b=end, kind="alert", prompt=0)]
        )

    def _overheard(self) -> Scenario:
        """Talk between others near the end of a stream, to which nothing is to be said."""
        lines = [f"{key}\n{value}" for turn in take(self.fields, "conversation", list, self.where) for key, value in turn.items()]
        fps = self.options.fps
        frames = min(self.all_frames, int(OVERHEARD_SECONDS * fps) + 1)
        begin = (self.all_frames - frames) / fps
        text = self.templates["overheard"].format(conversation="\n".join(lines))
        prompt = PromptEvent(t=max(0, frames - _OVERHEARD_FRAMES) / fps, text=text)
        return self._make(frames, begin=begin, prompts=[prompt])
