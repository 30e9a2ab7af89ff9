"""The demo runs public commands from a plan, keeps what is finished, and says what failed."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from model.errors import InputError
from moss_train.cli import demo
from moss_train.cli import main as cli
from moss_train.cli.demo import load_plan
from moss_train.config import compose as composing

VALUES = {"out": "somewhere", "device": "cpu", "ranks": "2"}


PLANS = ("commands", "generator", "generator_gpu")


def _trained(name: str) -> list[list[str]]:
    """The overrides of each training step of a plan, in order; the launcher's words are left out."""
    return [[word for word in step.command[2:] if "=" in word] for step in load_plan(name, VALUES) if step.command[1] == "train"]


@pytest.mark.parametrize("name", PLANS)
def test_every_plan_names_public_commands_whose_arguments_are_understood(name: str) -> None:
    steps = load_plan(name, VALUES)
    assert {step.command[0] for step in steps} == {"moss"}
    for step in steps:
        parser, module = cli._command_parser(step.command[1])
        words = getattr(module, "complete", list)(step.command[2:])
        cli.parse_words(parser, words)  # an unknown argument ends the test with exit code 2
    assert steps[-1].command[1] == "report"


@pytest.mark.parametrize("name", PLANS)
def test_every_training_step_composes_as_the_plan_says(name: str) -> None:
    for overrides in _trained(name):
        values = dict(word.split("=", 1) for word in overrides)
        config = composing.compose(overrides)
        assert config.run_dir == values["run_dir"] and config.train.init_from == values.get("train.init_from")
        assert str(config.train.steps) == values.get("train.steps", str(config.train.steps))


def test_the_stages_of_the_first_demo() -> None:
    trained = [next(word for word in overrides if word.startswith("demo=")) for overrides in _trained("commands")]
    assert trained == [f"demo={n}" for n in ("warm_vision", "warm_text", "pt1", "pt2", "sft_offline", "sft_realtime")]


@pytest.mark.parametrize("name", PLANS)
def test_each_stage_starts_from_what_a_step_before_it_wrote(name: str) -> None:
    written: list[str | None] = [None]
    for overrides in _trained(name):
        values = dict(word.split("=", 1) for word in overrides)
        assert values.get("train.init_from") in written
        assert values["run_dir"] not in written
        written.append(values["run_dir"])


def test_ablations_differ_from_the_main_run_in_one_thing_alone() -> None:
    configs = [composing.compose(overrides) for overrides in _trained("generator")]
    runs = {config.run_dir.rpartition("/")[2]: config for config in configs}
    main = runs["realtime"]
    weighted = copy.deepcopy(runs["no_silence_weight"])
    assert weighted.stage.silence_token_weight == 1.0 > main.stage.silence_token_weight
    weighted.stage.silence_token_weight, weighted.run_dir = main.stage.silence_token_weight, main.run_dir
    assert weighted == main
    prompt = copy.deepcopy(runs["no_delayed"])
    assert prompt.data.datasets[0].path != main.data.datasets[0].path
    prompt.data.datasets[0].path, prompt.run_dir = main.data.datasets[0].path, main.run_dir
    assert prompt == main


@pytest.fixture
def plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "conf" / "demo" / "plans"
    folder.mkdir(parents=True)
    monkeypatch.setattr(composing, "conf_dir", lambda: tmp_path / "conf")
    return folder


def _plan(folder: Path, *commands: str) -> None:
    rows = "".join(f"  - {{title: step {i}, command: {command!r}}}\n" for i, command in enumerate(commands, 1))
    (folder / "few.yaml").write_text("steps:\n" + rows, encoding="utf-8")


