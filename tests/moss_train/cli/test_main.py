"""The table of sub-commands, exit codes and what is imported when."""

from __future__ import annotations

import errno
import subprocess
import sys
import types
from pathlib import Path

import pytest

from model.errors import InputError
from moss_train.cli import main as cli


def _command(monkeypatch: pytest.MonkeyPatch, run: object) -> None:
    module = types.ModuleType("a_command")
    module.add_arguments = lambda parser: parser.add_argument("--number", type=int, default=0)  # type: ignore[attr-defined]
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "a_command", module)
    monkeypatch.setitem(cli.COMMANDS, "act", cli.Command("a_command", "Act", "moss act --number 3"))


def test_returns_what_the_command_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    _command(monkeypatch, lambda args: args.number)
    assert cli.main(["act", "--number", "7"]) == 7
    assert cli.main(["act"]) == 0


def test_bad_input_is_one_sentence_and_exit_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(args: object) -> int:
        raise InputError("clip.mp4 cannot be decoded; remove it from the list")

    _command(monkeypatch, run)
    assert cli.main(["act"]) == 2
    assert capsys.readouterr().err == "moss: error: clip.mp4 cannot be decoded; remove it from the list\n"


def test_a_path_that_cannot_be_used_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    _command(monkeypatch, lambda args: (tmp_path / "file" / "folder").mkdir())
    assert cli.main(["act"]) == 2
    assert capsys.readouterr().err == (
        f"moss: error: {tmp_path}/file/folder cannot be used: Not a directory; check the path and its permissions\n"
    )

    def full(args: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    _command(monkeypatch, full)
    assert cli.main(["act"]) == 2
    assert "make room" in capsys.readouterr().err

    def other(args: object) -> int:
        raise ConnectionError("a peer is gone")

    _command(monkeypatch, other)
    with pytest.raises(ConnectionError):
        cli.main(["act"])


def test_error_names_the_rank_among_several(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(args: object) -> int:
        raise InputError("no")

    _command(monkeypatch, run)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    cli.main(["act"])
    assert capsys.readouterr().err == "moss [rank 1]: error: no\n"


def test_interrupt_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(args: object) -> int:
        raise KeyboardInterrupt

    _command(monkeypatch, run)
    assert cli.main(["act"]) == 130


def test_help_shows_the_example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _command(monkeypatch, lambda args: 0)
    with pytest.raises(SystemExit) as stop:
        cli.main(["act", "--help"])
    assert stop.value.code == 0
    assert "moss act --number 3" in capsys.readouterr().out


def test_unknown_command_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["trian"])
    assert stop.value.code == 2
    assert "'train'" in capsys.readouterr().err


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_command_of_the_table_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    assert stop.value.code == 0
    assert cli.COMMANDS[name].example in " ".join(capsys.readouterr().out.split())


def test_overview_and_config_load_neither_torch_nor_megatron() -> None:
    code = (
        "import sys, model.config, model.errors, moss_train.cli.main as m\n"
        "try: m.main(['--help'])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'megatron', 'hydra'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_options_may_stand_between_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "stage=pt1", "--print-config", "model=tiny", "parallel=cp2"]) == 0
    assert "context: 2" in capsys.readouterr().out


def test_no_ranks_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "stage=pt1", "--nproc-per-node", "0"]) == 2
    assert "--nproc-per-node is 0" in capsys.readouterr().err


@pytest.mark.parametrize("direction", ["to-hf", "from-hf"])
def test_directions_of_convert_show_an_example(direction: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["convert", direction, "--help"])
    assert f"moss convert {direction}" in capsys.readouterr().out.split("example:")[1]
