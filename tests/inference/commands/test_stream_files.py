"""What a run of the streaming command leaves behind, and running it again: subtitles on the file's time, traces, replays."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inference.evaluation.storage import load_traces, save_traces
from inference.session.inbox import Inbox
from inference.sinks import TraceSink
from inference.sinks.subtitles import Utterances
from inference.streaming import _Producers
from moss_train.cli.main import main as moss
from tests.inference.checkpoints import random_tensors, tiny_config, tiny_tokenizer, write_checkpoint
from tests.inference.clips import write_clip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Random weights that say words: the rows of all that is not printable ASCII are small."""
    tokenizer = tiny_tokenizer()
    config = tiny_config(tokenizer.vocab_size)
    tensors = random_tensors(config, seed=11)
    head = tensors["language_model.lm_head.weight"]
    for token in range(config.text.vocab_size):
        text = tokenizer.decode([token])
        if not re.fullmatch(r"[A-Za-z ,.?!]+", text) and token != tokenizer.silence_id:
            head[token] *= 0.01
    head[tokenizer.silence_id] *= 1.6
    folder = tmp_path_factory.mktemp("stream_files") / "realtime"
    return str(write_checkpoint(folder, config, tokenizer=tokenizer, tensors=tensors, stage="sft_realtime"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_clip(tmp_path_factory.mktemp("stream_clip") / "a.mp4", [20, 90, 160, 230, 40, 120, 70, 250], fps=2))


def _cues(path: Path) -> list[tuple[str, str, str]]:
    pattern = r"\d+\n(\S+) --> (\S+)\n(.+?)\n\n"
    return [(a, b, " ".join(text.split())) for a, b, text in re.findall(pattern, path.read_text(encoding="utf-8"), re.S)]


def test_subtitles_of_a_file_are_on_its_time_and_the_trace_replays(
    checkpoint: str, clip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace, srt = tmp_path / "t.jsonl", tmp_path / "t.srt"
    common = ["stream", "--checkpoint", checkpoint, "--source", clip, "--fps", "2", "--cross_policy", "window:3"]
    arguments = [*common, "--virtual_clock", "--idle_timeout", "1", "--prompt", "left", "--tokens_per_second", "12"]
    arguments += ["--trace", str(trace), "--srt", str(srt)]
    assert moss(arguments) == 0
    (recorded,) = load_traces(trace)
    spoken = [event for event in recorded.events if event.kind == "token" and event.text.strip()]
    cues = _cues(srt)
    assert cues and spoken
    assert " ".join(" ".join(text for _, _, text in cues).split()) == " ".join("".join(_texts(recorded.events)).split())
    first = cues[0][0].replace(",", ".").split(":")
    assert float(first[2]) == pytest.approx(spoken[0].t, abs=1e-3)
    assert max(float(end.replace(",", ".").split(":")[2]) for _, end, _ in cues) <= 5.0 + 1e-6  # the clip's 4 s and the wait
    assert recorded.engine["session"]["policy"]["cross"] == "window:3"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.jsonl", "t.srt"]
    capsys.readouterr()
    assert moss([*common, "--replay", str(trace)]) == 0
    assert "the same to the token" in capsys.readouterr().out
    spoken[2].token = 5
    save_traces(tmp_path / "other.jsonl", [recorded])
    code = moss([*common, "--replay", str(tmp_path / "other.jsonl")])
    place = recorded.events.index(spoken[2])
    assert code == 1 and f"event {place}: recorded" in capsys.readouterr().out


def test_what_a_crash_left_replays_as_far_as_it_goes(
    checkpoint: str, clip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "t.jsonl"
    common = ["stream", "--checkpoint", checkpoint, "--source", clip, "--fps", "2"]
    assert moss([*common, "--virtual_clock", "--idle_timeout", "0", "--max_new_tokens", "30", "--trace", str(trace)]) == 0
    (recorded,) = load_traces(trace)
    sink = TraceSink(trace, dataclasses.replace(recorded, events=[]))
    for event in recorded.events[:20]:
        sink(event)
    sink.close(whole=False)
    capsys.readouterr()
    assert moss([*common, "--replay", f"{trace}.part"]) == 0
    assert "the same to the token, 20 events" in capsys.readouterr().out


def test_ctrl_c_on_a_virtual_clock_leaves_whole_files_that_replay(
    checkpoint: str, clip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace, srt = tmp_path / "t.jsonl", tmp_path / "t.srt"
    before = signal.getsignal(signal.SIGINT)

    def interrupt() -> None:
        growing = tmp_path / "t.jsonl.part"
        while not (growing.exists() and growing.read_text().count("frame_done") >= 3):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    common = ["stream", "--checkpoint", checkpoint, "--source", clip, "--fps", "2"]
    threading.Thread(target=interrupt, daemon=True).start()
    arguments = [*common, "--virtual_clock", "--idle_timeout", "3000", "--tokens_per_second", "40"]
    assert moss([*arguments, "--trace", str(trace), "--srt", str(srt)]) == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.jsonl", "t.srt"]
    (recorded,) = load_traces(trace)
    assert recorded.engine["end"] == "interrupted" and recorded.events[-1].reason == "interrupted"
    capsys.readouterr()
    assert moss([*common, "--replay", str(trace)]) == 0
    assert "the same to the token" in capsys.readouterr().out
    last = max(i for i, event in enumerate(recorded.events) if event.token is not None)
    recorded.events[last].token = 5
    save_traces(tmp_path / "other.jsonl", [recorded])
    assert moss([*common, "--replay", str(tmp_path / "other.jsonl")]) == 1


def test_a_source_that_breaks_ends_the_stream_at_once_with_its_sentence(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.full((28, 28, 3), 90, dtype=np.uint8)).save(tmp_path / "1.png")
    (tmp_path / "2.png").write_bytes(b"no picture")
    arguments = ["stream", "--checkpoint", checkpoint, "--source", str(tmp_path), "--fps", "20", "--idle_timeout", "60"]
    assert moss(arguments) == 2
    said = capsys.readouterr()
    assert "(end: source_lost)" in said.out and "2.png cannot be decoded" in said.err


def _texts(events: list[object]) -> list[str]:
    """What was said, a blank between utterances."""
    utterances = Utterances()
    return [cue.text + " " for event in events for cue in utterances.feed(event)]  # type: ignore[arg-type]


def test_a_folder_in_real_time_is_traced_and_replays(checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(6):
        Image.fromarray(np.full((28, 28, 3), 40 * number, dtype=np.uint8)).save(pictures / f"{number}.png")
    trace = tmp_path / "t.jsonl"
    common = ["stream", "--checkpoint", checkpoint, "--source", str(pictures), "--fps", "10"]
    arguments = [*common, "--idle_timeout", "0.2", "--prompt", "left", "--prompt_at", "0.25", "--max_new_tokens", "40"]
    arguments += ["--tokens_per_second", "40"]
    assert moss([*arguments, "--trace", str(trace), "--encode_on_arrival"]) == 0
    (recorded,) = load_traces(trace)
    arrived = [event.t for event in recorded.events if event.kind == "frame_in"]
    assert arrived == pytest.approx([i / 10 for i in range(6)])
    done = {event.frame: event.t for event in recorded.events if event.kind == "frame_done"}
    assert done and all(done[number] >= number / 10 for number in done)  # nothing is seen before its time
    assert recorded.engine["frames"]["submitted"] == 6 and recorded.engine["clock"] == "wall"
    capsys.readouterr()
    assert moss([*common, "--replay", str(trace)]) == 0


def test_the_world_says_its_own_prompt(checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["stream", "--checkpoint", checkpoint, "--source", "world:7", "--virtual_clock", "--tokens_per_second", "3"]
    assert moss([*arguments, "--idle_timeout", "0"]) == 0
    assert "user: " in capsys.readouterr().out


def test_an_inbox_closes_when_all_who_push_have_ended() -> None:
    inbox = Inbox(live=True)
    producers = _Producers(inbox.close)
    ends = [producers.add() for _ in range(3)]
    threads = [threading.Thread(target=end) for end in ends]
    for thread in threads[:2]:
        thread.start()
        thread.join()
    assert inbox.open
    threads[2].start()
    threads[2].join()
    assert not inbox.open
