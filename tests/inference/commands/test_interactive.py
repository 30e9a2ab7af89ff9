"""`moss stream --interactive` on a real pseudo-terminal: typing, stopping, asking and quitting while it runs."""

from __future__ import annotations

import os
import pty
import re
import signal
import sys
import termios
import threading
import time
from pathlib import Path

import pytest

from inference.evaluation.storage import load_traces
from inference.realtime_streaming_infer import QUEUE_POLICIES
from inference.session.queue_policies import QUEUE_POLICIES as POLICIES
from moss_train.cli.main import main as moss
from tests.inference.checkpoints import random_tensors, tiny_config, tiny_tokenizer, write_checkpoint
from tests.inference.clips import write_clip


class Screen:
    """What a terminal shows, read from its other side; and keys for it."""

    def __init__(self, master: int) -> None:
        self.master = master
        self.shown = ""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self.master, 65536)
            except OSError:
                return
            self.shown += data.decode("utf-8", "replace")

    @property
    def text(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.shown)

    def wait_for(self, pattern: str, seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not re.search(pattern, self.text):
            assert time.monotonic() < end, f"{pattern} did not show in {self.text[-2000:]!r}"
            time.sleep(0.02)

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def close(self) -> None:
        """When nobody has the other side open: a thread that read on would read the next file that gets the number."""
        self._thread.join(10)
        assert not self._thread.is_alive()
        os.close(self.master)


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("interactive")
    tokenizer = tiny_tokenizer()
    config = tiny_config(tokenizer.vocab_size)
    tensors = random_tensors(config, seed=11)
    tensors["language_model.lm_head.weight"][tokenizer.silence_id] *= 5
    write_checkpoint(root / "realtime", config, tokenizer=tokenizer, tensors=tensors, stage="sft_realtime")
    write_clip(root / "clip.mp4", [20, 90, 160, 230, 40, 120] * 40, fps=4)
    return ["stream", "--checkpoint", str(root / "realtime"), "--source", str(root / "clip.mp4"), "--fps", "4", "--interactive"]


def test_a_person_types_stops_asks_and_quits(arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (40, 200))
    before = termios.tcgetattr(slave)
    screen = Screen(master)
    failures: list[BaseException] = []

    def person() -> None:
        try:
            screen.wait_for(r"frames \d")
            screen.type("what colo")
            screen.wait_for("> what colo")
            screen.type("ur ?\r")
            screen.wait_for(r"user: what colour \?")
            screen.type("\x1b")
            screen.wait_for(r"\(stopped\)")
            screen.type("/help\r")
            screen.wait_for("Esc or /stop")
        except BaseException as error:
            failures.append(error)
        finally:
            screen.type("/quit\r")

    with os.fdopen(os.dup(slave), "r") as keys, os.fdopen(os.dup(slave), "w") as display:
        monkeypatch.setattr(sys, "stdin", keys)
        monkeypatch.setattr(sys, "stdout", display)
        monkeypatch.setenv("TERM", "xterm-256color")
        helper = threading.Thread(target=person)
        helper.start()
        more = ["--tokens_per_second", "40", "--show_frames", "--queue_policy", "block", "--max_pending_frames", "1"]
        code = moss([*arguments, *more, "--trace", str(tmp_path / "t.jsonl")])
        helper.join()
        display.flush()
        assert termios.tcgetattr(slave) == before
    os.close(slave)
    screen.close()
    assert not failures and code == 0, failures
    (trace,) = load_traces(tmp_path / "t.jsonl")
    kinds = [event.kind for event in trace.events]
    assert kinds.index("prompt") < kinds.index("stop") < kinds.index("end") and trace.engine["end"] == "quit"
    assert "▀" in screen.shown
    assert not trace.engine["frames"]["dropped"].get("backlog")  # a source waits under `block`


def test_ctrl_c_ends_it_as_quitting_does(arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    growing = tmp_path / "t.jsonl.part"

    def interrupt() -> None:
        while not (growing.exists() and "frame_done" in growing.read_text()):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        threading.Thread(target=interrupt, daemon=True).start()
        assert moss([*arguments, "--trace", str(tmp_path / "t.jsonl"), "--srt", str(tmp_path / "t.srt")]) == 130
    assert load_traces(tmp_path / "t.jsonl")[0].engine["end"] == "interrupted" and (tmp_path / "t.srt").is_file()
    assert signal.getsignal(signal.SIGINT) is before


def test_the_help_names_the_policies_that_there_are() -> None:
    assert set(QUEUE_POLICIES) == set(POLICIES)
