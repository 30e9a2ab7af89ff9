"""torchrun.sh and the rendered batch script: their text, and real runs with processes on this machine."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.errors import InputError
from moss_train.config.compose import compose, load_config
from moss_train.launching.folder import launch_dir
from moss_train.launching.slurm import render_sbatch
from moss_train.parallel.ports import hold_port

SCRIPT = launch_dir() / "torchrun.sh"
CLEAN = {
    name: value for name, value in os.environ.items() if name not in ("NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
} | {"PYTHON": sys.executable}


def _script(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(SCRIPT), *args], env=CLEAN | environment, capture_output=True, text=True, check=False, timeout=120
    )


def _dry(*args: str, **environment: str) -> list[str]:
    result = _script("--dry-run", *args, **environment)
    assert result.returncode == 0, result.stderr
    return shlex.split(result.stdout)


def test_one_node_takes_a_free_port() -> None:
    assert _dry("stage=pt1", "run_dir=a b", NPROC_PER_NODE="2") == [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--nnodes",
        "1",
        "--standalone",
        "-m",
        "moss_train.cli.main",
        "train",
        "stage=pt1",
        "run_dir=a b",
    ]


def test_several_nodes_by_environment() -> None:
    words = _dry(
        "stage=pt1",
        NPROC_PER_NODE="8",
        NNODES="4",
        NODE_RANK="3",
        MASTER_ADDR="node0",
        MASTER_PORT="1234",
        TORCHRUN_ARGS="--tee 3",
    )
    assert words[3:-4] == [
        "--nproc-per-node",
        "8",
        "--nnodes",
        "4",
        "--node-rank",
        "3",
        "--master-addr",
        "node0",
        "--master-port",
        "1234",
        "--tee",
        "3",
    ]


@pytest.mark.parametrize(
    ("args", "environment", "words"),
    [
        ((), {}, "nothing to train"),
        (("stage=pt1",), {"NNODES": "2"}, "MASTER_ADDR is not set"),
        (("stage=pt1",), {"NNODES": "two"}, "NNODES is 'two'"),
        (("stage=pt1",), {"NNODES": "2", "NODE_RANK": "2", "MASTER_ADDR": "a"}, "NODE_RANK is 2"),
        (("stage=pt1",), {"PYTHON": "/no/python"}, "/no/python"),
    ],
)
def test_bad_environment_is_one_sentence(args: tuple[str, ...], environment: dict[str, str], words: str) -> None:
    result = _script(*args, **environment)
    assert result.returncode == 2
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.ranks
def test_a_real_run_starts_every_rank_and_ends() -> None:
    result = _script("stage=pt1", "train.steps=7", "--print-config", NPROC_PER_NODE="2")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("steps: 7") >= 1


def test_a_mistake_in_the_configuration_is_said_once_before_any_rank_starts() -> None:
    result = _script("stage=pt1", "train.stpes=7", NPROC_PER_NODE="2")
    assert result.returncode == 2
    assert result.stderr == "moss: error: train.stpes is not a known setting; did you mean train.steps\n"


def _config(*overrides: str):  # type: ignore[no-untyped-def]
    return compose(["stage=pt2", "launcher=slurm", "parallel=tp8", *overrides])


def test_batch_script_says_what_the_group_says(tmp_path: Path) -> None:
    text = render_sbatch(
        _config(
            "run_dir=runs/x y",
            "launcher.nodes=4",
            "launcher.slurm.partition=gpu",
            "launcher.slurm.extra=['--mail-type=FAIL']",
            "launcher.slurm.setup=[module load cuda]",
            "+launcher.env.NCCL_DEBUG='a b'",
            "launcher.slurm.requeue=false",
        ),
        ["--config", "c d.yaml"],
        work_dir=tmp_path,
    )
    lines = text.splitlines()
    for line in (
        "#SBATCH --job-name=moss-pt2",
        "#SBATCH --nodes=4",
        "#SBATCH --gpus-per-node=8",
        "#SBATCH --partition=gpu",
        "#SBATCH --no-requeue",
        "#SBATCH --mail-type=FAIL",
        "#SBATCH --signal=B:USR1@120",
        "module load cuda",
        "export NCCL_DEBUG='a b'",
        "export CUDA_DEVICE_MAX_CONNECTIONS=1",
        "export OMP_NUM_THREADS=1",
        f"cd {tmp_path}",
    ):
        assert line in lines, line
    assert not any("--account" in line or "scontrol requeue" in line for line in lines)
    assert "--config 'c d.yaml' &" in text
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_world_must_hold_whole_models(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is 12, not a multiple of the 8 ranks"):
        render_sbatch(_config("launcher.nodes=3", "launcher.nproc_per_node=4"), [], work_dir=tmp_path)


def _tool(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text("#!/bin/bash\n" + text, encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def cluster(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """Slurm's commands as scripts of a few lines: srun starts its task once a node, both nodes being this machine."""
    tools = tmp_path / "bin"
    tools.mkdir()
    _tool(tools, "scontrol", 'if [ "$1" = show ]; then echo 127.0.0.1; echo 127.0.0.1; else echo "$@" >> "$CALLS"; fi\n')
    _tool(
        tools,
        "srun",
        'while [[ $1 == --* ]]; do shift; done\nfor node in 0 1; do SLURM_NODEID=$node "$@" & done\n'
        "trap 'kill -TERM $(jobs -p)' TERM\n"
        'while [ -n "$(jobs -pr)" ]; do wait -n || code=$?; [ ${code:-0} != 143 ] || code=0; done\n'
        "exit ${code:-0}\n",
    )
    _tool(tools, "sbatch", 'echo "Submitted batch job $1"\n')
    environment = CLEAN | {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "CALLS": str(tmp_path / "calls"),
        "SLURM_JOB_ID": "1000",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_NODELIST": "node[0-1]",
    }
    return tmp_path, environment


