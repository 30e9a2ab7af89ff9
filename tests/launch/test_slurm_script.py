"""The batch script of `moss launch slurm`: its lines, what is refused before, and chains."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from model.errors import InputError
from moss_train.cli.main import main
from moss_train.config.compose import compose, load_config
from moss_train.config.schema import RunConfig
from moss_train.launching.slurm import job_name, render_sbatch, submit


def _config(*overrides: str) -> RunConfig:
    return compose(["stage=pt2", "launcher=slurm", "parallel=tp8", *overrides])


def test_batch_script_says_what_the_group_says(tmp_path: Path) -> None:
    config = _config(
        "run_dir=runs/x y",
        "launcher.nodes=4",
        "launcher.slurm.partition=gpu",
        "launcher.slurm.exclude='n[7-8]'",
        "launcher.slurm.extra=['--mail-type=FAIL']",
        "launcher.slurm.setup=[module load cuda]",
        "+launcher.env.NCCL_DEBUG='a b'",
        "launcher.slurm.requeue=false",
    )
    text = render_sbatch(config, work_dir=tmp_path, after="17")
    lines = text.splitlines()
    for line in (
        f"#SBATCH --job-name={job_name(config, tmp_path)}",
        "#SBATCH --nodes=4",
        "#SBATCH --ntasks-per-node=1",
        "#SBATCH --gpus-per-node=8",
        "#SBATCH --partition=gpu",
        "#SBATCH --exclude=n[7-8]",
        "#SBATCH --no-requeue",
        "#SBATCH --mail-type=FAIL",
        "#SBATCH --signal=B:USR1@120",
        "#SBATCH --dependency=afterok:17,singleton",
        "#SBATCH --kill-on-invalid-dep=yes",
        "module load cuda",
        "export NCCL_DEBUG='a b'",
        "export CUDA_DEVICE_MAX_CONNECTIONS=1",
        "export OMP_NUM_THREADS=1",
        "export NPROC_PER_NODE=8",
        f"cd {tmp_path}",
    ):
        assert line in lines, line
    assert not any("--account" in line or "--array" in line for line in lines)
    assert re.search(rf"--config '{tmp_path}/runs/x y/launch/config-[0-9a-f]{{8}}.yaml'$", lines[-1]), lines[-1]
    config.train.steps += 1  # another submission for the run changes nothing for the job that waits
    assert render_sbatch(config, work_dir=tmp_path, after="17").splitlines()[-1] != lines[-1]
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_submitting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths with blanks and per cent signs; nothing of an interactive job from which it is submitted gets into the new one."""
    tool = tmp_path / "sbatch"
    tool.write_text(f"#!/bin/sh\nenv > {tmp_path}/env\necho '17;cluster'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name, value in (("SLURM_MEM_PER_CPU", "100"), ("SLURM_CPU_BIND", "quiet"), ("SLURM_CONF", "/etc/slurm.conf")):
        monkeypatch.setenv(name, value)
    config = _config("run_dir='a b%j'", "launcher.slurm.memory=''", "launcher.python=/opt/python")
    assert submit(config, work_dir=tmp_path) == "17"
    names = [line for line in (tmp_path / "env").read_text().splitlines() if line.startswith("SLURM_")]
    assert names == ["SLURM_CONF=/etc/slurm.conf"]
    lines = (tmp_path / "a b%j" / "launch" / "train.sbatch").read_text().splitlines()
    assert f'#SBATCH --output="{tmp_path}/a b%%j/logs/%x-%j.out"' in lines
    assert not any("--mem" in line for line in lines) and lines[-1].startswith("exec /opt/python -m")


def test_fewer_nodes_are_asked_for_as_a_range(tmp_path: Path) -> None:
    """A number of tasks would make Slurm 22.05 give the least nodes where it could give all."""
    text = render_sbatch(_config("launcher.nodes=4", "launcher.min_nodes=1"), work_dir=tmp_path)
    assert "#SBATCH --nodes=1-4\n" in text
    assert "--ntasks" not in text


def test_elements_of_an_array_follow_one_another(tmp_path: Path) -> None:
    text = render_sbatch(_config("launcher.slurm.segments=5"), work_dir=tmp_path)
    assert "#SBATCH --array=1-5%1\n" in text
    assert "singleton" not in text  # the elements have one name, and one of them runs at a time as it is


@pytest.mark.parametrize(
    ("gpus", "line"), [("none", ""), ("gres", "#SBATCH --gres=gpu:8"), ("gpus-per-node", "--gpus-per-node=8")]
)
def test_ways_of_asking_for_gpus(tmp_path: Path, gpus: str, line: str) -> None:
    text = render_sbatch(_config(f"launcher.slurm.gpus={gpus}"), work_dir=tmp_path)
    assert line in text
    assert ("--gpus" in text or "--gres" in text) == bool(line)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["launcher.nodes=3", "launcher.nproc_per_node=4"],
            "nodes 3 x launcher.nproc_per_node 4 ranks: parallel.tensor 8",
        ),
        (
            ["launcher.nodes=4", "launcher.min_nodes=3", "train.global_batch_size=64"],
            "min_nodes 3 x .* may be 1, 2, 4, 8",
        ),
        (["launcher.nodes=16", "train.global_batch_size=64"], "data.global_data_workers is 8, which 16 .* may be 1, 2, 4, 8"),
        (["launcher.slurm.time=1 day"], "launcher.slurm.time is '1 day'; write"),
        (["launcher.container.runtime=docker", "launcher.container.image=a"], "runtime is docker, which srun cannot start"),
        (["launcher.elastic=true"], "launcher.elastic is true, which is torchrun's own way"),
        (["launcher.master_port=65000"], "launcher.master_port is 65000; .* choose at most 64536"),
        (["launcher.slurm.gpus=many"], "launcher.slurm.gpus is 'many'; use one of"),
        (["launcher.min_nodes=3"], "launcher.min_nodes is 3, more than launcher.nodes"),
    ],
)
def test_what_cannot_run_is_refused(tmp_path: Path, overrides: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        render_sbatch(_config(*overrides), work_dir=tmp_path)


def test_dry_run_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["launch", "slurm", "stage=pt1", "parallel=tp8", "launcher.gpu=", "--dry-run"]) == 0
    assert "#SBATCH --job-name=moss-pt1" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_plan_refuses_what_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["launch", "slurm", "stage=pt2", "launcher.nodes=1", "launcher.gpu=H100", "train.global_batch_size=8", "--dry-run"]
    assert main(words) == 2  # every GPU with the whole model and its optimizer
    captured = capsys.readouterr()
    assert "on 1 nodes of 8 a rank needs" in captured.err and "moss plan layouts" in captured.err
    assert captured.out == ""
    assert main([*words, "parallel=tp8"]) == 0
    captured = capsys.readouterr()
    assert re.search(r"moss plan: 8 H100: [\d.]+ GB of a GPU's 84.9", captured.err), captured.err
    assert "#SBATCH" in captured.out
    assert main([*words, "--no-plan"]) == 0


