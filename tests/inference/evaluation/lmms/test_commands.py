"""lmms-eval's own command with our entry point: both adapters, a task of several rounds, a task of choices."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from inference.engine import StepEngine
from inference.evaluation.published.beside import beside, read_results
from inference.evaluation.published.table import PublishedRow, PublishedTable, load_table
from inference.evaluation.running.runner import ScenarioRunner
from inference.evaluation.running.settings import RunSettings
from inference.evaluation.schema import Question, Scenario
from inference.model.load import load_model
from inference.offline import Answerer, question_rows
from inference.sources.media import read_media
from tests.inference.checkpoints import tiny_tokenizer
from tests.inference.clips import write_clip
from tests.inference.evaluation.lmms.made_up import write_tasks
from tests.inference.evaluation.speaking import write_speaking

pytestmark = [pytest.mark.xdist_group("lmms"), pytest.mark.timeout(300)]

REPOSITORY = Path(__file__).resolve().parents[4]
QUESTIONS = ("what colour is the ball ?", "left or right ?", "what turns yellow ?")
ALIAS = "moss_video_preview"


def lmms_folder() -> Path:
    """Where `make install` put lmms-eval, unless the environment has it.

    A machine without it fails here, and skips nothing.
    """
    folder = Path(sys.prefix) / "lmms"
    if importlib.util.find_spec("lmms_eval") is None and not (folder / "lmms_eval").is_dir():
        pytest.fail("lmms-eval is not installed; run `make install`")
    return folder


@dataclass
class Runs:
    """What lmms-eval said, and what our own code says of the same questions."""

    answers: dict[str, list[str]]
    """By video: our runner's."""
    talks: dict[str, list[str]]
    likelihoods: dict[str, list[float]]
    chat: dict[str, Any]
    simple: dict[str, Any]
    samples: dict[str, list[dict[str, Any]]]
    """By adapter and task: what was logged of each document."""
    known: dict[str, Any]
    """What lmms-eval's task manager finds of the published table."""
    file: Path
    """The chat adapter's results."""


class Ours:
    """The same checkpoint without lmms-eval."""

    def __init__(self, checkpoint: Path, folder: Path) -> None:
        self.tokenizer = tiny_tokenizer()
        self.engine = StepEngine(load_model(checkpoint, "cpu"))
        self.folder = folder

    def answers(self, video: str) -> list[str]:
        questions = [Question(text=text, t=7.0, answer="", kind="made_up") for text in QUESTIONS]
        scenario = Scenario(id=video, video=video, fps=1.0, num_frames=8, questions=questions)
        settings = RunSettings(max_answer_tokens=6, modes=("offline",))
        (trace,) = ScenarioRunner(self.engine, self.tokenizer, self.folder, settings, strict=True).run([scenario])[0]
        return trace.answers

    def pictures(self, names: list[str], question: str) -> str:
        """Two pictures before the text; the task ends answers before "ap"."""
        frames = torch.cat([read_media(None, str(self.folder / n), 28, fps=1.0, min_frames=1, max_frames=1) for n in names])
        rows = question_rows(question, len(names), self.tokenizer)
        reply = Answerer(self.engine, self.tokenizer, max_new_tokens=6).reply(rows, frames)
        return self.tokenizer.decode(reply, skip_special=True).split("ap")[0].strip()

    def talk(self, video: str, questions: list[str]) -> list[str]:
        """Every round is a question of its own here; the later ones hold the beginning of what was said before."""
        said: list[str] = []
        for number, question in enumerate(questions):
            said.append(self._ask(video, question + said[-1][:3] if number else question))
        return said

    def _ask(self, video: str, question: str) -> str:
        rows = question_rows(question, 8, self.tokenizer)
        reply = Answerer(self.engine, self.tokenizer, max_new_tokens=6).reply(rows, self._frames(video))
        return self.tokenizer.decode(reply, skip_special=True).strip()

    def likelihood(self, video: str, question: str, option: str) -> float:
        """From one pass over the whole sequence, without a fork."""
        rows, ids = question_rows(question, 8, self.tokenizer), self.tokenizer.encode(option)
        cache = self.engine.new_cache()
        logits = self.engine.step(cache, [*rows, *ids], self.engine.encode(self._frames(video)), every_row=True)
        scores = logits.log_softmax(-1)
        return float(sum(scores[len(rows) - 1 + i, token] for i, token in enumerate(ids)))

    def _frames(self, video: str) -> Any:
        return read_media(str(self.folder / video), None, 28, fps=1.0, min_frames=8, max_frames=16)