@pytest.fixture
def port() -> Iterator[int]:
    """The job adds its number modulo 1000, which is 0."""
    with hold_port() as held:
        yield held


@pytest.mark.ranks
def test_submitted_script_trains_on_two_nodes(cluster: tuple[Path, dict[str, str]], port: int) -> None:
    folder, environment = cluster
    overrides = [
        "stage=pt1",
        f"run_dir={folder}/run",
        "launcher.nproc_per_node=1",
        f"launcher.master_port={port}",
        "train.steps=7",
    ]
    submitted = subprocess.run(
        [sys.executable, "-m", "moss_train.cli.main", "launch", "slurm", *overrides],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        timeout=60,
    )
    script = folder / "run" / "launch" / "train.sbatch"
    assert str(script) in submitted.stdout
    assert load_config(script.parent / "config.yaml").train.steps == 7
    assert (folder / "run" / "logs").is_dir()
    script.write_text(script.read_text().replace(f"{script.parent}/config.yaml", f"{script.parent}/config.yaml --print-config"))
    result = subprocess.run(["bash", str(script)], env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("steps: 7") >= 1
    assert not (folder / "calls").exists()


def test_limit_near_stops_the_ranks_and_queues_again(cluster: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    folder, environment = cluster
    # In place of torchrun.sh a task that runs until SIGTERM, as a training run does that saves its checkpoint.
    task = tmp_path / "task.sh"
    _tool(tmp_path, "task.sh", "trap 'echo saved; exit 0' TERM\necho started\nwhile true; do sleep 0.1; done\n")
    text = render_sbatch(_config(f"run_dir={folder}/run"), [], work_dir=folder).replace(
        str(launch_dir() / "torchrun.sh"), str(task)
    )
    process = subprocess.Popen(["bash", "-c", text], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    assert process.stdout.readline() == "started\n"
    process.send_signal(10)
    output, _ = process.communicate(timeout=30)
    assert output.count("saved") == 2
    assert process.returncode == 0
    assert (folder / "calls").read_text() == "requeue 1000\n"


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "moss_train.cli.main", "launch", "slurm", "stage=pt1", "--dry-run"],
        env=CLEAN,
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert "#SBATCH --job-name=moss-pt1" in result.stdout
    assert not list(tmp_path.iterdir())
