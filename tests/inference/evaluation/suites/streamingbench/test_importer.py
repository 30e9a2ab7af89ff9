"""Both releases of StreamingBench become the same scenarios."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from inference.evaluation.schema import Poll, PromptEvent, Span
from inference.evaluation.storage import load_scenarios, save_scenarios
from inference.evaluation.suites.streamingbench import SUITE
from inference.evaluation.suites.streamingbench.importer import load
from inference.evaluation.suites.suite import ImportOptions
from model.errors import InputError
from tests.inference.clips import write_clip

OPTIONS = ["A red one.", "A blue one.", "None.", "Two."]


def _question(task: str, text: str, t: str, answer: str = "B") -> dict[str, Any]:
    return {"task_type": task, "question": text, "time_stamp": t, "answer": answer, "options": OPTIONS, "required_ability": "x"}


PROACTIVE = {
    "task_type": "Proactive Output",
    "question": 'When the lamp is lit, output "lamp".',
    "time_stamp": "00:00:02",
    "ground_truth_time_stamp": "00:00:05",
    "ground_truth_output": "lamp",
}
LATE = {**PROACTIVE, "ground_truth_time_stamp": "00:01:30"}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up questions in both forms, and 12 s of video for them."""
    root = tmp_path_factory.mktemp("sb")
    real = [
        {"time": "x", "questions": [_question("Object Recognition", "What?", "00:00:04")], "video_path": "./videos/a_real.mp4"},
        {"time": "x", "questions": [_question("Counting", "How many?", "00:01:10", "C")], "video_path": "./videos/a_real.mp4"},
        {"time": "x", "questions": [_question("Counting", "How many?", "00:00:03")], "video_path": "./videos/gone_real.mp4"},
    ]
    turns = [("Who?", "00:00:03"), ("And now?", "00:00:06"), ("Still?", "00:00:09")]
    sqa = [[{"questions": [_question("Sequential Question Answering", *turn)], "video_path": "b_sqa.mp4"} for turn in turns]]
    proactive = [{"questions": [PROACTIVE, LATE], "video_path": "c_proactive.mp4"}]
    for name, content in (("real", real), ("sqa", sqa), ("proactive", proactive), ("proactive_50", proactive)):
        (root / f"questions_{name}.json").write_text(json.dumps(content))
    clip = write_clip(root / "videos" / "a_real.mp4", [20] * 24, fps=2)
    for name in ("b_sqa.mp4", "c_proactive.mp4"):
        (root / "videos" / name).write_bytes(clip.read_bytes())
    return root


def test_json_release(release: Path, tmp_path: Path) -> None:
    found = load(release, ImportOptions(videos=release / "videos", fps=2.0, release="v1"))
    proactive, real, sequential = found.scenarios
    assert [question.kind for question in real.questions] == ["object_perception", "counting"]
    what, how_many = real.questions
    # 70 s less the context of 60 s is 10 s; the video ends before, its last frame at 11.5 s is shown.
    assert (what.t, what.since, how_many.t, how_many.since) == (4.0, None, 70.0, 10.0) and real.num_frames == 24
    assert what.answer == "B" and what.choices == OPTIONS
    assert "Question: What?" in what.text and "\nA. A red one.\nB. A blue one.\n" in what.text
    last = sequential.questions[2].text
    assert "At 00:00:03 somebody asked: Who?" in last and "And now?" in last and last.count("The right answer was B.") == 2
    assert "somebody asked" not in sequential.questions[0].text and sequential.num_frames == 19  # 0, 0.5, … 9 s
    assert (proactive.begin, proactive.num_frames) == (2.0, 15)  # 2 to 9 s: true at 5 s, and 4 s more
    meta = {"due": 3.0, "output": "lamp"}
    assert proactive.prompts == [PromptEvent(t=0.0, text=PROACTIVE["question"])]
    assert proactive.spans == [Span(a=3.0, b=5.0, text="lamp", kind="answer", prompt=0, meta=meta)]
    (poll,) = proactive.polls
    assert isinstance(poll, Poll) and (poll.begin, poll.end, poll.step, poll.stop, poll.prompt) == (1.0, 7.0, 1.0, "yes", 0)
    assert 'say "lamp"?' in poll.text and "lamp" in poll.then
    manifest = found.manifest
    assert manifest.missing_videos == ["./videos/gone_real.mp4"] and manifest.context_seconds == 60.0
    assert sorted(manifest.annotations) == ["questions_proactive.json", "questions_real.json", "questions_sqa.json"]
    assert len(manifest.notes) == 1 and "question 1 is left out: its true moment lies behind the last frame" in manifest.notes[0]
    save_scenarios(tmp_path / "s.jsonl", found.scenarios)
    assert load_scenarios(tmp_path / "s.jsonl") == found.scenarios
    assert SUITE.load is load