OPTIONS = ["red ball", "yellow", "left right up down"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """All of it, in one process of lmms-eval."""
    folder = tmp_path_factory.mktemp("lmms")
    checkpoint = write_speaking(folder / "hf")
    videos = ["dark.mp4", "bright.mp4"]
    write_clip(folder / videos[0], [8, 20, 30, 40, 50, 60, 70, 80])
    write_clip(folder / videos[1], [250, 200, 150, 100, 150, 200, 250, 20])
    ours = Ours(checkpoint, folder)
    answers = {video: ours.answers(video) for video in videos}
    talks = {video: ours.talk(video, list(QUESTIONS[:2])) for video in videos}
    likelihoods = {video: [ours.likelihood(video, QUESTIONS[0], option) for option in OPTIONS] for video in videos}
    for name, colour in (("red.png", (220, 30, 20)), ("blue.png", (10, 40, 230))):
        Image.new("RGB", (40, 20), colour).save(folder / name)
    shown = [["red.png", "blue.png"], ["blue.png", "red.png"]]
    looked = [ours.pictures(names, QUESTIONS[0]) for names in shown]
    assert looked[0] != looked[1], "the checkpoint looks at the order of pictures"
    pictures: list[dict[str, Any]] = [
        {"pictures": [str(folder / name) for name in names], "question": QUESTIONS[0], "answer": answer}
        for names, answer in zip(shown, looked, strict=True)
    ]
    # The truth is what our runner says, but for two of six questions, one of four rounds and one of two choices.
    asked = [(video, i) for i in range(3) for video in videos]  # the questions about one video do not stand together
    wrong = {(videos[0], 1), (videos[1], 2)}
    questions: list[dict[str, Any]] = [
        {
            "video": str(folder / v),
            "question": QUESTIONS[i],
            "answer": "something else" if (v, i) in wrong else answers[v][i],
        }
        for v, i in asked
    ]
    rounds: list[dict[str, Any]] = [
        {
            "video": str(folder / v),
            "questions": list(QUESTIONS[:2]),
            "answers": [talks[v][0], talks[v][1] if v == videos[0] else "-"],
        }
        for number, v in enumerate(videos)
    ]
    choices: list[dict[str, Any]] = [
        {
            "video": str(folder / v),
            "question": QUESTIONS[0],
            "options": OPTIONS,
            "right": (likelihoods[v].index(max(likelihoods[v])) + (v == videos[1])) % 3,
        }
        for v in videos
    ]
    write_tasks(folder / "tasks", {"questions": questions, "pictures": pictures, "talks": rounds, "choices": choices})
    arguments = f"checkpoint={checkpoint},device=cpu,dtype=fp32,fps=1,max_frames=16"
    common = ["--model_args", arguments, "--include_path", str(folder / "tasks"), "--log_samples", "--verbosity", "DEBUG"]
    lines = [
        ["--model", "moss_video", "--tasks", "made_up", *common, "--output_path", str(folder / "chat")],
        [
            "--model",
            ALIAS,
            "--tasks",
            "made_up,made_up_choices",
            "--force_simple",
            *common,
            "--output_path",
            str(folder / "simple"),
        ],
    ]
    (folder / "lines.json").write_text(json.dumps(lines))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(lmms_folder()), str(REPOSITORY)]),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(folder / "home"),
        "LMMS_EVAL_HOME": str(folder / "home"),
        "WANDB_MODE": "offline",
    }
    script = Path(__file__).with_name("commands.py")
    done = subprocess.run(
        [sys.executable, str(script), str(folder / "lines.json"), str(folder / "known.json")],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-6000:]
    results, samples, files = {}, {}, {}
    for adapter in ("chat", "simple"):
        (files[adapter],) = (folder / adapter).rglob("*_results.json")
        results[adapter] = json.loads(files[adapter].read_text())
        for path in (folder / adapter).rglob("*_samples_*.jsonl"):
            samples[f"{adapter} {path.stem.split('_samples_')[1]}"] = [json.loads(line) for line in path.read_text().splitlines()]
    known = json.loads((folder / "known.json").read_text())
    return Runs(answers, talks, likelihoods, results["chat"], results["simple"], samples, known, files["chat"])


