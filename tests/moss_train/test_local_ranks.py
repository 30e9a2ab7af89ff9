"""Starting and ending ranks, with small modules instead of training."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from model.errors import InputError
from moss_train.parallel.local_ranks import start_local_ranks


def _module(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> str:
    (folder / "rank_module.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    return "rank_module"


def test_each_rank_gets_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = _module(
        tmp_path,
        "import os, sys, pathlib\n"
        "names = ['RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'LOCAL_WORLD_SIZE', 'MASTER_ADDR', 'OMP_NUM_THREADS']\n"
        "pathlib.Path(sys.argv[1], os.environ['RANK']).write_text(' '.join(os.environ[n] for n in names))\n",
        monkeypatch,
    )
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert start_local_ranks(3, module, [str(tmp_path)]) == 0
    for rank in range(3):
        assert (tmp_path / str(rank)).read_text() == f"{rank} {rank} 3 3 127.0.0.1 3"


def test_one_failure_ends_the_others_with_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = _module(
        tmp_path, "import os, sys, time\nsys.exit(7) if os.environ['RANK'] == '1' else time.sleep(60)\n", monkeypatch
    )
    begin = time.monotonic()
    assert start_local_ranks(2, module, []) == 7
    assert time.monotonic() - begin < 20


def test_killed_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """It cannot say why it ended, and the others only know that it did."""
    text = "import os, signal, time\nif os.environ['RANK'] == '1': os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(60)\n"
    module = _module(tmp_path, text, monkeypatch)
    assert start_local_ranks(2, module, []) == 137
    assert "moss: rank 1 was ended by SIGKILL; most often the machine's memory was used up" in capfd.readouterr().err


def test_ranks_have_time_to_save_and_a_second_sigterm_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = tmp_path / "ready"
    module = _module(
        tmp_path,
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: None)\n"
        "pathlib.Path(sys.argv[1]).touch()\n"
        "time.sleep(60)\n",
        monkeypatch,
    )

    def ask_twice() -> None:
        while not ready.exists():
            time.sleep(0.05)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1.0)

    threading.Thread(target=ask_twice, daemon=True).start()
    begin = time.monotonic()
    assert start_local_ranks(1, module, [str(ready)]) == 128 + signal.SIGTERM
    assert 1.0 <= time.monotonic() - begin < 20


def test_no_rank() -> None:
    with pytest.raises(InputError, match="--nproc-per-node is 0"):
        start_local_ranks(0, "nothing", [])


class _Third(subprocess.Popen):  # type: ignore[type-arg]
    """Real processes; something happens when the third is asked for."""

    started: ClassVar[list[subprocess.Popen[bytes]]] = []
    happens: ClassVar[Callable[[], None]]

    def __init__(self, *args: Any, **named: Any) -> None:
        if len(self.started) == 2:
            type(self).happens()
        super().__init__(*args, **named)
        self.started.append(self)


def _refuse() -> None:
    raise OSError(errno.EAGAIN, "Resource temporarily unavailable")


@pytest.mark.parametrize("what", ["signal", "refused"])
def test_what_happens_while_ranks_are_started_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    module = _module(tmp_path, "import time\ntime.sleep(60)\n", monkeypatch)
    _Third.started.clear()
    _Third.happens = _refuse if what == "refused" else lambda: signal.raise_signal(signal.SIGTERM)
    monkeypatch.setattr(subprocess, "Popen", _Third)
    begin = time.monotonic()
    if what == "refused":
        with pytest.raises(OSError, match="temporarily unavailable"):
            start_local_ranks(5, module, [])
    else:
        assert start_local_ranks(5, module, []) == 128 + signal.SIGTERM
    assert len(_Third.started) == (2 if what == "refused" else 3)
    assert all(process.poll() is not None for process in _Third.started) and time.monotonic() - begin < 20