def test_csv_release(release: Path, tmp_path: Path) -> None:
    clip = (release / "videos" / "a_real.mp4").read_bytes()
    folders = ["Real-Time Visual Understanding_1-50", "Misleading Context Understanding", "Proactive Output"]
    for folder in folders:
        (tmp_path / "videos" / folder / "sample_3").mkdir(parents=True)
        (tmp_path / "videos" / folder / "sample_3" / "video.mp4").write_bytes(clip)
    choice = _question("Object Perception", "What?", "00:00:04") | {"options": str(OPTIONS)}
    rows = [
        choice | {"question_id": "Real-Time Visual Understanding_sample_3_1"},
        choice | {"question_id": "Misleading Context Recognition_sample_3_1", "task_type": "Misleading Context Recognition"},
        choice | {"question_id": "Scene Understanding_sample_3_1", "task_type": "Scene Understanding"},
    ]
    for name, content in (("Real", rows), ("Proactive_Output", [PROACTIVE | {"question_id": "Proactive Output_sample_3_1"}])):
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(content[0]))
            writer.writeheader()
            writer.writerows(content)
    found = load(tmp_path, ImportOptions(videos=tmp_path / "videos", context_seconds=1.5))
    by_video = {scenario.video: scenario for scenario in found.scenarios}
    assert sorted(by_video) == sorted(f"{folder}/sample_3/video.mp4" for folder in folders)
    question = by_video[f"{folders[1]}/sample_3/video.mp4"].questions[0]
    assert question.kind == "misleading_context_understanding" and question.since == 2.5
    # That another folder has a sample_3 as well does not make its video this one's.
    assert found.manifest.missing_videos == ["Scene Understanding/sample_3/video.mp4"]


@pytest.mark.parametrize(
    ("category", "folder"), [("Real-Time Visual Understanding", "real"), ("Sequential Question Answering", "sqa")]
)
def test_videos_unpacked_as_the_guide_says(release: Path, tmp_path: Path, category: str, folder: str) -> None:
    place = tmp_path / "data" / folder / "sample_3"
    place.mkdir(parents=True)
    (place / "video.mp4").write_bytes((release / "videos" / "a_real.mp4").read_bytes())
    row = _question("Emotion Recognition", "How?", "00:00:04") | {
        "options": str(OPTIONS),
        "question_id": f"{category}_sample_3_1",
    }
    with (tmp_path / "q.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row)
    found = load(tmp_path / "q.csv", ImportOptions(videos=tmp_path / "data"))
    assert [scenario.video for scenario in found.scenarios] == [f"{folder}/sample_3/video.mp4"]
    assert found.manifest.notes == ["omni-source questions are asked of the pictures alone: there is no sound"]


def test_moments_behind_the_video_are_said(release: Path, tmp_path: Path) -> None:
    (tmp_path / "q.json").write_text(json.dumps([{"questions": [LATE], "video_path": "c_proactive.mp4"}]))
    with pytest.raises(InputError, match=r"nothing of the annotations can be asked: .* behind the last frame"):
        load(tmp_path / "q.json", ImportOptions(videos=release / "videos"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"questions": []}], "entry 0 has no field video_path"),
        ([{"video_path": "a_real.mp4", "questions": [{}]}], "question 0 has no field task_type"),
        ([{"video_path": "a_real.mp4", "questions": [_question("Counting", "?", "soon")]}], "time is 'soon'"),
        ([{"video_path": "a_real.mp4", "questions": [_question("Counting", "?", "00:01", "E")]}], "answer is 'E' of 4 options"),
        ([{"video_path": "none.mp4", "questions": [_question("Counting", "?", "00:01")]}], "none of the 1 videos was found"),
    ],
)
def test_what_is_wrong_is_named(release: Path, tmp_path: Path, content: Any, message: str) -> None:
    (tmp_path / "q.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        load(tmp_path / "q.json", ImportOptions(videos=release / "videos"))


def test_a_folder_without_annotations(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no annotations"):
        load(tmp_path, ImportOptions(videos=tmp_path))