def _chain(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["launch", "slurm", *words, "model=11b", "parallel=tp8", "launcher.gpu=", "--dry-run"])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_chain_of_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = _chain(capsys, "--chain", "pt1,pt2", "--chain", "sft_realtime train.steps=7", "run_dir=runs/all")
    assert code == 0, err
    assert re.findall(r"--job-name=moss-(\w+)-", out) == ["pt1", "pt2", "sft_realtime"]
    assert re.findall(r"--dependency=(.*)", out) == [
        "singleton",
        "afterok:<job of runs/all/pt1>,singleton",
        "afterok:<job of runs/all/pt2>,singleton",
    ]
    code = main(["launch", "slurm", "--chain", "pt1,pt2", "run_dir=runs/all", "train.init_from=hf", "--print-config"])
    printed = capsys.readouterr().out.split("# pt2\n")
    for name, text, start in zip(("pt1", "pt2"), printed, ("hf", "runs/all/pt1"), strict=True):
        (tmp_path / name).write_text(text)
        config = load_config(tmp_path / name)
        assert (config.stage.name, config.run_dir, config.train.init_from) == (name, f"runs/all/{name}", start)
        assert (config.launcher.kind, config.logging.wandb_group) == ("slurm", "all")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--chain", "pt1,pt2"], "a chain needs run_dir=FOLDER"),
        (["--chain", "pt1,pt1", "run_dir=a"], "two links are called 'pt1'"),
        (["--chain", "stage=pt1 run_dir=b", "run_dir=a"], "sets run_dir, which the chain sets"),
        (["--chain", "train.steps=3", "run_dir=a"], "chooses none of stage, experiment, demo"),
        (["--chain", "pt1", "--config", "x", "run_dir=a"], "--config has no effect on a chain"),
        (["--chain", "pt9", "run_dir=a"], "stage=pt9 is not known"),
    ],
)
def test_chains_that_are_none(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = _chain(capsys, *words)
    assert (code, out) == (2, "")
    assert sentence in err and err.count("\n") == 1


def test_chains_are_of_slurm(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["launch", "torchrun", "--chain", "pt1", "stage=pt1"]) == 2
    assert "--chain is of Slurm" in capsys.readouterr().err


def test_local_ranks_as_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["launch", "local", "stage=pt1", "launcher.nproc_per_node=2", "train.global_batch_size=2"]
    assert main([*words, "run_dir=a b", "--dry-run"]) == 0
    shown = "launcher=local stage=pt1 launcher.nproc_per_node=2 train.global_batch_size=2 'run_dir=a b' --nproc-per-node 2"
    assert capsys.readouterr().out == f"moss train {shown}\n"
    assert main([*words, "parallel=tp4", "--dry-run"]) == 2
    assert "does not divide the 2 ranks" in capsys.readouterr().err


def test_torchrun_checks_the_node_and_fills_its_cache_first(tmp_path: Path) -> None:
    words = [
        "launch",
        "torchrun",
        "stage=pt1",
        "model=tiny",
        "device=cpu",
        f"run_dir={tmp_path}/run",
        f"data.root={tmp_path}/none",
    ]
    words += ["launcher.nproc_per_node=1", "train.global_batch_size=1", f"launcher.cache.folder={tmp_path}/copies"]
    command = [sys.executable, "-m", "moss_train.cli.main", *words, "launcher.preflight.enabled=true"]
    dry = subprocess.run([*command, "--dry-run"], capture_output=True, text=True, check=True, timeout=120).stdout.splitlines()
    assert re.findall(r"cli.main (preflight|data cache|train) ", "\n".join(dry)) == ["preflight", "data cache", "train"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert found.returncode == 6, found.stderr
    assert "no node can read" in found.stderr and "train" not in found.stdout  # it went no further
    assert (tmp_path / "run" / "launch" / "preflight" / "report.json").is_file()