def _score(results: dict[str, Any], task: str, metric: str = "right") -> float:
    return float(results["results"][task][f"{metric},none"])


def test_both_adapters_score_as_our_runner_does(runs: Runs) -> None:
    """Six questions, of which two have another truth than our runner's answer: 4/6."""
    assert runs.answers["dark.mp4"] != runs.answers["bright.mp4"], "the checkpoint looks at its frames"
    assert _score(runs.chat, "made_up_questions") == pytest.approx(4 / 6)
    assert _score(runs.simple, "made_up_questions") == pytest.approx(4 / 6)


def test_answers_come_in_the_order_of_the_requests(runs: Runs) -> None:
    """Answered video by video, returned question by question."""
    for adapter in ("chat", "simple"):
        logged = sorted(runs.samples[f"{adapter} made_up_questions"], key=lambda sample: int(sample["doc_id"]))
        said = [sample["filtered_resps"] for sample in logged]
        assert said == [runs.answers[video][i] for i in range(3) for video in ("dark.mp4", "bright.mp4")]


def test_several_pictures_in_their_order(runs: Runs) -> None:
    """Two documents of two pictures each, whose truth is what our own code says: 1."""
    assert _score(runs.chat, "made_up_pictures") == pytest.approx(1.0)
    assert _score(runs.simple, "made_up_pictures") == pytest.approx(1.0)


def test_rounds_go_on_from_what_was_said(runs: Runs) -> None:
    """Two conversations of two rounds, one of whose four answers has another truth: (2/2 + 1/2) / 2."""
    assert runs.talks["dark.mp4"] != runs.talks["bright.mp4"]
    assert _score(runs.chat, "made_up_talks") == pytest.approx(0.75)
    assert _score(runs.simple, "made_up_talks") == pytest.approx(0.75)


def test_the_likeliest_choice_is_chosen(runs: Runs) -> None:
    """Two documents; the truth of the second is the choice behind the likeliest: 1/2."""
    assert _score(runs.simple, "made_up_choices", "acc") == pytest.approx(0.5)


def test_token_counts_are_reported(runs: Runs) -> None:
    logged = runs.samples["chat made_up_questions"]
    assert all(sample["token_counts"][0]["input_tokens"] > 8 for sample in logged), logged[0]
    assert all(0 <= sample["token_counts"][0]["output_tokens"] <= 6 for sample in logged)


def test_results_stand_beside_published_figures(runs: Runs) -> None:
    """The file that lmms-eval wrote: 4/6 in percent beside 60."""
    row = PublishedRow("made up", "video", "made_up_questions", "right", "none", 100.0, {"theirs": 60.0})
    (found,) = beside(PublishedTable("", "", "", "", ["theirs"], [row]), [read_results(runs.file)])
    assert found.ours == pytest.approx(100 * 4 / 6)
    assert found.above("theirs") == pytest.approx(100 * 4 / 6 - 60)
    assert (found.samples, found.complete) == (6, True)


def test_lmms_eval_knows_the_published_tasks(runs: Runs) -> None:
    known = runs.known
    assert known["unknown"] == []
    assert known["group"] == ["moss_published"]
    assert known["members"] == load_table().tasks


def test_the_task_of_sub_questions_works(runs: Runs) -> None:
    """Its functions are lmms-eval's: the prompt is made, 3.0 is 3 and four is not."""
    assert runs.known["text"].startswith("How many?")
    assert runs.known["scores"] == [1.0, 0.0]
