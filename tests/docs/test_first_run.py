"""docs/first-run-11b.md, followed command by command: a tiny random model, four small files of rows and two CPU ranks stand for
the weights, the data and the eight GPUs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from inference import offline_infer
from moss_train.checkpoint.description import read_description
from moss_train.cli.main import main
from tests.data_pipeline.helpers import grey_levels, make_image, make_video
from tests.pages import blocks, commands
from tests.ranks import REPOSITORY, Launch

pytestmark = pytest.mark.ranks

PAGE = REPOSITORY / "docs" / "first-run-11b.md"
RANKS = 2
TINY = (
    "model=tiny", "precision=fp32", "device=cpu", "stage.sequence_length=128", "stage.max_frames_per_pack=16",
    "data.global_data_workers=2", "train.global_batch_size=2", "train.eval_every=0", "logging.report=false",
)  # fmt: skip
STREAMED = ("--virtual_clock", "--device", "cpu", "--max_new_tokens", "20")


def write_rows(folder: Path) -> None:
    """The files that the page's registry names, and their media."""
    (folder / "media").mkdir(parents=True)
    for number in (1, 2, 3):
        (folder / "media" / f"{number}.mp4").write_bytes(make_video(grey_levels(24, 10 * number, 4)))
    for number, name in enumerate(("cat", "cup")):
        (folder / "media" / f"{name}.jpg").write_bytes(make_image(colour=(90 * number, 80, 80), form="JPEG"))
    silent = "<video><|silence|>"
    info = "[RealTime QA][INFO]"
    rows = {
        "captions_image": [(f"<image>a {name}.", {"images": [f"media/{name}.jpg"]}) for name in ("cat", "cup")],
        "captions_video": [(f"<video>it is clip {n}.", {"videos": [f"media/{n}.mp4"]}) for n in (1, 2, 3)],
        "dialogues": [
            (
                f"{silent}<video>it grows.<|silence|>{silent}",
                {
                    "videos": [
                        info + json.dumps({"video_path": f"media/{n}.mp4", "time_info": ["00:00", "00:01", "00:02"]}),
                        *["[RealTime QA][PLACEHOLDER]"] * 2,
                    ]
                },
            )
            for n in (1, 2)
        ],
    }
    for name, answers in rows.items():
        asked = "what do you see?" if name == "dialogues" else ""
        content = [
            {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}], **media}
            for answer, media in answers
        ]
        (folder / f"{name}.json").write_text(json.dumps(content))
    (folder / "chat.json").write_text(json.dumps([{"instruction": f"count to {n}", "output": "one two"} for n in (2, 3)]))


def small(words: Sequence[str], steps: int) -> list[str]:
    """A command line of the page for the tiny model: all that it says but for sizes and numbers of ranks and steps."""
    if words[1:3] == ["data", "tokenizer"]:
        assert words[4] == "--llama"
        return [*words[:4], "words.txt", "--vocab-size", "1000"]
    if words[1] == "stream":
        return [*words, *STREAMED]
    if words[0] == "python":
        return [*words, "--device", "cpu", "--max_new_tokens", "4"]
    if words[1] == "preflight":
        kept = [word for word in words if not word.startswith("launcher.nproc_per_node=")]
        return [*kept, *TINY, f"launcher.nproc_per_node={RANKS}", "launcher.preflight.allreduce_mib=1"]
    if words[1] != "train":
        return list(words)
    kept = [str(RANKS) if word == "8" else word for word in words if not word.startswith("train.steps=")]
    return [*kept, *TINY, f"train.steps={steps}"]


def run(words: Sequence[str], launch: Launch) -> str:
    """Run it as it would be run; returns what its ranks said."""
    if words[0] == "python":
        assert words[2] == "inference.offline_infer"
        assert offline_infer.main(list(words[3:])) == 0
        return ""
    if words[1] == "launch":  # becomes another program
        assert "--dry-run" in words
        done = subprocess.run(
            [sys.executable, "-m", "moss_train.cli.main", *words[1:]], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout
    if "--nproc-per-node" in words:
        code, said = launch(RANKS, lambda: main(list(words[1:])))
        assert code == 0, said
        return said
    assert main(list(words[1:])) == 0
    return ""


def test_the_page_leads_from_weights_and_a_registry_to_a_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launch: Launch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["convert", "random", "tiny", "models/llama"]) == 0
    write_rows(tmp_path / "data")
    (tmp_path / "data" / "dataset_info.json").write_text(blocks(PAGE, "json")[0])
    (tmp_path / "my_conf" / "data").mkdir(parents=True)
    (tmp_path / "my_conf" / "data" / "mine.yaml").write_text(blocks(PAGE, "yaml")[0])
    (tmp_path / "words.txt").write_text(
        "a cat and a cup . it is clip one two three . what do you see ? it grows . count to\n" * 20
    )
    steps: dict[str, int] = {}
    said: dict[str, str] = {}
    for words in commands(PAGE):
        folder = next((word.partition("=")[2] for word in words if word.startswith("run_dir=")), "")
        said[" ".join(words)] = run(small(words, steps.get(folder, 1)), launch)
        if words[1] == "train" and "--nproc-per-node" in words:
            steps[folder] = steps.get(folder, 1) + 1  # given again it has something left to do
    trained = {folder: read_description(newest(tmp_path / folder)) for folder in steps}
    assert {folder: (found.stage["name"], found.step) for folder, found in trained.items()} == {
        "runs/pt1_try": ("pt1", 1),
        "runs/pt1": ("pt1", 2),
        "runs/pt2": ("pt2", 1),
        "runs/sft_offline": ("sft_offline", 1),
        "runs/sft_realtime": ("sft_realtime", 1),
    }
    again = [text for line, text in said.items() if "run_dir=runs/pt1 " in line and "--nproc-per-node" in line]
    assert "continues behind step 1" in again[-1]
    assert (tmp_path / "runs" / "pt1" / "report.html").is_file() and (tmp_path / "captions_video.html").is_file()
    verified = json.loads((tmp_path / "hf" / "realtime" / "certificate.json").read_text())["verification"]
    assert verified["tensors"] and not verified["differing"] and verified["logits"]
    events = json.loads((tmp_path / "out.jsonl").read_text())["events"]
    assert {"frame_in", "prompt", "token"} <= {event["kind"] for event in events}
    assert "4 entries imported, 0 failed, 0 skipped" in capfd.readouterr().out


def newest(folder: Path) -> Path:
    return folder / "checkpoints" / (folder / "latest").read_text().strip()