def test_finished_steps_are_kept_and_a_failure_is_named(plans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ["demo", "--plan", "few", "--out", str(out)]
    _plan(plans, "cp {out}/commands.txt {out}/one", "cp {out}/nothing {out}/two")
    assert cli.main(arguments) == 2
    assert "step 2 of the demo (step 2) ended with code 1" in capsys.readouterr().err
    (out / "one").unlink()
    (out / "nothing").write_text("now there", encoding="utf-8")
    assert cli.main(arguments) == 0
    assert not (out / "one").exists()
    assert (out / "two").read_text(encoding="utf-8") == "now there"
    printed = capsys.readouterr().out
    assert "step 1: finished before, kept" in printed
    assert f"Report: {(out / 'report.html').resolve()}" in printed


def test_training_that_was_told_to_end_is_not_finished(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    command = ["moss", "train", "demo=pt1", f"run_dir={run}"]
    assert demo.stopped_early(command) == ""
    (run / "config.yaml").write_text("train: {steps: 40}\n", encoding="utf-8")
    (run / "latest").write_text("step_00000012", encoding="utf-8")
    assert demo.stopped_early(command) == "was told to end behind step 12 of 40"
    assert demo.stopped_early(["moss", "eval", f"run_dir={run}"]) == ""
    (run / "latest").write_text("step_00000040", encoding="utf-8")
    assert demo.stopped_early(command) == ""


def test_fresh_starts_over(plans: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _plan(plans, "cp {out}/commands.txt {out}/one")
    assert cli.main(["demo", "--plan", "few", "--out", str(out)]) == 0
    (out / "stale").write_text("", encoding="utf-8")
    assert cli.main(["demo", "--plan", "few", "--out", str(out), "--fresh"]) == 0
    assert not (out / "stale").exists()
    assert (out / "one").is_file()


def test_a_folder_of_other_commands_is_refused(plans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    _plan(plans, "cp {out}/commands.txt {out}/one")
    assert cli.main(["demo", "--plan", "few", "--out", str(out)]) == 0
    before = (out / "commands.txt").read_text(encoding="utf-8")
    _plan(plans, "cp {out}/commands.txt {out}/other")
    assert cli.main(["demo", "--plan", "few", "--out", str(out)]) == 2
    assert "--fresh" in capsys.readouterr().err
    assert (out / "commands.txt").read_text(encoding="utf-8") == before
    assert cli.main(["demo", "--plan", "few", "--out", str(out), "--fresh"]) == 0
    assert (out / "other").is_file()


def test_dry_run_prints_and_makes_nothing(plans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _plan(plans, "moss train demo=pt1 device={device} --nproc-per-node {ranks}")
    assert cli.main(["demo", "--plan", "few", "--out", str(tmp_path / "out"), "--dry-run", "--ranks", "3"]) == 0
    assert capsys.readouterr().out == "moss train demo=pt1 device=cpu --nproc-per-node 3\n"
    assert not (tmp_path / "out").exists()


def test_unknown_plan_names_the_known_ones(plans: Path) -> None:
    _plan(plans, "true")
    with pytest.raises(InputError, match="known plans: few"):
        load_plan("many", VALUES)


def test_a_damaged_record_and_no_ranks_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "finished.json").write_text("{", encoding="utf-8")
    assert cli.main(["demo", "--out", str(tmp_path)]) == 2
    assert "finished.json is damaged" in capsys.readouterr().err
    assert cli.main(["demo", "--ranks", "0", "--dry-run"]) == 2
    assert "--ranks is 0" in capsys.readouterr().err


def test_the_short_way_to_the_plans_of_the_generator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["demo", "--dry-run", "--out", str(tmp_path / "out")]
    printed = []
    for words in (["--generator"], ["--plan", "generator"], ["--generator", "--device", "cuda"]):
        assert cli.main([*common, *words]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] and "no_delayed" in printed[0] and "--nproc-per-node 2" in printed[0]
    assert "device=cuda --nproc-per-node 1" in printed[2] and "no_delayed" not in printed[2]
    with pytest.raises(SystemExit):
        cli.main([*common, "--generator", "--plan", "commands"])
    assert "not allowed with argument" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
